//! Serves HTTP on a socket, with bounds on connections, headers, requests, answers and time, and drains it on stop. A public
//! port needs all of these bounds.
//!
//! What a client can hold is bounded for each connection (by `MAX_HEADER_BYTES`, and over HTTP/2 by `MAX_STREAMS`, the windows
//! and the send buffer), for each client (a quarter of the connections of the port, an eighth of its requests), and by time (`ConnectionDeadlines`).

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

mod slots;
mod activity;
mod watched_stream;

pub use activity::ConnectionDeadlines;
pub use slots::ConnectionSlots;

use crate::client_network::ClientNetwork;
use crate::fair_shares::FairShares;
use activity::{Activity, AnswerBody, Exchange, Overdue};
use slots::Slot;
use watched_stream::{LingeringCloses, WatchedStream};

/// The headers of the first request must arrive within this time after the connection, those of a further one after their first byte.
const HEADER_DEADLINE: Duration = Duration::from_secs(15);

/// How long a connection that is asked to end may take for it.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// The size of all headers of a request together: more than any provider sends, and the default of common servers.
const MAX_HEADER_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 100;

/// Concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;

/// Concurrent requests on all HTTP/2 connections of a port, and the part of them that one client gets at most: one eighth.
/// Further ones are reset, with the reason that means that they can be sent again. HTTP/1.1 has one for each connection.
const MAX_REQUESTS: usize = 4_096;
const CLIENT_REQUESTS_DIVISOR: usize = 8;

/// Bytes that one HTTP/2 connection may send before they are read. A stream may send as many.
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// Bytes of an answer that one HTTP/2 stream takes for a client whose connection is busy.
const STREAM_SEND_BUFFER: usize = 16 * 1024;

/// The longest correlation id that a client may send: longer ones, and any that are not visible ASCII, are replaced.
const MAX_CORRELATION_ID: usize = 128;

/// The id that links a request to everything that follows from it.
#[derive(Debug, Clone)]
pub struct CorrelationId(pub Arc<str>);

const CORRELATION_HEADER: &str = "x-correlation-id";

