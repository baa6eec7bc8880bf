//! Records results in group commits and acknowledges their messages after the commit.
//!
//! A result is retried until PostgreSQL accepts it or its claim must have expired; then its message is returned to the
//! queue, and the delivery is sent again under a new claim.

use std::time::Duration;

use grapnel_store::Database;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::task::task_tracker::TaskTrackerToken;

use grapnel_core::error_chain::chain;
use grapnel_platform::queue::QueueError;
use grapnel_platform::queue::consume::{self, Ack};
use grapnel_store::DedicatedConnection;
use grapnel_store::deliveries::{self, AttemptResult, RecordedAttempt};

/// Results that may wait to be recorded; if there is no room, the attempt waits with its result.
const CAPACITY: usize = 4_096;

/// Results in one statement.
const BATCH: usize = 256;

/// Fewer results than this wait for more: nothing waits for them, and their commit would compete for the disk with those
/// of the ingress, whose senders do wait.
const SMALL_BATCH: usize = 16;
const LINGER: Duration = Duration::from_millis(10);

/// A claim outlives its attempt by this much, so further tries cannot succeed.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
const BACKOFF: Duration = Duration::from_millis(200);

/// A message whose result is not recorded yet.
#[derive(Debug)]
pub(super) struct InFlight {
    pub ack: Ack,
    /// Keeps the lane's channel open until the message is acknowledged.
    pub open: TaskTrackerToken,
}

/// A handle that accepts results to be recorded.
#[derive(Debug, Clone)]
pub(super) struct Recorder(mpsc::Sender<(AttemptResult, InFlight)>);

impl Recorder {
    /// Hands over a result. Its message is acknowledged after the commit.
    pub(super) async fn record(&self, result: AttemptResult, message: InFlight) {
        if self.0.send((result, message)).await.is_err() {
            // The claim expires and the delivery is sent again.
            tracing::error!("a result could not be recorded: the recorder has ended");
        }
    }
}

/// The task behind a [`Recorder`].
#[derive(Debug)]
pub(super) struct RecordTask {
    connection: DedicatedConnection,
    finished: mpsc::Receiver<(AttemptResult, InFlight)>,
}

/// Returns a recorder and the task that must run for it.
pub(super) fn new(db: Database) -> (Recorder, RecordTask) {
    let (sender, finished) = mpsc::channel(CAPACITY);
    let connection = DedicatedConnection::new(db);
    (Recorder(sender), RecordTask { connection, finished })
}

impl RecordTask {
    /// Records until every handle is dropped and all results are processed.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.finished.recv_many(&mut batch, BATCH).await > 0 {
            if batch.len() < SMALL_BATCH {
                sleep(LINGER).await;
                while batch.len() < BATCH
                    && let Ok(finished) = self.finished.try_recv()
                {
                    batch.push(finished);
                }
            }
            metrics::histogram!("grapnel_record_batch_results").record(batch.len() as f64);
            let (results, messages): (Vec<AttemptResult>, Vec<InFlight>) = batch.drain(..).unzip();
            match self.record(&results).await {
                Some(recorded) => {
                    let refused = results.len() - recorded.len();
                    if refused > 0 {
                        tracing::warn!(
                            refused,
                            "results arrived after their claims had expired and were refused"
                        );
                        metrics::counter!("grapnel_results_refused_total").increment(refused as u64);
                    }
                    settle(consume::acknowledge, messages).await;
                }
                None => settle(consume::give_back, messages).await,
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
                    tokio::time::sleep(BACKOFF).await;
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

/// Settles the messages; their lanes' channels stay open until then.
async fn settle<F>(settle_acks: impl FnOnce(Vec<Ack>) -> F, messages: Vec<InFlight>)
where
    F: Future<Output = Result<(), QueueError>>,
{
    let (acks, _open): (Vec<_>, Vec<_>) =
        messages.into_iter().map(|message| (message.ack, message.open)).unzip();
    if let Err(error) = settle_acks(acks).await {
        tracing::debug!(error = %chain(&error), "messages could not be settled; RabbitMQ delivers them again");
    }
}
