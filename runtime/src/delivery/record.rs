//! Records results in group commits and ends their part of a message after the commit.
//!
//! A result is retried until PostgreSQL accepts it or its claim must have expired; then its message is returned to the
//! queue, and the delivery is sent again under a new claim.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use grapnel_store::Database;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::claimants::Claimant;
use super::message::{self, MessagePart, PartEnd};
use crate::traffic::{AttemptEnd, Traffic};
use grapnel_core::delivery::state::DeliveryState;
use grapnel_core::error_chain::chain;
use grapnel_store::DedicatedConnection;
use grapnel_store::deliveries::{self, AttemptResult, RecordedAttempt};

/// Results that may wait to be recorded; if there is no room, the attempt waits with its result.
const CAPACITY: usize = 4_096;

/// Results in one statement.
const BATCH: usize = 256;

/// Fewer results than this wait for more: a statement costs as much as several results, and its commit would compete for the disk with
/// those of the ingress, whose senders wait.
const SMALL: Batching = Batching { results: 64, linger: Duration::from_millis(50) };

/// The same while a lane has no place for its next delivery: otherwise nothing waits for results.
const SMALL_WHILE_AWAITED: Batching = Batching { results: 16, linger: Duration::from_millis(10) };

/// A claim outlives its attempt by this much, so further tries cannot succeed.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
const BACKOFF: Duration = Duration::from_millis(200);

/// When a batch of results is recorded.
struct Batching {
    /// At once when it has so many.
    results: usize,
    /// In any case after this.
    linger: Duration,
}

/// A delivery whose result is not recorded yet.
#[derive(Debug)]
pub(super) struct InFlight {
    pub part: MessagePart,
    /// Its place among the deliveries that the lane has under way.
    pub place: OwnedSemaphorePermit,
    /// Keeps the lane's channel open until the delivery has ended.
    pub open: TaskTrackerToken,
    /// It is needed until the result is recorded.
    pub claimant: Option<Arc<Claimant>>,
}

/// A handle that accepts results to be recorded.
#[derive(Debug, Clone)]
pub(super) struct Recorder {
    finished: mpsc::Sender<(AttemptResult, InFlight)>,
    awaited: Arc<Awaited>,
}

/// Whether lanes wait for the results to be recorded.
#[derive(Debug, Default)]
struct Awaited {
    lanes: AtomicUsize,
    begun: Notify,
}

/// A lane that waits, until this is dropped.
#[derive(Debug)]
pub(super) struct WaitingLane(Arc<Awaited>);

impl Drop for WaitingLane {
    fn drop(&mut self) {
        self.0.lanes.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Recorder {
    /// Hands over a result. Its delivery ends after the commit.
    pub(super) async fn record(&self, result: AttemptResult, delivery: InFlight) {
        if self.finished.send((result, delivery)).await.is_err() {
            // The claim expires and the delivery is sent again.
            tracing::error!("a result could not be recorded: the recorder has ended");
        }
    }

    /// Has results recorded sooner while a lane waits for one of its places.
    pub(super) fn await_places(&self) -> WaitingLane {
        self.awaited.lanes.fetch_add(1, Ordering::Relaxed);
        self.awaited.begun.notify_one();
        WaitingLane(Arc::clone(&self.awaited))
    }
}

/// The task behind a [`Recorder`].
#[derive(Debug)]
pub(super) struct RecordTask {
    connection: DedicatedConnection,
    traffic: Traffic,
    finished: mpsc::Receiver<(AttemptResult, InFlight)>,
    awaited: Arc<Awaited>,
}

/// Returns a recorder and the task that must run for it.
pub(super) fn new(db: Database, traffic: Traffic) -> (Recorder, RecordTask) {
    let (sender, finished) = mpsc::channel(CAPACITY);
    let (connection, awaited) = (DedicatedConnection::new(db), Arc::<Awaited>::default());
    let recorder = Recorder { finished: sender, awaited: Arc::clone(&awaited) };
    (recorder, RecordTask { connection, traffic, finished, awaited })
}

impl RecordTask {
    /// Records until every handle is dropped and all results are processed.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.finished.recv_many(&mut batch, BATCH).await > 0 {
            self.linger(&mut batch).await;
            metrics::histogram!("grapnel_record_batch_results").record(batch.len() as f64);
            let (results, deliveries): (Vec<AttemptResult>, Vec<InFlight>) = batch.drain(..).unzip();
            match self.record(&results).await {
                Some(recorded) => {
                    count(&self.traffic, &recorded);
                    let refused = results.len() - recorded.len();
                    if refused > 0 {
                        tracing::warn!(
                            refused,
                            "results arrived after their claims had expired and were refused"
                        );
                        metrics::counter!("grapnel_results_refused_total").increment(refused as u64);
                    }
                    end(deliveries, PartEnd::Done).await;
                }
                None => end(deliveries, PartEnd::GivenBack).await,
            }
        }
    }

