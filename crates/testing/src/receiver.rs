//! A receiver of deliveries whose responses a test decides.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::wait::wait_until;

/// A delivery as it arrived.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
    pub at: Instant,
}

impl Delivery {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Responds to the nth request (from 1) to a path.
type Answer = dyn Fn(usize, &Delivery) -> Reply + Send + Sync;

/// The reaction of a receiver to a request.
#[derive(Debug, Clone)]
pub enum Reply {
    Status(u16),
    /// With a header.
    With(u16, &'static str, &'static str),
    Headers(u16, Vec<(String, String)>),
    Body(u16, Vec<u8>),
    /// Never responds.
    Hang,
    /// Responds when the test adds a permit.
    WhenReleased(u16, Arc<tokio::sync::Semaphore>),
}

struct Inner {
    deliveries: Mutex<Vec<Delivery>>,
    answer: Box<Answer>,
}

/// A receiver that records the deliveries.
pub struct TestReceiver {
    inner: Arc<Inner>,
    address: SocketAddr,
    server: AbortHandle,
}

impl TestReceiver {
    /// Responds with 200 to everything.
    pub async fn new() -> Self {
        Self::answering(|_, _| Reply::Status(200)).await
    }

    /// `answer` gets the number of requests to the path, including this one.
    pub async fn answering(answer: impl Fn(usize, &Delivery) -> Reply + Send + Sync + 'static) -> Self {
        let inner = Arc::new(Inner { deliveries: Mutex::default(), answer: Box::new(answer) });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(receive).with_state(Arc::clone(&inner));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        Self { inner, address, server: server.abort_handle() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn deliveries(&self) -> Vec<Delivery> {
        self.inner.deliveries.lock().expect("no panic").clone()
    }

    /// Returns the deliveries to one path.
    pub fn deliveries_to(&self, path: &str) -> Vec<Delivery> {
        self.deliveries().into_iter().filter(|delivery| delivery.path == path).collect()
    }

    /// Waits until this many deliveries have arrived, and returns them.
    pub async fn wait_for(&self, count: usize) -> Vec<Delivery> {
        wait_until(&format!("{count} deliveries"), async || self.deliveries().len() >= count).await;
        self.deliveries()
    }
}

impl Drop for TestReceiver {
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
        at: Instant::now(),
    };
    let count = {
        let mut deliveries = inner.deliveries.lock().expect("no panic");
        deliveries.push(delivery.clone());
        deliveries.iter().filter(|known| known.path == delivery.path).count()
    };
    match (inner.answer)(count, &delivery) {
        Reply::Status(status) => respond(status, None),
        Reply::With(status, name, value) => respond(status, Some((name, value))),
        Reply::Headers(status, headers) => {
            let mut response = respond(status, None);
            for (name, value) in headers {
                let name = name.parse::<axum::http::HeaderName>().expect("a name");
                response.headers_mut().insert(name, value.parse().expect("a value"));
            }
            response
        }
        Reply::Body(status, body) => {
            let mut response = respond(status, None);
            *response.body_mut() = Body::from(body);
            response
        }
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

/// A receiver that responds with raw bytes, whether they are HTTP or not, and then closes the connection. Without bytes, it
/// never responds.
pub struct RawReceiver {
    address: SocketAddr,
    server: AbortHandle,
}

impl RawReceiver {
    /// `answer` gets the path.
    pub async fn new(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let answer = Arc::new(answer);
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let mut request = vec![0; 64 * 1024];
                    let count = stream.read(&mut request).await.unwrap_or(0);
                    let text = String::from_utf8_lossy(&request[..count]);
                    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                    let Some(bytes) = answer(&path) else { return std::future::pending().await };
                    // The client may close the connection before it has read everything.
                    let _closed = stream.write_all(&bytes).await;
                });
            }
        });
        Self { address, server: server.abort_handle() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for RawReceiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}
