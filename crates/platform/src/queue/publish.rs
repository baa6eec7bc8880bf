//! Publishes hints with confirms: a confirmed hint is in a queue, and every other hint is handed back.
//!
//! Hints that are offered together share messages, as many as every live worker can read; nothing waits for more. They are offered
//! without waiting. Hints of new events and hints that the dispatcher found due are queued separately, so that
//! neither holds up the other. Only an acknowledgement without a returned message counts.
//!
//! A queue's trouble is its own: a refused, returned or unconfirmed message and a failed declaration concern the hints of that queue
//! (`destination_queue`), and the channel goes on. It ends when RabbitMQ closes it, when the connection breaks, or when nothing is
//! confirmed on it at all. Failed hints are sent to `unpublished`, for the dispatcher to put back into PostgreSQL; if that is full
//! too, the hint is dropped, and the requeue pass finds its delivery.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use grapnel_core::error_chain::chain;
use grapnel_core::hint::{self, Hint, HintMessage, QueueKey};
use lapin::types::ShortString;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

mod confirms;
mod current_channel;
mod destination_queue;
mod destination_queues;
mod holds;
mod intake;
mod message_size;
mod tracker;

use self::confirms::{MessageBatch, SettledBatch, publish_batches, try_batch};
use self::current_channel::{CurrentChannel, LateQueue};
use self::destination_queues::DestinationQueues;
use self::holds::QueueHolds;
use self::intake::HintIntake;
use self::tracker::HintTracker;
pub use self::tracker::{PublishFailure, UnpublishedMessage};
use super::{DEADLINE, QueueConnection, QueueError, close, declare};

/// Messages of new events that may wait for the broker; further ones are not accepted, and become due in PostgreSQL.
const NEW_CAPACITY: usize = 16_384;

/// Messages of the dispatcher that may wait for the broker. Few, because a hint that waits here for long looks lost to the
/// dispatchers of other processes.
const DUE_CAPACITY: usize = 2_048;

/// Messages that are handed to the connection together.
const BATCH: usize = 128;

/// Messages of all queues that are taken from the intake and not settled yet.
const MAX_UNSETTLED: usize = 16_384;

/// Queues that are declared at the same time.
const MAX_DECLARATIONS: usize = 16;

/// Queues that have failed and are tried at the same time.
const MAX_TRIALS: usize = 16;

/// Failed messages that may wait for the dispatcher.
const UNPUBLISHED_CAPACITY: usize = 65_536;

/// How often a blocked connection is looked at, which does not say when it ends.
const BLOCKED_POLL: Duration = Duration::from_millis(250);

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// A handle that accepts hints to be published.
#[derive(Debug, Clone)]
pub struct Publisher {
    new: mpsc::Sender<HintMessage>,
    due: mpsc::Sender<HintMessage>,
    /// Whether every live worker reads messages with several hints.
    may_share: Arc<AtomicBool>,
    tracker: HintTracker,
    holds: QueueHolds,
    connected: Arc<AtomicBool>,
    blocked: watch::Receiver<Option<Arc<str>>>,
}

impl Publisher {
    /// Returns whether there is a working channel. While there is none, deliveries are better left due.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Returns why RabbitMQ takes no messages although it is connected, if it does not.
    pub fn blocked(&self) -> Option<Arc<str>> {
        self.blocked.borrow().clone()
    }

    fn group(&self, hints: impl IntoIterator<Item = Hint>) -> Vec<HintMessage> {
        let may_share = self.may_share.load(Ordering::Relaxed);
        hint::group(hints, if may_share { hint::MAX_IDS } else { NonZeroUsize::MIN })
    }

    /// Accepts hints of new events. Hints for which there is no room are handed back like failed ones.
    pub fn offer(&self, hints: impl IntoIterator<Item = Hint>) {
        self.tracker.begin(&self.new, self.group(hints));
    }

    /// Returns how many more messages of the dispatcher are accepted.
    pub fn room(&self) -> usize {
        self.due.capacity()
    }

