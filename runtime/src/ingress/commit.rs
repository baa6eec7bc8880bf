//! Group commit: events that arrive while one batch commits form the next batch. Those of one request are always in one.
//!
//! An idle system waits for nothing, and a busy one shares the disk's flush: there, requests that are being verified are waited for. A sender is
//! answered only after the commit. The queue before it is bounded: when it is full, the sender is asked to retry.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use grapnel_store::Database;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::body::BodyShare;
use super::one_or_more::OneOrMore;
use super::readable_form::ReadableForm;
use crate::traffic::Traffic;
use grapnel_core::error_chain::chain;
use grapnel_core::hint::{Hint, QueueKey};
use grapnel_core::ids::EventId;
use grapnel_platform::queue::publish::Publisher;
use grapnel_store::DedicatedConnection;
use grapnel_store::deliveries::Birth;
use grapnel_store::events::{self, IngestOutcome, NewEvent};

/// Requests that may wait for a commit; at the target rate, less than a second of them.
const CAPACITY: usize = 8_192;

/// Requests that one statement stores. Larger batches save nothing and delay the answers.
const BATCH: usize = 256;

/// Deliveries in one statement: a request with many events is a batch of its own.
const BATCH_DELIVERIES: usize = 4_096;

/// Bytes of bodies in one statement: a few large bodies are a batch of their own.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// As many requests at once are a sign of load: others are being read and verified at this moment.
const BUSY: usize = 4;

/// How often others have their turn before a batch is committed, at most.
const TURNS: usize = 16;

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

/// An event of a request that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredEvent {
    /// Of a duplicate, that of the first one.
    pub id: EventId,
    pub duplicate: bool,
}

type Reply = Result<OneOrMore<StoredEvent>, CommitError>;

#[derive(Debug)]
struct PendingRequest {
    events: OneOrMore<NewEvent>,
    since: Instant,
    /// The memory of the body is charged until the commit.
    _share: BodyShare,
    reply: oneshot::Sender<Reply>,
}

/// A handle that commits events.
#[derive(Debug, Clone)]
pub(crate) struct Committer(mpsc::Sender<PendingRequest>);

