//! Publishes hints with confirms: a confirmed hint is in a queue, and every other hint is handed back.
//!
//! Hints are offered without waiting. Hints of new events and hints that the dispatcher found due are queued separately, so that
//! neither holds up the other. Only an acknowledgement without a returned message counts.
//!
//! A queue's trouble is its own: a refused, returned or unconfirmed message and a failed declaration concern the hints of that queue
//! (`destination_queue`), and the channel goes on. It ends when RabbitMQ closes it, when the connection breaks, or when nothing is
//! confirmed on it at all. Failed hints are sent to `unpublished`, for the dispatcher to put back into PostgreSQL; if that is full
//! too, the hint is dropped, and the requeue pass finds its delivery.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use grapnel_core::error_chain::chain;
use grapnel_core::hint::{Hint, QueueKey};
use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use lapin::types::ShortString;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

mod confirms;
mod destination_queue;
mod destination_queues;
mod holds;
mod intake;
mod tracker;

use self::confirms::{SettledBatch, publish_batches};
use self::destination_queues::DestinationQueues;
use self::holds::QueueHolds;
use self::intake::HintIntake;
use self::tracker::HintTracker;
pub use self::tracker::{PublishFailure, UnpublishedHint};
use super::{DEADLINE, QueueConnection, QueueError, close, declare, within_deadline};

/// Hints of new events that may wait for the broker; further ones are not accepted, and become due in PostgreSQL.
const NEW_CAPACITY: usize = 16_384;

/// Hints of the dispatcher that may wait for the broker. Few, because a hint that waits here for long looks lost to the
/// dispatchers of other processes.
const DUE_CAPACITY: usize = 2_048;

/// Hints that are handed to the connection together.
const BATCH: usize = 128;

/// Hints of all queues that are taken from the intake and not settled yet.
const MAX_UNSETTLED: usize = 16_384;

/// Queues that are declared at the same time.
const MAX_DECLARATIONS: usize = 16;

/// A queue that failed is tried again on a channel that is not older: a channel goes on to refuse messages for a queue whose limit was
/// lifted, and keeps those of a queue that has lost its majority.
const MAX_AGE_FOR_RETRY: Duration = Duration::from_secs(10);

/// Failed hints that may wait for the dispatcher.
const UNPUBLISHED_CAPACITY: usize = 65_536;

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// A handle that accepts hints to be published.
#[derive(Debug, Clone)]
pub struct Publisher {
    new: mpsc::Sender<Hint>,
    due: mpsc::Sender<Hint>,
    tracker: HintTracker,
    holds: QueueHolds,
    connected: Arc<AtomicBool>,
}

impl Publisher {
    /// Returns whether there is a working channel. While there is none, deliveries are better left due.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Accepts hints of new events. Hints for which there is no room are handed back like failed ones.
    pub fn offer(&self, hints: impl IntoIterator<Item = Hint>) {
        self.tracker.begin(&self.new, hints);
    }

    /// Returns how many more hints of the dispatcher are accepted.
    pub fn room(&self) -> usize {
        self.due.capacity()
    }

    /// Accepts hints of the dispatcher, as [`Publisher::offer`] does.
    pub fn offer_due(&self, hints: impl IntoIterator<Item = Hint>) {
        self.tracker.begin(&self.due, hints);
    }

    /// Returns whether there may be a queue for which [`Publisher::is_held`]. Costs next to nothing.
    pub fn is_any_held(&self) -> bool {
        self.holds.is_any()
    }

    /// Returns whether deliveries to the queue should be held in PostgreSQL for now: it fails, or is long enough.
    pub fn is_held(&self, queue: &QueueKey) -> bool {
        self.holds.is_held(queue)
    }

    /// Returns how many deliveries to a queue that were held may be offered together: none while it backs off, and few after that.
    pub fn allowance(&self, queue: &QueueKey) -> usize {
        self.holds.allowance(queue)
    }

    /// Returns how many hints of a queue were accepted and are neither confirmed nor handed back.
    pub fn in_flight(&self, queue: &QueueKey) -> usize {
        self.tracker.in_flight(queue)
    }
}

/// The task behind a [`Publisher`].
#[derive(Debug)]
pub struct PublishTask {
    connection: QueueConnection,
    intake: HintIntake,
    queues: DestinationQueues,
    connected: Arc<AtomicBool>,
}

/// Returns a publisher, the task that must run for it, and the receiver of failed hints. A queue of half the maximum length counts as
/// long enough; the other half is for those who ask for its length first.
pub fn new(
    connection: QueueConnection,
    queue_prefix: String,
    max_queue_length: usize,
) -> (Publisher, PublishTask, mpsc::Receiver<UnpublishedHint>) {
    let (new, new_waiting) = mpsc::channel(NEW_CAPACITY);
    let (due, due_waiting) = mpsc::channel(DUE_CAPACITY);
    let (unpublished, failed) = mpsc::channel(UNPUBLISHED_CAPACITY);
    let tracker = HintTracker::new(unpublished);
    let connected = Arc::new(AtomicBool::new(false));
    let holds = QueueHolds::default();
    let publisher = Publisher {
        new,
        due,
        tracker: tracker.clone(),
        holds: holds.clone(),
        connected: Arc::clone(&connected),
    };
    let intake = HintIntake::new(new_waiting, due_waiting);
    let queues = DestinationQueues::new(queue_prefix, max_queue_length, tracker, holds);
    (publisher, PublishTask { connection, intake, queues, connected }, failed)
}

