//! Group commit: events that arrive while one batch commits form the next batch.
//!
//! An idle system waits for nothing, and a busy one shares the disk's flush. A sender is answered only after the commit. The
//! queue before it is bounded: when it is full, the sender is asked to retry.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use grapnel_store::Database;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::body::BodyShare;
use grapnel_core::error_chain::chain;
use grapnel_core::hint::{Hint, QueueKey};
use grapnel_platform::queue::publish::Publisher;
use grapnel_store::DedicatedConnection;
use grapnel_store::deliveries::Birth;
use grapnel_store::events::{self, IngestOutcome, NewEvent};

/// Events that may wait for a commit; at the target rate, less than a second of them.
const CAPACITY: usize = 8_192;

/// Events in one statement. Larger batches save nothing and delay the answers.
const BATCH: usize = 256;

/// Bytes of bodies in one statement: a few large bodies are a batch of their own.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// An event that has waited this long is refused, so that every sender is answered while PostgreSQL is unavailable:
/// otherwise each batch would wait for its own failure, behind all batches before it.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// An event that was not committed. The sender should send it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum CommitError {
    #[error("too many events wait to be committed")]
    Overloaded,
    #[error("the event could not be committed")]
    Failed,
}

#[derive(Debug)]
struct PendingEvent {
    event: NewEvent,
    since: Instant,
    /// The memory of the body is charged until the commit.
    _share: BodyShare,
    reply: oneshot::Sender<Result<IngestOutcome, CommitError>>,
}

/// A handle that commits events.
#[derive(Debug, Clone)]
pub(crate) struct Committer(mpsc::Sender<PendingEvent>);

impl Committer {
    /// Returns after the event is committed or found to be a duplicate. `share` is the body's share of the memory budget.
    pub(crate) async fn commit(
        &self,
        event: NewEvent,
        share: BodyShare,
    ) -> Result<IngestOutcome, CommitError> {
        let (reply, answer) = oneshot::channel();
        let pending = PendingEvent { event, since: Instant::now(), _share: share, reply };
        let outcome = match self.0.try_send(pending) {
            Ok(()) => answer.await.unwrap_or(Err(CommitError::Failed)),
            Err(_) => Err(CommitError::Overloaded),
        };
        if outcome == Err(CommitError::Overloaded) {
            metrics::counter!("grapnel_ingest_overloaded_total").increment(1);
        }
        outcome
    }
}

/// The task behind a [`Committer`].
#[derive(Debug)]
pub(crate) struct CommitTask {
    connection: DedicatedConnection,
    pending: mpsc::Receiver<PendingEvent>,
    publisher: Publisher,
}

/// Returns a committer and the task that must run for it.
pub(crate) fn new(db: Database, publisher: Publisher) -> (Committer, CommitTask) {
    let (sender, pending) = mpsc::channel(CAPACITY);
    (Committer(sender), CommitTask { connection: DedicatedConnection::new(db), pending, publisher })
}

impl CommitTask {
    /// Commits until the token is cancelled and no event is waiting.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut received = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased; // waiting events are committed before a stop takes effect
                count = self.pending.recv_many(&mut received, BATCH) => if count == 0 { return },
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

    async fn commit(&mut self, batch: Vec<PendingEvent>) {
        let (mut events, mut replies) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for pending in batch {
            replies.push((pending.event.id, pending.reply, pending._share));
            events.push(pending.event);
        }
        metrics::histogram!("grapnel_ingest_batch_events").record(events.len() as f64);
        // While RabbitMQ is unavailable the deliveries are stored as due, and the dispatcher queues them later. Those of a paused
        // integration, and of a queue that should get nothing now, are held from the start.
        let queued = self.publisher.is_connected();
        let held = self.held_queues(&events);
        let birth = |event: &NewEvent, destination: &Arc<str>| {
            let is_held = || held.contains(&(event.integration_id, Arc::clone(destination)));
            match (event.is_paused || !held.is_empty() && is_held(), queued) {
                (true, _) => Birth::Held,
                (false, true) => Birth::Queued,
                (false, false) => Birth::Due,
            }
        };
        let stored = self.store(&mut events, birth).await;
        // The store sorts the events, so the outcomes are found by id.
        let mut outcomes: HashMap<_, _> = events.iter().map(|event| event.id).zip(stored).collect();
        for (id, reply, _share) in replies {
            let outcome = outcomes.get(&id).copied().unwrap_or(Err(CommitError::Failed));
            // A sender that disconnected does not undo the commit.
            let _gone = reply.send(outcome);
        }
        if !queued {
            return;
        }
        let fresh = events
            .into_iter()
            .filter(|event| matches!(outcomes.remove(&event.id), Some(Ok(IngestOutcome::New))));
        self.publisher.offer(fresh.flat_map(|event| {
            let mut names: Vec<Arc<str>> = event.destinations.to_vec();
            names.retain(|name| birth(&event, name) == Birth::Queued);
            names.into_iter().map(move |destination| Hint {
                integration_id: event.integration_id,
                destination,
                event_id: event.id,
            })
        }));
    }

    /// Returns the queues of the events that deliveries are held for. Asked once, so that what is stored is what is published.
    fn held_queues(&self, events: &[NewEvent]) -> HashSet<QueueKey> {
        if !self.publisher.is_any_held() {
            return HashSet::new();
        }
        let queues = events.iter().flat_map(|event| {
            event.destinations.iter().map(|destination| (event.integration_id, Arc::clone(destination)))
        });
        queues.filter(|queue| self.publisher.is_held(queue)).collect()
    }

    async fn store(
        &mut self,
        events: &mut [NewEvent],
        birth: impl Fn(&NewEvent, &Arc<str>) -> Birth + Copy,
    ) -> Vec<Result<IngestOutcome, CommitError>> {
        match events::store(&mut self.connection, events, birth).await {
            Ok(stored) => stored.into_iter().map(Ok).collect(),
            // One event that PostgreSQL rejects must not fail the others of its batch.
            Err(error) if events.len() > 1 && error.is_data_error() => {
                let mut stored = Vec::with_capacity(events.len());
                for event in events {
                    let alone = events::store(&mut self.connection, std::slice::from_mut(event), birth).await;
                    stored.push(alone.map(|outcomes| outcomes[0]).map_err(|error| commit_failed(&error)));
                }
                stored
            }
            Err(error) => {
                let failure = commit_failed(&error);
                events.iter().map(|_| Err(failure)).collect()
            }
        }
    }
}

/// Refuses the events that have waited too long.
fn refuse_late(received: &mut Vec<PendingEvent>) {
    // They are in the order of arrival.
    let late = received.iter().take_while(|pending| pending.since.elapsed() > MAX_WAIT).count();
    if late > 0 {
        tracing::warn!(count = late, "events waited too long to be committed and were refused");
        metrics::counter!("grapnel_ingest_late_refusals_total").increment(late as u64);
    }
    for pending in received.drain(..late) {
        // A sender that disconnected needs no answer.
        let _gone = pending.reply.send(Err(CommitError::Overloaded));
    }
}

/// Logs and counts a failed commit.
fn commit_failed(error: &grapnel_store::Error) -> CommitError {
    tracing::error!(error = %chain(error), "a batch of events was not committed");
    metrics::counter!("grapnel_ingest_commit_failures_total").increment(1);
    CommitError::Failed
}

/// Returns how many of the events fit into one statement; at least one.
fn batch_length(pending: &[PendingEvent]) -> usize {
    let mut bytes = 0;
    let fits = pending.iter().take_while(|pending| {
        bytes += pending.event.raw_body.len();
        bytes <= BATCH_BYTES
    });
    fits.count().max(1)
}