impl Committer {
    /// Returns after the events of a request are committed or found to be duplicates. `share` is the body's share of the memory
    /// budget.
    pub(crate) async fn commit(&self, events: OneOrMore<NewEvent>, share: BodyShare) -> Reply {
        let (reply, answer) = oneshot::channel();
        let pending = PendingRequest { events, since: Instant::now(), _share: share, reply };
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
    pending: mpsc::Receiver<PendingRequest>,
    publisher: Publisher,
    form: ReadableForm,
    traffic: Traffic,
}

/// Returns a committer and the task that must run for it.
pub(crate) fn new(
    db: Database,
    publisher: Publisher,
    form: ReadableForm,
    traffic: Traffic,
) -> (Committer, CommitTask) {
    let (sender, pending) = mpsc::channel(CAPACITY);
    let connection = DedicatedConnection::new(db);
    (Committer(sender), CommitTask { connection, pending, publisher, form, traffic })
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
            self.gather(&mut received).await;
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

    /// Lets a batch become larger under load, as long as others bring more when they have their turn: a statement and its commit cost
    /// as much as eight events. Nothing waits for time to pass.
    async fn gather(&mut self, received: &mut Vec<PendingRequest>) {
        for _ in 0..TURNS {
            let before = received.len();
            if !(BUSY..BATCH).contains(&before) {
                return;
            }
            tokio::task::yield_now().await;
            while received.len() < BATCH
                && let Ok(pending) = self.pending.try_recv()
            {
                received.push(pending);
            }
            if received.len() == before {
                return;
            }
        }
    }

    async fn commit(&mut self, batch: Vec<PendingRequest>) {
        let count = batch.iter().map(|pending| pending.events.len()).sum();
        let (mut events, mut replies) = (Vec::with_capacity(count), Vec::with_capacity(batch.len()));
        for pending in batch {
            let ids = pending.events.map(|event| {
                let id = event.id;
                events.push(event);
                id
            });
            replies.push((ids, pending.reply, pending._share));
        }
        metrics::histogram!("grapnel_ingest_batch_events").record(events.len() as f64);
        // While RabbitMQ is unavailable the deliveries are stored as due, and the dispatcher queues them later. Those to a
        // destination that can have nothing now, and those of a queue that should get nothing, are held from the start.
        let queued = self.publisher.is_connected();
        let held = self.held_queues(&events);
        let birth = |event: &NewEvent, position: usize| {
            if event.filtered.contains(position) {
                return Birth::Filtered;
            }
            let is_held =
                || held.contains(&(event.integration_id, Arc::clone(&event.destinations[position])));
            match (event.held.contains(position) || !held.is_empty() && is_held(), queued) {
                (true, _) => Birth::Held,
                (false, true) => Birth::Queued,
                (false, false) => Birth::Due,
            }
        };
        let stored = self.store(&mut events, birth).await;
        // The store sorts the events, so the outcomes are found by id.
        let mut outcomes: HashMap<_, _> = events.iter().map(|event| event.id).zip(stored).collect();
        count_events(&self.traffic, &events, &outcomes);
        for (ids, reply, _share) in replies {
            // A sender that disconnected does not undo the commit.
            let _gone = reply.send(stored_events(ids, &outcomes));
        }
        if !queued {
            return;
        }
        let fresh = events
            .into_iter()
            .filter(|event| matches!(outcomes.remove(&event.id), Some(Ok(IngestOutcome::New))));
        self.publisher.offer(fresh.flat_map(|event| {
            let mut names: Vec<Arc<str>> = event.destinations.to_vec();
            let mut positions = 0..;
            names.retain(|_| {
                positions.next().is_some_and(|position| birth(&event, position) == Birth::Queued)
            });
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
        let mut queues: HashSet<QueueKey> = queues.collect();
        queues.retain(|queue| self.publisher.is_held(queue));
        queues
    }

    async fn store(
        &mut self,
        events: &mut [NewEvent],
        birth: impl Fn(&NewEvent, usize) -> Birth + Copy,
    ) -> Vec<Result<IngestOutcome, CommitError>> {
        let form = self.form.current();
        match events::store(&mut self.connection, events, form, birth).await {
            Ok(stored) => stored.into_iter().map(Ok).collect(),
            // One event that PostgreSQL rejects must not fail the others of its batch, apart from those of its request.
            Err(error) if has_several_requests(events) && error.is_data_error() => {
                events.sort_unstable_by_key(request_of);
                let mut stored = Vec::with_capacity(events.len());
                for request in events.chunk_by_mut(|one, other| request_of(one) == request_of(other)) {
                    match events::store(&mut self.connection, request, form, birth).await {
                        Ok(outcomes) => stored.extend(outcomes.into_iter().map(Ok)),
                        Err(error) => {
                            let failure = commit_failed(&error);
                            stored.extend(request.iter().map(|_| Err(failure)));
                        }
                    }
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

/// Counts what became of events.
fn count_events(
    traffic: &Traffic,
    events: &[NewEvent],
    outcomes: &HashMap<EventId, Result<IngestOutcome, CommitError>>,
) {
    let mut counting = traffic.count();
    for event in events {
        match outcomes.get(&event.id) {
            Some(Ok(IngestOutcome::New)) => {
                counting.accepted(event.integration_id, event.id);
                if event.filtered.is_empty() {
                    continue;
                }
                for (position, destination) in event.destinations.iter().enumerate() {
                    if event.filtered.contains(position) {
                        counting.filtered(event.integration_id, destination, event.id);
                    }
                }
            }
            Some(Ok(IngestOutcome::DuplicateOf(_))) => counting.duplicate(event.integration_id, event.id),
            Some(Ok(IngestOutcome::TryAgain) | Err(_)) | None => {}
        }
    }
}

/// Refuses the events that have waited too long.
fn refuse_late(received: &mut Vec<PendingRequest>) {
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

/// Returns what became of the events of a request. Of one that could not be committed the sender must send all again.
fn stored_events(
    ids: OneOrMore<EventId>,
    outcomes: &HashMap<EventId, Result<IngestOutcome, CommitError>>,
) -> Reply {
    let stored = |id: EventId| match outcomes.get(&id).copied().unwrap_or(Err(CommitError::Failed))? {
        IngestOutcome::New => Ok(StoredEvent { id, duplicate: false }),
        IngestOutcome::DuplicateOf(first) => Ok(StoredEvent { id: first, duplicate: true }),
        IngestOutcome::TryAgain => Err(CommitError::Failed),
    };
    Ok(OneOrMore {
        first: stored(ids.first)?,
        rest: ids.rest.into_iter().map(stored).collect::<Result<_, _>>()?,
    })
}

/// Returns what events of one request have in common, and no other has.
fn request_of(event: &NewEvent) -> Uuid {
    event.shared_request().map_or(event.id.uuid(), |request| request.id.uuid())
}

fn has_several_requests(events: &[NewEvent]) -> bool {
    events.iter().any(|event| request_of(event) != request_of(&events[0]))
}

/// Returns how many of the requests fit into one statement; at least one.
fn batch_length(pending: &[PendingRequest]) -> usize {
    let (mut bytes, mut deliveries) = (0, 0);
    let fits = pending.iter().take_while(|pending| {
        let first = &pending.events.first;
        bytes += first.shared_request().map_or(0, |request| request.raw_body.len());
        bytes += pending.events.iter().map(NewEvent::own_bytes).sum::<usize>();
        deliveries += pending.events.len() * first.destinations.len();
        bytes <= BATCH_BYTES && deliveries <= BATCH_DELIVERIES
    });
    fits.count().max(1)
}