impl PublishTask {
    /// Publishes until the token is cancelled and all hints that were offered before are done.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            match open(&self.connection).await {
                Ok(channel) => {
                    backoff = FIRST_BACKOFF;
                    self.connected.store(true, Ordering::Relaxed);
                    let ended = self.publish(channel, &stop).await;
                    self.connected.store(false, Ordering::Relaxed);
                    match ended {
                        Ok(()) => break,
                        Err(error) => {
                            tracing::warn!(error = %chain(&error), "publishing stopped, reconnecting");
                            if matches!(error, QueueError::TimedOut) {
                                // It may answer nothing any more, not even that it closes.
                                self.connection.forget().await;
                            }
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), retry_in_ms = backoff.as_millis() as u64, "RabbitMQ cannot be reached");
                    metrics::counter!("grapnel_queue_connect_failures_total").increment(1);
                }
            }
            // Waiting hints would wait for the whole outage: their deliveries become due again instead.
            self.hand_back_waiting();
            if stop.run_until_cancelled(tokio::time::sleep(backoff)).await.is_none() {
                break;
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
        self.intake.close();
        self.hand_back_waiting();
        self.connection.close().await;
    }

    fn hand_back_waiting(&mut self) {
        while let Some(hint) = self.intake.try_recv() {
            self.queues.tracker.failed(hint, PublishFailure::Disconnected);
        }
    }

    /// Publishes until the channel breaks (an error) or the stop is complete.
    async fn publish(&mut self, mut channel: Channel, stop: &CancellationToken) -> Result<(), QueueError> {
        let Self { connection, intake, queues, .. } = self;
        let ended = CancellationToken::new();
        let mut unconfirmed = FuturesUnordered::new();
        let (mut to_declare, mut declarations) = (VecDeque::new(), FuturesUnordered::new());
        let mut hints = Vec::with_capacity(BATCH);
        let mut is_stopping = false;
        let mut late: Option<QueueKey> = None;
        // The one before stays open until what was published on it is settled.
        let (mut opened_at, mut previous) = (Instant::now(), None);
        let result = loop {
            if is_stopping && unconfirmed.is_empty() && declarations.is_empty() {
                break Ok(());
            }
            tokio::select! {
                biased; // what waits is published before a stop takes effect
                Some(settled) = unconfirmed.next() => {
                    let settled: SettledBatch = settled;
                    let before = late.take();
                    if settled.is_late() {
                        late = Some(settled.batch.queue.clone());
                    }
                    if let Err(error) = queues.settle(settled, Instant::now()) {
                        break Err(error);
                    }
                    if late.is_some() && before.is_some() && late != before {
                        // Two queues, and no answer between: the channel is stuck. RabbitMQ reads nothing more while it keeps too
                        // much for a queue that has lost its majority. All others go on at once on another connection.
                        break Err(QueueError::TimedOut);
                    }
                }
                Some((queue, declared)) = declarations.next() => {
                    queues.declared(&queue, declared, Instant::now());
                }
                any = intake.recv_many(&mut hints, BATCH), if !is_stopping && queues.unsettled() < MAX_UNSETTLED => {
                    is_stopping = !any;
                    queues.admit(hints.drain(..), Instant::now());
                }
                () = stop.cancelled(), if !is_stopping => is_stopping = true,
            }
            to_declare.extend(queues.take_undeclared());
            while declarations.len() < MAX_DECLARATIONS
                && let Some((queue, name)) = to_declare.pop_front()
            {
                declarations.push(declare_one(connection, queue, name));
            }
            let batches = queues.take_ready();
            if batches.is_empty() {
                continue;
            }
            if batches.iter().any(|batch| batch.is_retry) && opened_at.elapsed() >= MAX_AGE_FOR_RETRY {
                match open(connection).await {
                    Ok(opened) => drop(previous.replace(std::mem::replace(&mut channel, opened))),
                    Err(error) => {
                        queues.hand_back(batches);
                        break Err(error);
                    }
                }
                opened_at = Instant::now();
            }
            match publish_batches(&channel, batches, &ended).await {
                Ok(published) => unconfirmed.extend(published),
                Err((batches, error)) => {
                    queues.hand_back(batches);
                    break Err(error);
                }
            }
        };
        ended.cancel();
        while let Some(settled) = unconfirmed.next().await {
            // The channel has ended for a reason that is known already.
            let _other = queues.settle(settled, Instant::now());
        }
        queues.channel_ended();
        result
    }
}

/// Opens a channel with confirms.
async fn open(connection: &QueueConnection) -> Result<Channel, QueueError> {
    let channel = connection.channel().await?;
    within_deadline(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(channel)
}

/// Declares a queue on a channel of its own, since a failed declaration closes its channel. Returns the number of its messages.
async fn declare_one(
    connection: &QueueConnection,
    queue: QueueKey,
    name: ShortString,
) -> (QueueKey, Result<u32, QueueError>) {
    let declared = async {
        let channel = connection.channel().await?;
        let messages = declare(&channel, name.as_str()).await?;
        close(channel).await;
        Ok(messages)
    };
    let declared = timeout(DEADLINE, declared).await.unwrap_or(Err(QueueError::TimedOut));
    (queue, declared)
}