impl CorrelationId {
    /// Takes the id from the request, or makes one.
    fn of(request: &Request<Incoming>) -> Self {
        let given = request.headers().get(CORRELATION_HEADER).and_then(|value| value.to_str().ok());
        let usable = |id: &&str| {
            (1..=MAX_CORRELATION_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        given.filter(usable).map_or_else(Self::generate, |given| Self(given.into()))
    }

    /// Makes an id.
    pub fn generate() -> Self {
        let mut text = Uuid::encode_buffer();
        Self((&*Uuid::now_v7().hyphenated().encode_lower(&mut text)).into())
    }
}

/// The bounds of a port.
#[derive(Debug, Clone)]
pub struct PortBounds {
    pub slots: ConnectionSlots,
    pub deadlines: ConnectionDeadlines,
}

/// Serves until the token is cancelled and the requests in flight are answered, or `drain` has passed.
///
/// `handler` receives each request with its [`CorrelationId`] among the extensions, and the peer's address.
pub async fn serve<H, F, B>(
    listener: TcpListener,
    bounds: PortBounds,
    handler: H,
    stop: CancellationToken,
    drain: Duration,
) where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Unpin + Send + 'static,
{
    let port = Arc::new(Port {
        builder: builder(),
        deadlines: bounds.deadlines,
        requests: FairShares::new(MAX_REQUESTS, CLIENT_REQUESTS_DIVISOR),
        closes: LingeringCloses::default(),
    });
    // Each ends with its client, by the deadlines, or by the stop.
    let connections = TaskTracker::new();
    while let Some((stream, peer, slot)) = accept(&listener, &bounds.slots, &stop).await {
        let (port, handler, stop) = (Arc::clone(&port), handler.clone(), stop.clone());
        connections.spawn(async move {
            port.serve_connection(stream, peer, &slot, handler, &stop).await;
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(drain, connections.wait()).await.is_err() {
        tracing::warn!("requests were still in flight at the shutdown deadline");
    }
}

/// What the connections of a port share.
struct Port {
    builder: Builder<TokioExecutor>,
    deadlines: ConnectionDeadlines,
    requests: FairShares<ClientNetwork>,
    closes: LingeringCloses,
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // Its deadline for headers would begin with the end of the previous request: `activity` has one that does not.
    builder
        .http1()
        .header_read_timeout(None::<Duration>)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_SEND_BUFFER)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

impl Port {
    /// Begins a request, unless the client has its part of all.
    fn begin(
        &self,
        activity: &Arc<Activity>,
        slot: &Slot,
        request: &Request<Incoming>,
    ) -> Result<Arc<Exchange>, h2::Error> {
        if request.version() < Version::HTTP_2 {
            return Ok(activity.begin(None));
        }
        let share = self.requests.take(slot.client, 1).ok_or_else(|| {
            metrics::counter!("grapnel_requests_refused_total").increment(1);
            h2::Reason::REFUSED_STREAM
        })?;
        Ok(activity.begin(Some(share)))
    }

    /// Serves one connection to its end.
    async fn serve_connection<H, F, B>(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        slot: &Slot,
        handler: H,
        stop: &CancellationToken,
    ) where
        H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Unpin + Send + 'static,
    {
        let activity = Activity::new(self.deadlines);
        let service = service_fn(|request: Request<Incoming>| {
            let exchange = self.begin(&activity, slot, &request);
            let handler = handler.clone();
            async move {
                let exchange = exchange?;
                let response = with_correlation_id(handler, peer, request).await;
                Ok::<_, h2::Error>(response.map(|body| AnswerBody::new(body, exchange)))
            }
        });
        let stream = TokioIo::new(WatchedStream::new(stream, Arc::clone(&activity), self.closes.clone()));
        let mut connection = pin!(self.builder.serve_connection(stream, service));
        let mut is_stopped = false;
        let overdue = loop {
            tokio::select! {
                ended = connection.as_mut() => return log_end(ended),
                overdue = activity.overdue() => break overdue,
                () = stop.cancelled(), if !is_stopped => {
                    is_stopped = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        };
        metrics::counter!("grapnel_connections_closed_total", "reason" => overdue.label()).increment(1);
        if overdue == Overdue::NextRequest {
            // A request that is on its way is still answered, or known not to have been taken.
            connection.as_mut().graceful_shutdown();
            if let Ok(ended) = tokio::time::timeout(CLOSE_DEADLINE, connection).await {
                log_end(ended);
            }
        }
    }
}

fn log_end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(error = %grapnel_core::error_chain::chain(&*error), "connection ended");
    }
}

/// Waits for the next connection; `None` after the token is cancelled. A connection for which there is no slot is closed at
/// once: in the backlog it would keep out those for which there is one.
async fn accept(
    listener: &TcpListener,
    slots: &ConnectionSlots,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, Slot)> {
    loop {
        match stop.run_until_cancelled(listener.accept()).await? {
            Ok((stream, peer)) => {
                let Some(slot) = slots.take(peer.ip()) else {
                    metrics::counter!("grapnel_connections_refused_total").increment(1);
                    continue;
                };
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "connection without TCP_NODELAY");
                }
                return Some((stream, peer, slot));
            }
            Err(error) => {
                // Usually out of file descriptors: wait for a free one rather than spin.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn with_correlation_id<H, F, B>(
    handler: H,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Response<B>
where
    H: Fn(Request<Incoming>, SocketAddr) -> F,
    F: Future<Output = Response<B>>,
{
    let correlation_id = CorrelationId::of(&request);
    let header = HeaderValue::from_str(&correlation_id.0);
    request.extensions_mut().insert(correlation_id);
    let mut response = handler(request, peer).await;
    if let Ok(header) = header {
        response.headers_mut().insert(CORRELATION_HEADER, header);
    }
    response
}
