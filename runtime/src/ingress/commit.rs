//! Group commit: events that arrive while one batch commits form the next batch. Those of one request are always in one.
//!
//! An idle system waits for nothing, and a busy one shares the disk's flush: there, requests that are being verified are waited for. A sender is
//! answered only after the commit. The queue before it is bounded: when it is full, the sender is asked to retry.
//!
//! When enough wait as a batch is committed, the next one begins before the senders of this one are answered: PostgreSQL stores it on one
//! processor while the answers are written on another.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures::poll;
use grapnel_core::ids::EventId;
use grapnel_platform::queue::publish::Publisher;
use grapnel_store::Database;
use grapnel_store::events::NewEvent;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::batch::{BatchWriter, StoredBatch};
use super::body::BodyShare;
use super::one_or_more::OneOrMore;
use super::readable_form::ReadableForm;
use crate::traffic::Traffic;

mod batch;

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

/// Requests that the next batch has at least if it begins before the senders of the last one are answered. When fewer wait, it gathers
/// what those send next.
const AT_ONCE: usize = 16;

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
    share: BodyShare,
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
        let pending = PendingRequest { events, since: Instant::now(), share, reply };
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
    pending: mpsc::Receiver<PendingRequest>,
    writer: BatchWriter,
    publisher: Publisher,
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
    let writer = BatchWriter::new(db, publisher.clone(), form);
    (Committer(sender), CommitTask { pending, writer, publisher, traffic })
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
            self.commit(&mut received).await;
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
            self.take_waiting(received);
            if received.len() == before {
                return;
            }
        }
    }

    fn take_waiting(&mut self, received: &mut Vec<PendingRequest>) {
        while received.len() < BATCH
            && let Ok(pending) = self.pending.try_recv()
        {
            received.push(pending);
        }
    }

    /// Commits what was received, and goes on as long as enough wait.
    async fn commit(&mut self, received: &mut Vec<PendingRequest>) {
        let mut stored: Option<StoredBatch> = None;
        loop {
            if self.pending.len() >= AT_ONCE {
                self.take_waiting(received);
            }
            refuse_late(received);
            if received.is_empty() {
                break;
            }
            let mut storing = pin!(self.writer.store(take_batch(received)));
            // The first poll sends the statement.
            let begun = poll!(storing.as_mut());
            if let Some(stored) = stored.take() {
                stored.finish(&self.publisher, &self.traffic);
            }
            stored = Some(match begun {
                Poll::Ready(stored) => stored,
                Poll::Pending => storing.await,
            });
        }
        if let Some(stored) = stored {
            stored.finish(&self.publisher, &self.traffic);
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

/// Takes as many of the requests as fit into one statement; at least one.
fn take_batch(received: &mut Vec<PendingRequest>) -> Vec<PendingRequest> {
    let rest = received.split_off(batch_length(received));
    std::mem::replace(received, rest)
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
