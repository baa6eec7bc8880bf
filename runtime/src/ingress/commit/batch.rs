//! One batch: its events are stored in one statement; then their senders are answered, and the hints of their deliveries are offered.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use grapnel_core::error_chain::chain;
use grapnel_core::hint::{Hint, QueueKey};
use grapnel_core::ids::EventId;
use grapnel_platform::queue::publish::Publisher;
use grapnel_store::deliveries::Birth;
use grapnel_store::events::{self, IngestOutcome, NewEvent};
use grapnel_store::{Database, DedicatedConnection};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{CommitError, PendingRequest, Reply, StoredEvent};
use crate::ingress::body::BodyShare;
use crate::ingress::one_or_more::OneOrMore;
use crate::ingress::readable_form::ReadableForm;
use crate::traffic::Traffic;

/// Stores one batch at a time.
#[derive(Debug)]
pub(super) struct BatchWriter {
    connection: DedicatedConnection,
    publisher: Publisher,
    form: ReadableForm,
}

/// A batch that was committed, or could not be, and of which nobody knows yet.
#[derive(Debug)]
pub(super) struct StoredBatch {
    events: Vec<NewEvent>,
    outcomes: HashMap<EventId, Result<IngestOutcome, CommitError>>,
    senders: Vec<WaitingSender>,
    births: Births,
}

/// Who waits for an answer.
#[derive(Debug)]
struct WaitingSender {
    ids: OneOrMore<EventId>,
    reply: oneshot::Sender<Reply>,
    /// The memory of the body is charged until the answer.
    _share: BodyShare,
}

/// What the deliveries of a batch are born as. Decided once, so that what is stored as queued is what is published.
#[derive(Debug)]
struct Births {
    /// The queues that should get nothing now.
    held: HashSet<QueueKey>,
    /// While RabbitMQ is unavailable the deliveries are stored as due, and the dispatcher queues them later.
    is_connected: bool,
}

impl BatchWriter {
    pub(super) fn new(db: Database, publisher: Publisher, form: ReadableForm) -> Self {
        Self { connection: DedicatedConnection::new(db), publisher, form }
    }

    pub(super) async fn store(&mut self, batch: Vec<PendingRequest>) -> StoredBatch {
        let count = batch.iter().map(|pending| pending.events.len()).sum();
        let (mut events, mut senders) = (Vec::with_capacity(count), Vec::with_capacity(batch.len()));
        for PendingRequest { events: of_request, reply, share, .. } in batch {
            let ids = of_request.map(|event| {
                let id = event.id;
                events.push(event);
                id
            });
            senders.push(WaitingSender { ids, reply, _share: share });
        }
        metrics::histogram!("grapnel_ingest_batch_events").record(events.len() as f64);
        let births = Births { held: self.held_queues(&events), is_connected: self.publisher.is_connected() };
        let stored = self.insert(&mut events, |event, position| births.of(event, position)).await;
        // The store sorts the events, so the outcomes are found by id.
        let outcomes = events.iter().map(|event| event.id).zip(stored).collect();
        StoredBatch { events, outcomes, senders, births }
    }

    /// Returns the queues of the events that should get nothing now.
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

    async fn insert(
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

impl StoredBatch {
    /// Answers the senders, and offers the hints of what is new.
    pub(super) fn finish(mut self, publisher: &Publisher, traffic: &Traffic) {
        count_events(traffic, &self.events, &self.outcomes);
        for WaitingSender { ids, reply, _share } in self.senders {
            // A sender that disconnected does not undo the commit.
            let _gone = reply.send(stored_events(ids, &self.outcomes));
        }
        let births = &self.births;
        if !births.is_connected {
            return;
        }
        let fresh = self
            .events
            .into_iter()
            .filter(|event| matches!(self.outcomes.remove(&event.id), Some(Ok(IngestOutcome::New))));
        publisher.offer(fresh.flat_map(|event| {
            let mut names: Vec<Arc<str>> = event.destinations.to_vec();
            let mut positions = 0..;
            names.retain(|_| {
                positions.next().is_some_and(|position| births.of(&event, position) == Birth::Queued)
            });
            names.into_iter().map(move |destination| Hint {
                integration_id: event.integration_id,
                destination,
                event_id: event.id,
            })
        }));
    }
}

impl Births {
    /// Deliveries to a destination that can have nothing now, and those of a queue that should get nothing, are held from the start.
    fn of(&self, event: &NewEvent, position: usize) -> Birth {
        if event.filtered.contains(position) {
            return Birth::Filtered;
        }
        let is_held =
            || self.held.contains(&(event.integration_id, Arc::clone(&event.destinations[position])));
        match (event.held.contains(position) || !self.held.is_empty() && is_held(), self.is_connected) {
            (true, _) => Birth::Held,
            (false, true) => Birth::Queued,
            (false, false) => Birth::Due,
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
