//! The receiver of the deliveries: an HTTP/1.1 server on a thread of its own.
//!
//! A delivery counts when its whole body has arrived, before it is answered: it was delivered even if the worker no longer waits
//! for the answer. Bodies, headers, connections and waiting are bounded.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use hdrhistogram::Histogram;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::SinkConfig;
use crate::event_body::{BodyIdentity, BodyIntegrity, EventBody};
use crate::latency::latency_histogram;
use crate::ledger::{DeliveryKind, Ledger};
use crate::outage_ledger::OutageLedger;

const MAX_CONNECTIONS: usize = 4096;
/// Deadlines for the headers of a request, including idle time, and for its body.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests in flight at the end of the run may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed accept, for example because there is no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Counters of requests that the ledger does not keep.
#[derive(Debug, Default)]
pub(crate) struct RequestCounts {
    pub(crate) foreign: AtomicU64,
    pub(crate) unreadable: AtomicU64,
    pub(crate) bad_signatures: AtomicU64,
    pub(crate) altered: AtomicU64,
    pub(crate) reencoded: AtomicU64,
    /// Requests that are not deliveries: not a POST, or without a complete body of a plausible size.
    pub(crate) other_requests: AtomicU64,
}

/// When deliveries arrived, and how long after their events were due.
pub(crate) struct ArrivalStats {
    pub(crate) latency_us: Histogram<u64>,
    pub(crate) first: Option<Instant>,
    pub(crate) last: Option<Instant>,
}

/// The ledger that deliveries are recorded in, which decides how they are answered.
pub(crate) enum Recorder {
    Run(Arc<Ledger>),
    Outage(Arc<OutageLedger>),
}

/// The state that connections share.
pub(crate) struct SinkState {
    recorder: Recorder,
    body: EventBody,
    config: SinkConfig,
    max_body_bytes: usize,
    pub(crate) counts: RequestCounts,
    arrivals: Mutex<ArrivalStats>,
}

/// A running sink.
pub(crate) struct Sink {
    addr: SocketAddr,
    pub(crate) state: Arc<SinkState>,
    stop: CancellationToken,
    stopped: oneshot::Receiver<()>,
}

