//! Publishes hints with confirms: what RabbitMQ confirmed is in a queue, and all else is handed back.
//!
//! Hints go in without waiting; a window of them is unconfirmed at any time. Those of new events and those that the
//! dispatcher found due wait apart, and neither holds up the other. Only an acknowledgement without a returned message
//! counts. What failed comes out of `unpublished`, for the dispatcher to put back into PostgreSQL; if even that has no
//! room, the hint is forgotten, and the requeue bound finds its delivery.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use grapnel_crds::names;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};

use grapnel_core::ids::IntegrationId;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{DEADLINE, Link, QueueError, declare, within_deadline};
use grapnel_core::hint::{self, Hint};

/// Hints of new events that may wait for the broker; more are not taken, and become due in PostgreSQL.
const WAITING: usize = 16_384;

/// Hints of the dispatcher that may wait for the broker. Few, since what waits here for long looks lost to the
/// dispatchers of other processes.
const DUE_WAITING: usize = 2_048;

/// Published and not yet confirmed.
const WINDOW: usize = 1_024;

/// Messages that are handed to the connection at once.
const BATCH: usize = 128;

/// AMQP's delivery mode of a message that survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// Failed hints that may wait for the dispatcher.
const UNPUBLISHED: usize = 65_536;

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// What was published together, with the confirms that are awaited.
type Published = Vec<(Hint, PublisherConfirm)>;

/// The way into the publisher.
#[derive(Debug, Clone)]
pub struct Publisher {
    new: mpsc::Sender<Hint>,
    due: mpsc::Sender<Hint>,
    ends: Ends,
    connected: Arc<AtomicBool>,
}

impl Publisher {
    /// Whether the broker took what was published last. While it does not, deliveries are better left due.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Takes hints of new events. Those that there is no room for are handed back like those that failed.
    pub fn offer(&self, hints: impl IntoIterator<Item = Hint>) {
        self.ends.begin(&self.new, hints);
    }

    /// How many hints of the dispatcher there is room for.
    pub fn room(&self) -> usize {
        self.due.capacity()
    }

    /// Takes hints of the dispatcher, as [`Publisher::offer`] does.
    pub fn offer_due(&self, hints: impl IntoIterator<Item = Hint>) {
        self.ends.begin(&self.due, hints);
    }

    /// How many hints were taken and are neither confirmed nor handed back.
    pub fn on_their_way(&self) -> usize {
        self.ends.on_their_way.load(Ordering::Relaxed)
    }
}

/// How hints end: confirmed or handed back, and each once.
#[derive(Debug, Clone)]
struct Ends {
    unpublished: mpsc::Sender<Hint>,
    on_their_way: Arc<AtomicUsize>,
}

impl Ends {
    fn begin(&self, waiting: &mpsc::Sender<Hint>, hints: impl IntoIterator<Item = Hint>) {
        for hint in hints {
            self.on_their_way.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = waiting.try_send(hint) {
                self.failed(error.into_inner());
            }
        }
    }

    fn confirmed(&self) {
        self.on_their_way.fetch_sub(1, Ordering::Relaxed);
    }

    fn failed(&self, hint: Hint) {
        self.on_their_way.fetch_sub(1, Ordering::Relaxed);
        metrics::counter!("grapnel_queue_publish_failures_total").increment(1);
        if self.unpublished.try_send(hint).is_err() {
            metrics::counter!("grapnel_queue_hints_forgotten_total").increment(1);
        }
    }
}

/// The task's side of a [`Publisher`].
#[derive(Debug)]
pub struct PublishTask {
    link: Link,
    queue_prefix: String,
    waiting: Waiting,
    ends: Ends,
    connected: Arc<AtomicBool>,
}

/// What waits to be published.
#[derive(Debug)]
struct Waiting {
    new: mpsc::Receiver<Hint>,
    due: mpsc::Receiver<Hint>,
    /// Whose turn it is.
    is_due_next: bool,
}

impl Waiting {
    /// Waits for hints and takes as many as are there and fit into a batch. False when nobody can offer any more.
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

    /// In turns, as far as both have some.
    fn try_recv(&mut self) -> Option<Hint> {
        self.is_due_next = !self.is_due_next;
        let (first, second) =
            if self.is_due_next { (&mut self.due, &mut self.new) } else { (&mut self.new, &mut self.due) };
        first.try_recv().or_else(|_| second.try_recv()).ok()
    }

    /// Hands back everything that waits.
    fn give_up(&mut self, ends: &Ends) {
        while let Some(hint) = self.try_recv() {
            ends.failed(hint);
        }
    }

    /// Refuses what is offered from here on.
    fn close(&mut self) {
        self.new.close();
        self.due.close();
    }
}

