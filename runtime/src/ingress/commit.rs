//! Group commit: events that arrive while one batch commits form the next batch.
//!
//! An idle system waits for nothing, and a busy one shares the disk's flush. An answer is given only after the commit.
//! The queue in front of it is bounded: when it is full, the sender is told to come back.

use std::sync::Arc;
use std::time::Duration;

use grapnel_store::Database;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use grapnel_core::hint::Hint;
use grapnel_platform::queue::publish::Publisher;
use grapnel_store::DedicatedConnection;
use grapnel_store::events::{self, IngestOutcome, NewEvent};

/// Events that may wait for a commit; at the goal rate, less than a second of them.
const WAITING: usize = 8_192;

/// Events in one statement. Larger batches save nothing more and answer later.
const BATCH: usize = 256;

/// Bytes of bodies in one statement: a few large bodies are a batch of their own.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// An event that has waited this long is refused, so that everyone is answered while PostgreSQL is away: otherwise each
/// batch would wait in vain for itself, behind all those before it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The event was not accepted, and sending it again is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotCommitted {
    #[error("too many events wait to be committed")]
    Overloaded,
    #[error("the event could not be committed")]
    Failed,
}

#[derive(Debug)]
struct Waiting {
    event: NewEvent,
    since: Instant,
    /// The body's memory is charged until the commit.
    _share: OwnedSemaphorePermit,
    reply: oneshot::Sender<Result<IngestOutcome, NotCommitted>>,
}

/// The way into the group commit.
#[derive(Debug, Clone)]
pub struct Committer(mpsc::Sender<Waiting>);

impl Committer {
    /// Answers after the event is committed, or was found to be a duplicate.
    pub async fn commit(
        &self,
        event: NewEvent,
        share: OwnedSemaphorePermit,
    ) -> Result<IngestOutcome, NotCommitted> {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { event, since: Instant::now(), _share: share, reply };
        self.0.try_send(waiting).map_err(|_| NotCommitted::Overloaded)?;
        answer.await.unwrap_or(Err(NotCommitted::Failed))
    }
}

/// The task's side of a [`Committer`].
#[derive(Debug)]
pub struct CommitTask {
    connection: DedicatedConnection,
    waiting: mpsc::Receiver<Waiting>,
    publisher: Publisher,
}

pub fn committer(db: Database, publisher: Publisher) -> (Committer, CommitTask) {
    let (sender, waiting) = mpsc::channel(WAITING);
    (Committer(sender), CommitTask { connection: DedicatedConnection::new(db), waiting, publisher })
}

impl CommitTask {
    /// Commits until the token is cancelled and nothing waits any more.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut received = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased; // what waits is committed before a stop is obeyed
                count = self.waiting.recv_many(&mut received, BATCH) => if count == 0 { return },
                () = stop.cancelled() => return,
            }
            loop {
                refuse_late(&mut received);
                if received.is_empty() {
                    break;
                }
                let rest = received.split_off(batch_length(&received));
                let batch = std::mem::replace(&mut received, rest);
                self.commit(batch).await;
            }
        }
    }

    async fn commit(&mut self, batch: Vec<Waiting>) {
        let (mut events, mut replies) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for waiting in batch {
            replies.push((waiting.event.id, waiting.reply, waiting._share));
            events.push(waiting.event);
        }
        metrics::histogram!("grapnel_ingest_batch_events").record(events.len() as f64);
        // While RabbitMQ is away the deliveries are born due, and the dispatcher queues them when it is back.
        let queued = self.publisher.is_connected();
        let stored = self.store(&mut events, queued).await;
        // The store sorts the events, so the answers are found by id.
        let mut answers: std::collections::HashMap<_, _> =
            events.iter().map(|event| event.id).zip(stored).collect();
        for (id, reply, _share) in replies {
            let answer = answers.get(&id).copied().unwrap_or(Err(NotCommitted::Failed));
            // A sender that has gone away does not undo the commit.
            let _gone = reply.send(answer);
        }
        if !queued {
            return;
        }
        let fresh = events
            .into_iter()
            .filter(|event| matches!(answers.remove(&event.id), Some(Ok(IngestOutcome::New))));
        self.publisher.offer(fresh.flat_map(|event| {
            let names: Vec<Arc<str>> = event.destinations.to_vec();
            names.into_iter().map(move |destination| Hint {
                integration_id: event.integration_id,
                destination,
                event_id: event.id,
            })
        }));
    }

    async fn store(
        &mut self,
        events: &mut [NewEvent],
        queued: bool,
    ) -> Vec<Result<IngestOutcome, NotCommitted>> {
        match events::store(&mut self.connection, events, queued).await {
            Ok(stored) => stored.into_iter().map(Ok).collect(),
            // One event that PostgreSQL will not take must not refuse the others of its batch.
            Err(error) if events.len() > 1 && error.is_data_error() => {
                let mut stored = Vec::with_capacity(events.len());
                for event in events {
                    let alone =
                        events::store(&mut self.connection, std::slice::from_mut(event), queued).await;
                    stored.push(alone.map(|answers| answers[0]).map_err(|error| refuse(&error)));
                }
                stored
            }
            Err(error) => {
                let refused = refuse(&error);
                events.iter().map(|_| Err(refused)).collect()
            }
        }
    }
}

fn refuse_late(received: &mut Vec<Waiting>) {
    // They are in the order in which they came.
    let late = received.iter().take_while(|waiting| waiting.since.elapsed() > PATIENCE).count();
    if late > 0 {
        tracing::warn!(count = late, "events waited too long to be committed and were refused");
        metrics::counter!("grapnel_ingest_late_refusals_total").increment(late as u64);
    }
    for waiting in received.drain(..late) {
        // A sender that has gone away needs no answer.
        let _gone = waiting.reply.send(Err(NotCommitted::Overloaded));
    }
}

fn refuse(error: &grapnel_store::Error) -> NotCommitted {
    tracing::error!(error = %grapnel_core::error_chain::chain(error), "a batch of events was not committed");
    metrics::counter!("grapnel_ingest_commit_failures_total").increment(1);
    NotCommitted::Failed
}

/// How many of the events fit into one statement; at least one.
fn batch_length(waiting: &[Waiting]) -> usize {
    let mut bytes = 0;
    let fits = waiting.iter().take_while(|waiting| {
        bytes += waiting.event.raw_body.len();
        bytes <= BATCH_BYTES
    });
    fits.count().max(1)
}