    /// Waits for a small batch to become larger.
    async fn linger(&mut self, batch: &mut Vec<(AttemptResult, InFlight)>) {
        let began = Instant::now();
        loop {
            let is_awaited = self.awaited.lanes.load(Ordering::Relaxed) > 0;
            let Batching { results, linger } = if is_awaited { SMALL_WHILE_AWAITED } else { SMALL };
            if batch.len() >= results {
                return;
            }
            let room = BATCH - batch.len();
            tokio::select! {
                received = self.finished.recv_many(batch, room) => {
                    if received == 0 {
                        return;
                    }
                }
                () = self.awaited.begun.notified() => {}
                () = sleep_until(began + linger) => return,
            }
        }
    }

    async fn record(&mut self, results: &[AttemptResult]) -> Option<Vec<RecordedAttempt>> {
        let give_up_at = Instant::now() + GIVE_UP_AFTER;
        loop {
            match deliveries::record(&mut self.connection, results).await {
                Ok(recorded) => return Some(recorded),
                Err(error) if error.is_data_error() && results.len() > 1 => {
                    return self.record_singly(results).await;
                }
                Err(error) => {
                    tracing::error!(error = %chain(&error), count = results.len(), "results cannot be recorded");
                    metrics::counter!("grapnel_record_failures_total").increment(1);
                    if Instant::now() >= give_up_at || error.is_data_error() {
                        return None;
                    }
                    sleep(BACKOFF).await;
                }
            }
        }
    }

    /// Records each result alone: one that PostgreSQL rejects must not hold back the others of its batch.
    async fn record_singly(&mut self, results: &[AttemptResult]) -> Option<Vec<RecordedAttempt>> {
        let mut recorded = Vec::with_capacity(results.len());
        for result in results {
            match deliveries::record(&mut self.connection, std::slice::from_ref(result)).await {
                Ok(one) => recorded.extend(one),
                Err(error) => tracing::error!(
                    error = %chain(&error), event.id = %result.event_id, "a result cannot be recorded"
                ),
            }
        }
        Some(recorded)
    }
}

/// Counts what was recorded.
fn count(traffic: &Traffic, recorded: &[RecordedAttempt]) {
    let mut counting = traffic.count();
    for attempt in recorded {
        let end = match attempt.state {
            DeliveryState::Succeeded => AttemptEnd::Delivered,
            DeliveryState::Failed => AttemptEnd::Failed,
            DeliveryState::Retrying if attempt.duration_ms.is_some() => AttemptEnd::Retrying,
            // What was not sent is tried again, and is no attempt.
            DeliveryState::Retrying | DeliveryState::Pending | DeliveryState::Processing => continue,
        };
        counting.ended(attempt.integration_id, &attempt.destination, end, attempt.duration_ms);
    }
}

/// Ends deliveries; their lanes' channels stay open until then.
async fn end(deliveries: Vec<InFlight>, end: PartEnd) {
    let mut held = Vec::with_capacity(deliveries.len());
    let parts: Vec<MessagePart> = deliveries
        .into_iter()
        .map(|InFlight { part, place, open, claimant }| {
            held.push((place, open, claimant));
            part
        })
        .collect();
    message::end(parts, end).await;
}
