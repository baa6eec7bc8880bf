//! Receivers on the loopback interface: one that speaks HTTP properly, and one that does what it likes with bytes.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A receiver that is stopped when dropped.
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<(Parts, Bytes)>>>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Records every request, and answers what `answer` says about its path.
    pub(super) async fn speaking_http<F>(answer: F) -> Self
    where
        F: Fn(&str) -> Response + Clone + Send + Sync + 'static,
    {
        let (router, requests) = recording(answer);
        let mut receiver = Self::scripted(move |stream| serve(router.clone(), stream)).await;
        receiver.requests = requests;
        receiver
    }

    /// As [`Self::speaking_http`], over TLS. Connections whose handshake fails are closed.
    pub(super) async fn speaking_https<F>(config: ServerConfig, answer: F) -> Self
    where
        F: Fn(&str) -> Response + Clone + Send + Sync + 'static,
    {
        let (router, requests) = recording(answer);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut receiver = Self::scripted(move |stream| {
            let (router, acceptor) = (router.clone(), acceptor.clone());
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(router, stream).await;
                }
            }
        })
        .await;
        receiver.requests = requests;
        receiver
    }

    /// Reads one request of each connection, without recording it, and then runs `script`.
    pub(super) async fn after_request<F, R>(script: F) -> Self
    where
        F: Fn(TcpStream) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::scripted(move |mut stream| {
            let script = script.clone();
            async move {
                read_request(&mut stream).await;
                script(stream).await;
            }
        })
        .await
    }

    /// Runs `script` for each connection.
    pub(super) async fn scripted<F, R>(script: F) -> Self
    where
        F: Fn(TcpStream) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::scripted_at(Ipv4Addr::LOCALHOST.into(), script).await
    }

    pub(super) async fn scripted_at<F, R>(address: IpAddr, script: F) -> Self
    where
        F: Fn(TcpStream) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                serving.spawn(script(stream));
            }
        });
        Self { address, connections, requests: Arc::default(), task }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> Vec<(Parts, Bytes)> {
        self.requests.lock().unwrap().clone()
    }
}

type Requests = Arc<Mutex<Vec<(Parts, Bytes)>>>;

/// Returns what records every request and answers it.
fn recording<F>(answer: F) -> (Router, Requests)
where
    F: Fn(&str) -> Response + Clone + Send + Sync + 'static,
{
    let requests = Requests::default();
    let recorded = Arc::clone(&requests);
    let router = Router::new().fallback(async move |request: Request| {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let response = answer(parts.uri.path());
        recorded.lock().unwrap().push((parts, body));
        response
    });
    (router, requests)
}

/// Serves a connection in the version that the client chose.
async fn serve(router: Router, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = hyper_util::service::TowerToHyperService::new(router);
    let executor = hyper_util::rt::TokioExecutor::new();
    let builder = hyper_util::server::conn::auto::Builder::new(executor);
    builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await.ok();
}

/// Answers this many requests.
pub(super) async fn answer_requests(stream: &mut TcpStream, count: usize) {
    for _ in 0..count {
        read_request(stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    }
}

/// Reads a request with a content-length to its end.
pub(super) async fn read_request(stream: &mut TcpStream) {
    let mut read = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "the request broke off");
        let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(read[..end].to_vec()).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if read.len() >= end + 4 + length.parse::<usize>().unwrap() {
            return;
        }
    }
}

/// Writes until the other side has closed the connection.
pub(super) async fn write_for_ever(stream: &mut TcpStream, bytes: &[u8]) {
    while stream.write_all(bytes).await.is_ok() {}
}
