//! Receivers on the loopback interface: one that speaks HTTP properly, and one that does what it likes with bytes.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

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
        let requests = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&requests);
        let router = Router::new().fallback(async move |request: Request| {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let response = answer(parts.uri.path());
            recorded.lock().unwrap().push((parts, body));
            response
        });
        let mut receiver = Self::scripted(move |stream| {
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            let io = hyper_util::rt::TokioIo::new(stream);
            async move {
                hyper::server::conn::http1::Builder::new().serve_connection(io, service).await.ok();
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
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
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

/// Reads a request with a content-length to its end.
async fn read_request(stream: &mut TcpStream) {
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
