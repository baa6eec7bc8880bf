//! A receiver of deliveries whose answers a test decides.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::wait_for;

/// A delivery as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Delivery {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Answers the nth request (from 1) to a path.
type Answer = dyn Fn(usize, &Delivery) -> Reply + Send + Sync;

/// What a receiver does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Status(u16),
    /// With a header.
    With(u16, &'static str, &'static str),
    /// Never answers.
    Hang,
    /// Answers when the test lets it.
    WhenReleased(u16, Arc<tokio::sync::Semaphore>),
}

struct Inner {
    deliveries: Mutex<Vec<Delivery>>,
    answer: Box<Answer>,
}

pub(crate) struct Receiver {
    inner: Arc<Inner>,
    address: SocketAddr,
    server: AbortHandle,
}

impl Receiver {
    /// Answers 200 to everything.
    pub(crate) async fn new() -> Self {
        Self::answering(|_, _| Reply::Status(200)).await
    }

    /// `answer` is told how many requests there were to the path, this one included.
    pub(crate) async fn answering(
        answer: impl Fn(usize, &Delivery) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let inner = Arc::new(Inner { deliveries: Mutex::default(), answer: Box::new(answer) });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(receive).with_state(Arc::clone(&inner));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        Self { inner, address, server: server.abort_handle() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.inner.deliveries.lock().expect("no panic").clone()
    }

    /// Waits until there were this many requests, and answers them.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Delivery> {
        wait_for(&format!("{count} deliveries"), || async { self.deliveries().len() >= count }).await;
        self.deliveries()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 64 * 1024 * 1024).await.expect("a body");
    let delivery = Delivery {
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let count = {
        let mut deliveries = inner.deliveries.lock().expect("no panic");
        deliveries.push(delivery.clone());
        deliveries.iter().filter(|known| known.path == delivery.path).count()
    };
    match (inner.answer)(count, &delivery) {
        Reply::Status(status) => respond(status, None),
        Reply::With(status, name, value) => respond(status, Some((name, value))),
        Reply::Hang => std::future::pending().await,
        Reply::WhenReleased(status, gate) => {
            gate.acquire().await.expect("a gate").forget();
            respond(status, None)
        }
    }
}

fn respond(status: u16, header: Option<(&str, &str)>) -> Response {
    let mut response = Response::builder().status(StatusCode::from_u16(status).expect("a status"));
    if let Some((name, value)) = header {
        response = response.header(name, value);
    }
    response.body(Body::from("answered")).expect("a response")
}
