//! Publishes hints with confirms: a confirmed hint is in a queue, and every other hint is handed back.
//!
//! Hints are offered without waiting; a window of them is unconfirmed at any time. Hints of new events and hints that the
//! dispatcher found due are queued separately, so that neither holds up the other. Only an acknowledgement without a
//! returned message counts. Failed hints are sent to `unpublished`, for the dispatcher to put back into PostgreSQL; if
//! that is full too, the hint is dropped, and the requeue pass finds its delivery.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_core::hint::{self, Hint};
use grapnel_core::ids::IntegrationId;
use grapnel_crds::names;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{DEADLINE, QueueConnection, QueueError, declare, within_deadline};

/// Hints of new events that may wait for the broker; further ones are not accepted, and become due in PostgreSQL.
const NEW_CAPACITY: usize = 16_384;

/// Hints of the dispatcher that may wait for the broker. Few, because a hint that waits here for long looks lost to the
/// dispatchers of other processes.
const DUE_CAPACITY: usize = 2_048;

/// Hints that are published and not yet confirmed.
const WINDOW: usize = 1_024;

/// Messages that are handed to the connection together.
const BATCH: usize = 128;

/// AMQP's delivery mode of a message that survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// Failed hints that may wait for the dispatcher.
const UNPUBLISHED_CAPACITY: usize = 65_536;

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Hints that were published together, with their pending confirms.
type PublishedBatch = Vec<(Hint, PublisherConfirm)>;

/// A handle that accepts hints to be published.
#[derive(Debug, Clone)]
pub struct Publisher {
    new: mpsc::Sender<Hint>,
    due: mpsc::Sender<Hint>,
    tracker: HintTracker,
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

    /// Returns how many hints were accepted and are neither confirmed nor handed back.
    pub fn in_flight(&self) -> usize {
        self.tracker.in_flight.load(Ordering::Relaxed)
    }
}

/// Counts hints in flight. Each ends exactly once: confirmed or handed back.
#[derive(Debug, Clone)]
struct HintTracker {
    unpublished: mpsc::Sender<Hint>,
    in_flight: Arc<AtomicUsize>,
}

impl HintTracker {
    fn begin(&self, waiting: &mpsc::Sender<Hint>, hints: impl IntoIterator<Item = Hint>) {
        for hint in hints {
            self.in_flight.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = waiting.try_send(hint) {
                self.failed(error.into_inner());
            }
        }
    }

    fn confirmed(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    fn failed(&self, hint: Hint) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        metrics::counter!("grapnel_queue_publish_failures_total").increment(1);
        if self.unpublished.try_send(hint).is_err() {
            metrics::counter!("grapnel_queue_hints_forgotten_total").increment(1);
        }
    }
}

/// The task behind a [`Publisher`].
#[derive(Debug)]
pub struct PublishTask {
    connection: QueueConnection,
    queue_prefix: String,
    waiting: HintQueues,
    tracker: HintTracker,
    connected: Arc<AtomicBool>,
}

/// The hints that wait to be published.
#[derive(Debug)]
struct HintQueues {
    new: mpsc::Receiver<Hint>,
    due: mpsc::Receiver<Hint>,
    /// Whether the turn is that of `due`.
    is_due_next: bool,
}

impl HintQueues {
    /// Waits for hints and takes all that have arrived, up to a batch. Returns false when all senders are gone.
    async fn recv_many(&mut self, batch: &mut Vec<Hint>) -> bool {
        let first = tokio::select! {
            Some(hint) = self.new.recv() => hint,
            Some(hint) = self.due.recv() => hint,
            else => return false,
        };
        batch.push(first);
        while batch.len() < BATCH
            && let Some(hint) = self.try_recv()
        {
            batch.push(hint);
        }
        true
    }

    /// Takes from both in turn, as long as both have hints.
    fn try_recv(&mut self) -> Option<Hint> {
        self.is_due_next = !self.is_due_next;
        let (first, second) =
            if self.is_due_next { (&mut self.due, &mut self.new) } else { (&mut self.new, &mut self.due) };
        first.try_recv().or_else(|_| second.try_recv()).ok()
    }

    /// Hands back all waiting hints.
    fn hand_back(&mut self, tracker: &HintTracker) {
        while let Some(hint) = self.try_recv() {
            tracker.failed(hint);
        }
    }

    /// Refuses further hints.
    fn close(&mut self) {
        self.new.close();
        self.due.close();
    }
}

/// Returns a publisher, the task that must run for it, and the receiver of failed hints.
pub fn new(
    connection: QueueConnection,
    queue_prefix: String,
) -> (Publisher, PublishTask, mpsc::Receiver<Hint>) {
    let (new, new_waiting) = mpsc::channel(NEW_CAPACITY);
    let (due, due_waiting) = mpsc::channel(DUE_CAPACITY);
    let (unpublished, failed) = mpsc::channel(UNPUBLISHED_CAPACITY);
    let tracker = HintTracker { unpublished, in_flight: Arc::default() };
    let connected = Arc::new(AtomicBool::new(false));
    let publisher = Publisher { new, due, tracker: tracker.clone(), connected: Arc::clone(&connected) };
    let waiting = HintQueues { new: new_waiting, due: due_waiting, is_due_next: false };
    (publisher, PublishTask { connection, queue_prefix, waiting, tracker, connected }, failed)
}

