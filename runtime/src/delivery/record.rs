//! Records results in group commits and acknowledges their messages after the commit.
//!
//! A result is tried again until PostgreSQL takes it or its claim must have expired; then its message goes back, and
//! the delivery is sent again under a new claim.

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

/// Results that may wait; an attempt waits with its result when there is no room.
const WAITING: usize = 4_096;

/// Results in one statement.
const BATCH: usize = 256;

/// Fewer results than this wait for more: nobody waits for them, and their commit would compete for the disk with those
/// of the ingress, whose senders do wait.
const FEW: usize = 16;
const LINGER: Duration = Duration::from_millis(10);

/// A claim outlives its attempt by this much, so trying longer cannot succeed.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
const BACKOFF: Duration = Duration::from_millis(200);

/// A result to be recorded, and the message to be acknowledged after that.
#[derive(Debug)]
pub struct Finished {
    pub result: AttemptResult,
    pub ack: Ack,
    /// Keeps the lane's channel open until the message is acknowledged.
    pub open: TaskTrackerToken,
}

/// The way to the recorder.
#[derive(Debug, Clone)]
pub struct Recorder(mpsc::Sender<Finished>);

impl Recorder {
    pub async fn record(&self, finished: Finished) {
        if self.0.send(finished).await.is_err() {
            // The claim expires and the delivery is sent again.
            tracing::error!("a result could not be recorded: the recorder has ended");
        }
    }
}

/// The task's side of a [`Recorder`].
#[derive(Debug)]
pub struct RecordTask {
    connection: DedicatedConnection,
    finished: mpsc::Receiver<Finished>,
}

pub fn recorder(db: Database) -> (Recorder, RecordTask) {
    let (sender, finished) = mpsc::channel(WAITING);
    let connection = DedicatedConnection::new(db);
    (Recorder(sender), RecordTask { connection, finished })
}

impl RecordTask {
    /// Records until every handle is dropped and nothing waits any more.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.finished.recv_many(&mut batch, BATCH).await > 0 {
            if batch.len() < FEW {
                sleep(LINGER).await;
                while batch.len() < BATCH
                    && let Ok(finished) = self.finished.try_recv()
                {
                    batch.push(finished);
                }
            }
            metrics::histogram!("grapnel_record_batch_results").record(batch.len() as f64);
            let (results, acks): (Vec<AttemptResult>, Vec<_>) =
                batch.drain(..).map(|finished| (finished.result, (finished.ack, finished.open))).unzip();
            match self.record(&results).await {
                Some(written) => {
                    let refused = results.len() - written.len();
                    if refused > 0 {
                        tracing::warn!(
                            refused,
                            "results came after their claims had expired and were refused"
                        );
                        metrics::counter!("grapnel_results_refused_total").increment(refused as u64);
                    }
                    finish(consume::acknowledge, acks).await;
                }
                None => finish(consume::give_back, acks).await,
            }
        }
    }

    async fn record(&mut self, results: &[AttemptResult]) -> Option<Vec<RecordedAttempt>> {
        let give_up_at = Instant::now() + GIVE_UP_AFTER;
        loop {
            match deliveries::record(&mut self.connection, results).await {
                Ok(written) => return Some(written),
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

    /// One result that PostgreSQL will not take must not hold back the others of its batch.
    async fn record_singly(&mut self, results: &[AttemptResult]) -> Option<Vec<RecordedAttempt>> {
        let mut written = Vec::with_capacity(results.len());
        for result in results {
            match deliveries::record(&mut self.connection, std::slice::from_ref(result)).await {
                Ok(one) => written.extend(one),
                Err(error) => tracing::error!(
                    error = %chain(&error), event.id = %result.event_id, "a result cannot be recorded"
                ),
            }
        }
        Some(written)
    }
}

/// Settles the messages; their lanes' channels stay open until then.
async fn finish<F>(settle: impl FnOnce(Vec<Ack>) -> F, acks: Vec<(Ack, TaskTrackerToken)>)
where
    F: Future<Output = Result<(), QueueError>>,
{
    let (acks, _open): (Vec<_>, Vec<_>) = acks.into_iter().unzip();
    if let Err(error) = settle(acks).await {
        tracing::debug!(error = %chain(&error), "messages could not be settled, RabbitMQ delivers them again");
    }
}
