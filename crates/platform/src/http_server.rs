//! Serves HTTP on a socket: bounded in connections, headers and time, and drained on stop. A public port needs all of
//! these bounds.

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

/// Connections at once. More wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 10_000;

/// Headers must be here this long after the connection, or after the answer before.
const HEADER_DEADLINE: Duration = Duration::from_secs(15);

/// All headers of a request together.
const MAX_HEADER_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;

/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// A correlation id that a client may give: longer ones, and others than visible ASCII, are replaced.
const MAX_CORRELATION_ID: usize = 128;

/// The id by which a request is followed through everything it leads to.
#[derive(Debug, Clone)]
pub struct CorrelationId(pub Arc<str>);

const CORRELATION_HEADER: &str = "x-correlation-id";

impl CorrelationId {
    /// Taken from the request, or made.
    fn of(request: &Request<Incoming>) -> Self {
        let given = request.headers().get(CORRELATION_HEADER).and_then(|value| value.to_str().ok());
        let usable = |id: &&str| {
            (1..=MAX_CORRELATION_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        Self(given.filter(usable).map_or_else(|| Uuid::now_v7().to_string().into(), Arc::from))
    }
}

/// Serves until the token is cancelled and the requests in flight are answered, or the deadline after it passes.
///
/// `answer` gets each request with its [`CorrelationId`] among the extensions, and the address of the peer.
pub async fn serve<A, F, B>(listener: TcpListener, answer: A, stop: CancellationToken, drain: Duration)
where
    A: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
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
        let answer = answer.clone();
        let requested = Arc::new(AtomicBool::new(false));
        let first_request = Arc::clone(&requested);
        let service = service_fn(move |request| {
            first_request.store(true, Ordering::Relaxed);
            with_correlation_id(answer.clone(), peer, request)
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let watched = graceful.watch(connection);
        // Ends with its connection, which the graceful shutdown closes and the runtime's end cuts off.
        tokio::spawn(async move {
            tokio::select! {
                ended = watched => if let Err(error) = ended {
                    tracing::debug!(error = %grapnel_core::error_chain::chain(&*error), "connection ended");
                },
                () = silence(&requested) => tracing::debug!("connection without a request closed"),
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still in flight at the deadline of the shutdown");
    }
}

/// Completes when the deadline passes without a first request. The library's own deadline begins only when it knows the
/// version of HTTP, which a client can keep it from for ever.
async fn silence(requested: &AtomicBool) {
    tokio::time::sleep(HEADER_DEADLINE).await;
    if requested.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

/// The next connection; `None` when it is time to stop.
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
                // Usually out of file descriptors: wait for one to be free rather than spin.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn with_correlation_id<A, F, B>(
    answer: A,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<B>, std::convert::Infallible>
where
    A: Fn(Request<Incoming>, SocketAddr) -> F,
    F: Future<Output = Response<B>>,
{
    let correlation_id = CorrelationId::of(&request);
    let header = HeaderValue::from_str(&correlation_id.0);
    request.extensions_mut().insert(correlation_id);
    let mut response = answer(request, peer).await;
    if let Ok(header) = header {
        response.headers_mut().insert(CORRELATION_HEADER, header);
    }
    Ok(response)
}