impl Sink {
    /// Listens on the address until [`Sink::stop`], or until the sink is dropped.
    ///
    /// # Errors
    /// When the address cannot be listened on or the thread cannot be started.
    pub(crate) fn start(
        config: SinkConfig,
        body: EventBody,
        body_bytes: usize,
        recorder: Recorder,
    ) -> anyhow::Result<Sink> {
        let listener = std::net::TcpListener::bind(config.addr)
            .with_context(|| format!("listen on {} for deliveries", config.addr))?;
        listener.set_nonblocking(true).context("prepare the sink's listener")?;
        let addr = listener.local_addr().context("read the sink's address")?;
        let arrivals = ArrivalStats { latency_us: latency_histogram()?, first: None, last: None };
        let state = Arc::new(SinkState {
            recorder,
            body,
            config,
            // Room for escapes and for the additions of the gateway.
            max_body_bytes: body_bytes.saturating_mul(2).saturating_add(64 * 1024),
            counts: RequestCounts::default(),
            arrivals: Mutex::new(arrivals),
        });
        let stop = CancellationToken::new();
        let (report_stopped, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("build the sink's runtime")?;
        std::thread::Builder::new()
            .name("loadtest-sink".to_owned())
            .spawn({
                let (state, stop) = (Arc::clone(&state), stop.clone());
                move || {
                    runtime.block_on(serve(listener, state, stop));
                    drop(runtime);
                    // The receiver may have been dropped.
                    report_stopped.send(()).ok();
                }
            })
            .context("start the sink's thread")?;
        Ok(Sink { addr, state, stop, stopped })
    }

    /// Returns the actual address.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers the requests in flight, closes, and returns when nothing changes any more.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Arc<SinkState>> {
        self.stop.cancel();
        (&mut self.stopped).await.context("the sink's thread ended early")?;
        Ok(Arc::clone(&self.state))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(listener: std::net::TcpListener, state: Arc<SinkState>, stop: CancellationToken) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the sink cannot listen");
            return;
        }
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT).auto_date_header(false).writev(false);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        let Some((stream, permit)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let state = Arc::clone(&state);
        let service = service_fn(move |request| {
            let state = Arc::clone(&state);
            async move { Ok::<_, Infallible>(state.receive(request).await) }
        });
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        connections.spawn(async move {
            // A broken connection loses only what has not arrived.
            connection.await.ok();
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    // Dropping the runtime cancels the rest.
    timeout(SHUTDOWN_TIMEOUT, async {
        graceful.shutdown().await;
        connections.wait().await;
    })
    .await
    .ok();
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    let (stream, _peer) = listener.accept().await.ok()?;
    stream.set_nodelay(true).ok()?;
    Some((stream, permit))
}

impl SinkState {
    /// These figures are usable after a panic elsewhere.
    pub(crate) fn arrivals(&self) -> MutexGuard<'_, ArrivalStats> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn receive(&self, request: Request<Incoming>) -> Response<Empty<Bytes>> {
        let arrived = Instant::now();
        if request.method() != Method::POST {
            self.counts.other_requests.fetch_add(1, Ordering::Relaxed);
            return answer(StatusCode::METHOD_NOT_ALLOWED);
        }
        let (head, body) = request.into_parts();
        let body = match timeout(BODY_TIMEOUT, read(body, self.max_body_bytes)).await {
            Ok(Some(body)) => body,
            Ok(None) | Err(_) => {
                self.counts.other_requests.fetch_add(1, Ordering::Relaxed);
                return answer(StatusCode::BAD_REQUEST);
            }
        };
        if let Some(key) = &self.config.signing_key {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
            if !key.verifies(&head.headers, &body, now) {
                // It still counts as a delivery: a bad signature must not look like a loss as well.
                self.counts.bad_signatures.fetch_add(1, Ordering::Relaxed);
            }
        }
        let status = self.record(&head, &body, arrived);
        if !self.config.delay.is_zero() {
            tokio::time::sleep(self.config.delay).await;
        }
        answer(status)
    }

    fn record(&self, head: &Parts, body: &[u8], arrived: Instant) -> StatusCode {
        let number = match self.body.identify(body) {
            BodyIdentity::ThisRun(number) => number,
            // No number is as large.
            BodyIdentity::OutOfRange => u64::MAX,
            BodyIdentity::Foreign => {
                self.counts.foreign.fetch_add(1, Ordering::Relaxed);
                return StatusCode::OK;
            }
            BodyIdentity::Unreadable => {
                self.counts.unreadable.fetch_add(1, Ordering::Relaxed);
                return StatusCode::OK;
            }
        };
        match &self.recorder {
            Recorder::Run(ledger) => self.record_in_run(ledger, number, body, arrived),
            Recorder::Outage(ledger) => {
                let status = ledger.record(head.uri.path(), &head.headers, number, arrived);
                if status.is_success() && ledger.knows_bodies() {
                    self.compare(body, number);
                }
                status
            }
        }
    }

    fn record_in_run(&self, ledger: &Ledger, number: u64, body: &[u8], arrived: Instant) -> StatusCode {
        if is_chosen(number, self.config.fail_percent) && ledger.refuse_once(number) {
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        let delivered = ledger.record_delivery(number, arrived);
        if delivered == DeliveryKind::Phantom {
            return StatusCode::OK;
        }
        self.compare(body, number);
        if let DeliveryKind::First(latency) = delivered {
            let mut arrivals = self.arrivals();
            arrivals.first.get_or_insert(arrived);
            arrivals.last = Some(arrived);
            arrivals.latency_us.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        }
        StatusCode::OK
    }

    fn compare(&self, body: &[u8], number: u64) {
        let counter = match self.body.compare(body, number) {
            BodyIntegrity::Same => return,
            BodyIntegrity::Reencoded => &self.counts.reencoded,
            BodyIntegrity::Altered => &self.counts.altered,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn answer(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

/// Returns the whole body, or `None` when it is too long or incomplete.
async fn read(mut body: Incoming, max_bytes: usize) -> Option<Bytes> {
    let mut whole = match body.frame().await {
        None => return Some(Bytes::new()),
        Some(frame) => frame.ok()?.into_data().unwrap_or_default(),
    };
    if !body.is_end_stream() {
        let mut joined = BytesMut::from(whole);
        while let Some(frame) = body.frame().await {
            joined.extend_from_slice(&frame.ok()?.into_data().unwrap_or_default());
            if joined.len() > max_bytes {
                return None;
            }
        }
        whole = joined.freeze();
    }
    (whole.len() <= max_bytes).then_some(whole)
}

/// Whether a number belongs to a share of all numbers, spread evenly and the same in every run.
fn is_chosen(number: u64, percent: u8) -> bool {
    // The finalizer of SplitMix64 spreads neighbouring numbers.
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % 100 < u64::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_share_is_the_configured_percentage() {
        for percent in [0, 1, 10, 50, 99, 100] {
            let chosen = (0..100_000).filter(|number| is_chosen(*number, percent)).count();
            let expected = usize::from(percent) * 1000;
            assert!(chosen.abs_diff(expected) <= 500, "{percent} %: {chosen}");
        }
    }
}
