//! Publishes hints with confirms: what RabbitMQ confirmed is in a queue, and all else is handed back.
//!
//! Hints go in without waiting; a window of them is unconfirmed at any time. Only an acknowledgement without a returned
//! message counts. What failed comes out of `unpublished`, for the dispatcher to put back into PostgreSQL; if even that
//! has no room, the hint is forgotten, and the requeue bound finds its delivery.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use grapnel_crds::names;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};

use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{DEADLINE, Link, QueueError, declare, within_deadline};
use crate::hint::{self, Hint};

/// Hints that may wait for the broker; more are not taken, and stay due in PostgreSQL.
const WAITING: usize = 16_384;

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
    hints: mpsc::Sender<Hint>,
    unpublished: mpsc::Sender<Hint>,
    connected: Arc<AtomicBool>,
}

impl Publisher {
    /// Whether the broker took what was published last. While it does not, deliveries are better left due.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// How many hints can be offered now.
    pub fn room(&self) -> usize {
        self.hints.capacity()
    }

    /// Takes hints for publishing. Those that there is no room for are handed back like those that failed.
    pub fn offer(&self, hints: impl IntoIterator<Item = Hint>) {
        for hint in hints {
            if let Err(error) = self.hints.try_send(hint) {
                fail(&self.unpublished, error.into_inner());
            }
        }
    }
}

/// The task's side of a [`Publisher`].
#[derive(Debug)]
pub struct PublishTask {
    link: Link,
    queue_prefix: String,
    hints: mpsc::Receiver<Hint>,
    unpublished: mpsc::Sender<Hint>,
    connected: Arc<AtomicBool>,
}

/// A publisher, the task that has to run for it, and where failed hints come out.
pub fn publisher(link: Link, queue_prefix: String) -> (Publisher, PublishTask, mpsc::Receiver<Hint>) {
    let (hints, receiver) = mpsc::channel(WAITING);
    let (unpublished, failed) = mpsc::channel(UNPUBLISHED);
    let connected = Arc::new(AtomicBool::new(false));
    let publisher = Publisher { hints, unpublished: unpublished.clone(), connected: Arc::clone(&connected) };
    (publisher, PublishTask { link, queue_prefix, hints: receiver, unpublished, connected }, failed)
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
                            tracing::warn!(error = %crate::telemetry::chain(&error), "publishing stopped, reconnecting")
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %crate::telemetry::chain(&error), retry_in_ms = backoff.as_millis() as u64, "RabbitMQ cannot be reached");
                    metrics::counter!("grapnel_queue_connect_failures_total").increment(1);
                }
            }
            // What waits now would wait for the whole outage: it goes back to being due.
            while let Ok(hint) = self.hints.try_recv() {
                fail(&self.unpublished, hint);
            }
            if stop.run_until_cancelled(tokio::time::sleep(backoff)).await.is_none() {
                break;
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
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
                    biased; // hints that are there go out before a stop is obeyed
                    count = self.hints.recv_many(&mut hints, BATCH) => if count == 0 { return Ok(()) },
                    () = stop.cancelled() => return Ok(()),
                }
                let published = match queues.publish(channel, &hints).await {
                    Ok(confirms) => hints.drain(..).zip(confirms).collect(),
                    Err(error) => {
                        hints.drain(..).for_each(|hint| fail(&self.unpublished, hint));
                        return Err(error);
                    }
                };
                if confirms.send(published).await.is_err() {
                    return Err(QueueError::TimedOut);
                }
            }
        };
        let (published, confirmed) = tokio::join!(published, confirm(to_confirm, &self.unpublished));
        published.and(confirmed)
    }
}

/// Awaits the confirms in the order of publishing; every hint is confirmed or handed back.
async fn confirm(
    mut to_confirm: mpsc::Receiver<Published>,
    unpublished: &mpsc::Sender<Hint>,
) -> Result<(), QueueError> {
    let mut result = Ok(());
    while let Some(batch) = to_confirm.recv().await {
        let deadline = Instant::now() + DEADLINE;
        for (hint, confirm) in batch {
            if result.is_ok() {
                result = match timeout_at(deadline, confirm).await {
                    Ok(Ok(Confirmation::Ack(None))) => continue,
                    // Returned: the queue is gone. A new channel declares it again.
                    Ok(Ok(_)) => Err(QueueError::Returned),
                    Ok(Err(error)) => Err(error.into()),
                    Err(_) => Err(QueueError::TimedOut),
                };
                to_confirm.close();
            }
            fail(unpublished, hint);
        }
    }
    result
}

fn fail(unpublished: &mpsc::Sender<Hint>, hint: Hint) {
    metrics::counter!("grapnel_queue_publish_failures_total").increment(1);
    if unpublished.try_send(hint).is_err() {
        metrics::counter!("grapnel_queue_hints_forgotten_total").increment(1);
    }
}

/// The queues that were declared on one channel.
struct Queues<'a> {
    prefix: &'a str,
    names: HashMap<(Uuid, Arc<str>), ShortString>,
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