    /// Accepts hints of the dispatcher, as [`Publisher::offer`] does.
    pub fn offer_due(&self, hints: impl IntoIterator<Item = Hint>) {
        self.tracker.begin(&self.due, self.group(hints));
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

    /// Returns how many deliveries so many messages of a queue are expected to have, by those that were published lately.
    pub fn deliveries_in(&self, queue: &QueueKey, messages: usize) -> usize {
        self.holds.deliveries_in(queue, messages)
    }

    /// Returns how many messages of a queue were accepted and are neither confirmed nor handed back.
    pub fn in_flight(&self, queue: &QueueKey) -> usize {
        self.tracker.in_flight(queue)
    }
}

/// The task behind a [`Publisher`].
#[derive(Debug)]
pub struct PublishTask {
    connection: QueueConnection,
    intake: HintIntake,
    /// The queues whose length somebody asks for.
    asked: mpsc::Receiver<QueueKey>,
    queues: DestinationQueues,
    connected: Arc<AtomicBool>,
    blocked: watch::Sender<Option<Arc<str>>>,
}

/// Returns a publisher, the task that must run for it, and the receiver of failed messages. A queue with half of `max_queue_length`
/// deliveries counts as long enough; the other half is for those who ask for its length first. `may_share` says at any time whether
/// every live worker reads messages with several hints. Nothing is published to learn a length.
pub fn new(
    connection: QueueConnection,
    queue_prefix: String,
    max_queue_length: usize,
    may_share: Arc<AtomicBool>,
) -> (Publisher, PublishTask, mpsc::Receiver<UnpublishedMessage>) {
    let (new, new_waiting) = mpsc::channel(NEW_CAPACITY);
    let (due, due_waiting) = mpsc::channel(DUE_CAPACITY);
    let (unpublished, failed) = mpsc::channel(UNPUBLISHED_CAPACITY);
    let tracker = HintTracker::new(unpublished);
    let connected = Arc::new(AtomicBool::new(false));
    let (holds, asked) = QueueHolds::new();
    let (blocked, why_blocked) = watch::channel(None);
    let publisher = Publisher {
        new,
        due,
        may_share,
        tracker: tracker.clone(),
        holds: holds.clone(),
        connected: Arc::clone(&connected),
        blocked: why_blocked,
    };
    let intake = HintIntake::new(new_waiting, due_waiting);
    let queues = DestinationQueues::new(queue_prefix, max_queue_length, tracker, holds);
    (publisher, PublishTask { connection, intake, asked, queues, connected, blocked }, failed)
}

impl PublishTask {
    /// Publishes until the token is cancelled and all hints that were offered before are done.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = FIRST_BACKOFF;
        metrics::gauge!("grapnel_rabbitmq_blocked").set(0);
        loop {
            match CurrentChannel::open(&self.connection).await {
                Ok(channel) => {
                    backoff = FIRST_BACKOFF;
                    self.connected.store(true, Ordering::Relaxed);
                    let ended = self.publish(channel, &stop).await;
                    self.connected.store(false, Ordering::Relaxed);
                    match ended {
                        Ok(()) => break,
                        Err(QueueError::Blocked(reason)) => {
                            self.wait_until_unblocked(reason, &stop).await;
                            if stop.is_cancelled() {
                                // It could not even be closed.
                                self.connection.forget().await;
                                break;
                            }
                            continue;
                        }
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

    /// Waits until RabbitMQ takes messages again, the connection ends, or the token is cancelled. It is kept: a new one would not be
    /// told about it before it has published.
    async fn wait_until_unblocked(&mut self, reason: Arc<str>, stop: &CancellationToken) {
        tracing::warn!(%reason, "RabbitMQ takes no messages; deliveries wait in PostgreSQL");
        metrics::gauge!("grapnel_rabbitmq_blocked").set(1);
        self.blocked.send_replace(Some(reason));
        while self.connection.is_blocked().await {
            self.hand_back_waiting();
            if stop.run_until_cancelled(tokio::time::sleep(BLOCKED_POLL)).await.is_none() {
                break;
            }
        }
        self.blocked.send_replace(None);
        metrics::gauge!("grapnel_rabbitmq_blocked").set(0);
        tracing::info!("RabbitMQ takes messages again, or the connection has ended");
    }

    fn hand_back_waiting(&mut self) {
        while let Some(message) = self.intake.try_recv() {
            self.queues.tracker.failed(message, PublishFailure::Disconnected);
        }
    }

    /// Publishes until the channel breaks (an error) or the stop is complete.
    async fn publish(
        &mut self,
        mut channel: CurrentChannel,
        stop: &CancellationToken,
    ) -> Result<(), QueueError> {
        let Self { connection, intake, asked, queues, .. } = self;
        let ended = CancellationToken::new();
        let mut unconfirmed = FuturesUnordered::new();
        let (mut to_declare, mut declarations) = (VecDeque::new(), FuturesUnordered::new());
        let (mut to_try, mut trials) = (VecDeque::new(), FuturesUnordered::new());
        let mut messages = Vec::with_capacity(BATCH);
        let mut is_stopping = false;
        let mut late = LateQueue::default();
        let result = loop {
            if is_stopping && unconfirmed.is_empty() && declarations.is_empty() && trials.is_empty() {
                break Ok(());
            }
            tokio::select! {
                biased; // what waits is published before a stop takes effect
                Ok(reason) = channel.why_blocked() => break Err(QueueError::Blocked(reason)),
                Some(settled) = unconfirmed.next() => {
                    let mut settled: SettledBatch = settled;
                    let is_stuck = late.note(&mut settled);
                    if let Err(error) = queues.settle(settled, Instant::now()) {
                        break Err(error);
                    }
                    if is_stuck {
                        break Err(QueueError::TimedOut);
                    }
                }
                Some(tried) = trials.next() => {
                    channel.note_trial(&tried);
                    if let Err(error) = queues.settle(tried, Instant::now()) {
                        break Err(error);
                    }
                }
                Some((queue, declared)) = declarations.next() => {
                    queues.declared(&queue, declared, Instant::now());
                }
                Some(queue) = asked.recv(), if !is_stopping => queues.ask_for_length(queue, Instant::now()),
                any = intake.recv_many(&mut messages, BATCH), if !is_stopping && queues.unsettled() < MAX_UNSETTLED => {
                    is_stopping = !any;
                    queues.admit(messages.drain(..), Instant::now());
                }
                () = stop.cancelled(), if !is_stopping => is_stopping = true,
            }
            to_declare.extend(queues.take_undeclared());
            while declarations.len() < MAX_DECLARATIONS
                && let Some((queue, name)) = to_declare.pop_front()
            {
                declarations.push(declare_one(connection, queue, name));
            }
            let (retries, batches): (Vec<MessageBatch>, Vec<MessageBatch>) =
                queues.take_ready().into_iter().partition(|batch| batch.is_retry);
            to_try.extend(retries);
            while trials.len() < MAX_TRIALS
                && let Some(batch) = to_try.pop_front()
            {
                trials.push(try_batch(connection, batch, &ended));
            }
            if batches.is_empty() {
                continue;
            }
            if let Err(error) = channel.renew_if_due(connection).await {
                queues.hand_back(batches);
                break Err(error);
            }
            match publish_batches(channel.get(), batches, &ended).await {
                Ok(published) => unconfirmed.extend(published),
                Err((batches, error)) => {
                    queues.hand_back(batches);
                    break Err(error);
                }
            }
        };
        ended.cancel();
        queues.hand_back(to_try.into());
        while let Some(settled) = unconfirmed.next().await {
            // The channel has ended for a reason that is known already.
            let _other = queues.settle(settled, Instant::now());
        }
        while let Some(tried) = trials.next().await {
            let _other = queues.settle(tried, Instant::now());
        }
        queues.channel_ended();
        result
    }
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
