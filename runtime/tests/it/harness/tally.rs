//! A receiver for many deliveries, which only counts: the requests of each event, and those at the same time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// The requests of one event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) requests: u32,
    pub(crate) at_once: u32,
    pub(crate) most_at_once: u32,
}

/// Responds to the nth request (from 1) of an event.
type Answer = dyn Fn(u32) -> StatusCode + Send + Sync;

/// The time that the nth request (from 1) of an event takes.
type Takes = dyn Fn(u32) -> Duration + Send + Sync;

struct Inner {
    counts: Mutex<HashMap<String, Count>>,
    takes: Box<Takes>,
    answer: Box<Answer>,
}

/// A receiver that counts the requests of each event.
pub(crate) struct Tally {
    inner: Arc<Inner>,
    address: SocketAddr,
    server: AbortHandle,
}

impl Tally {
    /// Responds to each request after the time that it `takes`.
    pub(crate) async fn new(
        takes: Duration,
        answer: impl Fn(u32) -> StatusCode + Send + Sync + 'static,
    ) -> Self {
        Self::with(Box::new(move |_| takes), Box::new(answer)).await
    }

    /// Responds with 200, to the first request of each event after this time, and to others at once.
    pub(crate) async fn slow_at_first(takes: Duration) -> Self {
        let takes = move |request| if request == 1 { takes } else { Duration::ZERO };
        Self::with(Box::new(takes), Box::new(|_| StatusCode::OK)).await
    }

    async fn with(takes: Box<Takes>, answer: Box<Answer>) -> Self {
        let inner = Arc::new(Inner { counts: Mutex::default(), takes, answer });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(receive).with_state(Arc::clone(&inner));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        Self { inner, address, server: server.abort_handle() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Returns the counts of each event, by its id.
    pub(crate) fn counts(&self) -> HashMap<String, Count> {
        self.inner.counts.lock().expect("no panic").clone()
    }

    /// Fails unless this number of events arrived, each with this number of requests, and none twice at the same time.
    pub(crate) fn assert_each(&self, events: usize, requests: u32) {
        let counts = self.counts();
        let wrong: Vec<_> = counts
            .iter()
            .filter(|(_, count)| (count.requests, count.most_at_once) != (requests, 1))
            .take(10)
            .collect();
        assert!(
            wrong.is_empty(),
            "expected {requests} requests of each event, one after the other: {wrong:?}"
        );
        assert_eq!(counts.len(), events);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A request in flight. It ends also when its sender is killed.
struct InFlight {
    inner: Arc<Inner>,
    id: String,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Ok(mut counts) = self.inner.counts.lock()
            && let Some(count) = counts.get_mut(&self.id)
        {
            count.at_once -= 1;
        }
    }
}

async fn receive(State(inner): State<Arc<Inner>>, headers: HeaderMap) -> StatusCode {
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let requests = {
        let mut counts = inner.counts.lock().expect("no panic");
        let count = counts.entry(id.clone()).or_default();
        count.requests += 1;
        count.at_once += 1;
        count.most_at_once = count.most_at_once.max(count.at_once);
        count.requests
    };
    let in_flight = InFlight { inner, id };
    // The time that the receiver takes, not a wait for a condition.
    tokio::time::sleep((in_flight.inner.takes)(requests)).await;
    (in_flight.inner.answer)(requests)
}