impl PublishTask {
    /// Publishes until the token is cancelled and all hints that were offered before are done.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            match self.open().await {
                Ok(channel) => {
                    backoff = FIRST_BACKOFF;
                    self.connected.store(true, Ordering::Relaxed);
                    let ended = self.publish(&channel, &stop).await;
                    self.connected.store(false, Ordering::Relaxed);
                    match ended {
                        Ok(()) => break,
                        Err(error) => {
                            tracing::warn!(error = %chain(&error), "publishing stopped, reconnecting")
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), retry_in_ms = backoff.as_millis() as u64, "RabbitMQ cannot be reached");
                    metrics::counter!("grapnel_queue_connect_failures_total").increment(1);
                }
            }
            // Waiting hints would wait for the whole outage: their deliveries become due again instead.
            self.waiting.hand_back(&self.tracker);
            if stop.run_until_cancelled(tokio::time::sleep(backoff)).await.is_none() {
                break;
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
        self.waiting.close();
        self.waiting.hand_back(&self.tracker);
        self.connection.close().await;
    }

    async fn open(&self) -> Result<Channel, QueueError> {
        let channel = self.connection.channel().await?;
        within_deadline(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }

    /// Publishes on one channel until it breaks (an error) or the stop is complete.
    async fn publish(&mut self, channel: &Channel, stop: &CancellationToken) -> Result<(), QueueError> {
        let (confirms, to_confirm) = mpsc::channel(WINDOW / BATCH);
        let published = async {
            // Moved in: it is dropped when publishing ends, which ends the other side.
            let confirms: mpsc::Sender<PublishedBatch> = confirms;
            let mut queues = DeclaredQueues { prefix: &self.queue_prefix, names: HashMap::new() };
            let mut hints = Vec::with_capacity(BATCH);
            loop {
                tokio::select! {
                    biased; // a broken channel publishes nothing, and waiting hints are published before a stop takes effect
                    () = confirms.closed() => return Ok(()), // the other side returns the cause
                    any = self.waiting.recv_many(&mut hints) => if !any { return Ok(()) },
                    () = stop.cancelled() => return Ok(()),
                }
                let published = match queues.publish(channel, &hints).await {
                    Ok(confirms) => hints.drain(..).zip(confirms).collect(),
                    Err(error) => {
                        hints.drain(..).for_each(|hint| self.tracker.failed(hint));
                        return Err(error);
                    }
                };
                if let Err(unsent) = confirms.send(published).await {
                    unsent.0.into_iter().for_each(|(hint, _)| self.tracker.failed(hint));
                    return Ok(());
                }
            }
        };
        let (published, confirmed) = tokio::join!(published, confirm(to_confirm, &self.tracker));
        confirmed.and(published)
    }
}

/// Awaits the confirms in the order of publishing; every hint is confirmed or handed back.
async fn confirm(
    mut to_confirm: mpsc::Receiver<PublishedBatch>,
    tracker: &HintTracker,
) -> Result<(), QueueError> {
    let mut result = Ok(());
    while let Some(batch) = to_confirm.recv().await {
        let deadline = Instant::now() + DEADLINE;
        for (hint, confirm) in batch {
            if result.is_ok() {
                result = match timeout_at(deadline, confirm).await {
                    Ok(Ok(Confirmation::Ack(None))) => {
                        tracker.confirmed();
                        continue;
                    }
                    // Returned: the queue no longer exists. A new channel declares it again.
                    Ok(Ok(_)) => Err(QueueError::Returned),
                    Ok(Err(error)) => Err(error.into()),
                    Err(_) => Err(QueueError::TimedOut),
                };
                to_confirm.close();
            }
            tracker.failed(hint);
        }
    }
    result
}

/// The queues that are declared on one channel.
struct DeclaredQueues<'a> {
    prefix: &'a str,
    names: HashMap<(IntegrationId, Arc<str>), ShortString>,
}

impl DeclaredQueues<'_> {
    /// Publishes a message for each hint. All are handed to the connection before any is awaited: awaiting each one
    /// would switch threads for each.
    async fn publish(
        &mut self,
        channel: &Channel,
        hints: &[Hint],
    ) -> Result<Vec<PublisherConfirm>, QueueError> {
        let mut messages = Vec::with_capacity(hints.len());
        for hint in hints {
            messages.push((self.queue_of(channel, hint).await?, hint::encode(hint.event_id)));
        }
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let published = messages.iter().map(|(queue, message)| {
            channel.basic_publish(ShortString::default(), queue.clone(), options, message, properties.clone())
        });
        within_deadline(futures::future::try_join_all(published)).await
    }

    async fn queue_of(&mut self, channel: &Channel, hint: &Hint) -> Result<ShortString, QueueError> {
        let key = (hint.integration_id, Arc::clone(&hint.destination));
        if let Some(queue) = self.names.get(&key) {
            return Ok(queue.clone());
        }
        let name = names::queue_name(self.prefix, hint.integration_id, &hint.destination);
        declare(channel, &name).await?;
        let name = ShortString::from(name);
        self.names.insert(key, name.clone());
        Ok(name)
    }
}
