//! Serves HTTP on a socket, with bounds on connections, headers and time, and drains it on stop. A public port needs all
//! of these bounds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Concurrent connections. Further ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 10_000;

/// Headers must arrive within this time after the connection or the previous response.
const HEADER_DEADLINE: Duration = Duration::from_secs(15);

/// The size of all headers of a request together.
const MAX_HEADER_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;

/// Concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

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
        Self(given.filter(usable).map_or_else(|| Uuid::now_v7().to_string().into(), Arc::from))
    }
}

/// Serves until the token is cancelled and the requests in flight are answered, or `drain` has passed.
///
/// `handler` receives each request with its [`CorrelationId`] among the extensions, and the peer's address.
pub async fn serve<H, F, B>(listener: TcpListener, handler: H, stop: CancellationToken, drain: Duration)
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    let builder = Arc::new(builder);
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Some((stream, peer, permit)) = accept(&listener, &connections, &stop).await {
        let handler = handler.clone();
        let has_request = Arc::new(AtomicBool::new(false));
        let first_request = Arc::clone(&has_request);
        let service = service_fn(move |request| {
            first_request.store(true, Ordering::Relaxed);
            with_correlation_id(handler.clone(), peer, request)
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let watched = graceful.watch(connection);
        // Ends with its connection: the graceful shutdown closes it, or the end of the runtime aborts it.
        tokio::spawn(async move {
            tokio::select! {
                ended = watched => if let Err(error) = ended {
                    tracing::debug!(error = %grapnel_core::error_chain::chain(&*error), "connection ended");
                },
                () = first_request_deadline(&has_request) => tracing::debug!("connection without a request closed"),
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still in flight at the shutdown deadline");
    }
}

/// Completes when the deadline passes without a first request. The library's own deadline begins only when it knows the
/// HTTP version, which a client can delay indefinitely.
async fn first_request_deadline(has_request: &AtomicBool) {
    tokio::time::sleep(HEADER_DEADLINE).await;
    if has_request.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

/// Waits for the next connection; `None` after the token is cancelled.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    loop {
        let permit = stop.run_until_cancelled(Arc::clone(connections).acquire_owned()).await?.ok()?;
        match stop.run_until_cancelled(listener.accept()).await? {
            Ok((stream, peer)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "connection without TCP_NODELAY");
                }
                return Some((stream, peer, permit));
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
) -> Result<Response<B>, std::convert::Infallible>
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
    Ok(response)
}