/// A publisher, the task that has to run for it, and where failed hints come out.
pub fn publisher(link: Link, queue_prefix: String) -> (Publisher, PublishTask, mpsc::Receiver<Hint>) {
    let (new, new_waiting) = mpsc::channel(WAITING);
    let (due, due_waiting) = mpsc::channel(DUE_WAITING);
    let (unpublished, failed) = mpsc::channel(UNPUBLISHED);
    let ends = Ends { unpublished, on_their_way: Arc::default() };
    let connected = Arc::new(AtomicBool::new(false));
    let publisher = Publisher { new, due, ends: ends.clone(), connected: Arc::clone(&connected) };
    let waiting = Waiting { new: new_waiting, due: due_waiting, is_due_next: false };
    (publisher, PublishTask { link, queue_prefix, waiting, ends, connected }, failed)
}

impl PublishTask {
    /// Publishes until the token is cancelled and everything that was offered before is done.
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
                            tracing::warn!(error = %grapnel_core::error_chain::chain(&error), "publishing stopped, reconnecting")
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %grapnel_core::error_chain::chain(&error), retry_in_ms = backoff.as_millis() as u64, "RabbitMQ cannot be reached");
                    metrics::counter!("grapnel_queue_connect_failures_total").increment(1);
                }
            }
            // What waits now would wait for the whole outage: it goes back to being due.
            self.waiting.give_up(&self.ends);
            if stop.run_until_cancelled(tokio::time::sleep(backoff)).await.is_none() {
                break;
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
        self.waiting.close();
        self.waiting.give_up(&self.ends);
        self.link.close().await;
    }

    async fn open(&self) -> Result<Channel, QueueError> {
        let channel = self.link.channel().await?;
        within_deadline(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }

    /// Publishes on one channel until it breaks (an error) or the stop is complete.
    async fn publish(&mut self, channel: &Channel, stop: &CancellationToken) -> Result<(), QueueError> {
        let (confirms, to_confirm) = mpsc::channel(WINDOW / BATCH);
        let published = async {
            // Moved in, so that it is dropped and the other side ends when publishing does.
            let confirms: mpsc::Sender<Published> = confirms;
            let mut queues = Queues { prefix: &self.queue_prefix, names: HashMap::new() };
            let mut hints = Vec::with_capacity(BATCH);
            loop {
                tokio::select! {
                    biased; // a broken channel publishes nothing, and hints that are there go out before a stop is obeyed
                    () = confirms.closed() => return Ok(()), // and the other side says why
                    any = self.waiting.recv_many(&mut hints) => if !any { return Ok(()) },
                    () = stop.cancelled() => return Ok(()),
                }
                let published = match queues.publish(channel, &hints).await {
                    Ok(confirms) => hints.drain(..).zip(confirms).collect(),
                    Err(error) => {
                        hints.drain(..).for_each(|hint| self.ends.failed(hint));
                        return Err(error);
                    }
                };
                if let Err(unsent) = confirms.send(published).await {
                    unsent.0.into_iter().for_each(|(hint, _)| self.ends.failed(hint));
                    return Ok(());
                }
            }
        };
        let (published, confirmed) = tokio::join!(published, confirm(to_confirm, &self.ends));
        confirmed.and(published)
    }
}

/// Awaits the confirms in the order of publishing; every hint is confirmed or handed back.
async fn confirm(mut to_confirm: mpsc::Receiver<Published>, ends: &Ends) -> Result<(), QueueError> {
    let mut result = Ok(());
    while let Some(batch) = to_confirm.recv().await {
        let deadline = Instant::now() + DEADLINE;
        for (hint, confirm) in batch {
            if result.is_ok() {
                result = match timeout_at(deadline, confirm).await {
                    Ok(Ok(Confirmation::Ack(None))) => {
                        ends.confirmed();
                        continue;
                    }
                    // Returned: the queue is gone. A new channel declares it again.
                    Ok(Ok(_)) => Err(QueueError::Returned),
                    Ok(Err(error)) => Err(error.into()),
                    Err(_) => Err(QueueError::TimedOut),
                };
                to_confirm.close();
            }
            ends.failed(hint);
        }
    }
    result
}

/// The queues that were declared on one channel.
struct Queues<'a> {
    prefix: &'a str,
    names: HashMap<(IntegrationId, Arc<str>), ShortString>,
}

impl Queues<'_> {
    /// Writes a message for each hint. All are handed to the connection before any is waited for: a wait for each
    /// would be a change of threads for each.
    async fn publish(
        &mut self,
        channel: &Channel,
        hints: &[Hint],
    ) -> Result<Vec<PublisherConfirm>, QueueError> {
        let mut messages = Vec::with_capacity(hints.len());
        for hint in hints {
            messages.push((self.declared(channel, hint).await?, hint::encode(hint.event_id)));
        }
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let published = messages.iter().map(|(queue, message)| {
            channel.basic_publish(ShortString::default(), queue.clone(), options, message, properties.clone())
        });
        within_deadline(futures::future::try_join_all(published)).await
    }

    async fn declared(&mut self, channel: &Channel, hint: &Hint) -> Result<ShortString, QueueError> {
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
