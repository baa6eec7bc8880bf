//! The dispatcher: queues deliveries that are due, that are held and may be sent, or that lost their message.
//!
//! It runs in every api process, and any number of them can run at once: they select under SKIP LOCKED. Each takes care of
//! retries and replays that are due, and of hints that could not be published. What needs a look at every queue is done by one of
//! them, which has the [`DispatcherLease`]: it releases what is held ([`held`]), finds what was lost ([`lost`]), and takes over what
//! dead workers had claimed ([`abandoned`]).
//!
//! Nothing is published for a destination that is paused or no longer configured, whose queue fails or has enough messages: its
//! deliveries are held, in PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use grapnel_store::Database;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::integrations::cache::{IntegrationCache, Integrations};
use grapnel_core::error_chain::chain;
use grapnel_core::hint::{Hint, QueueKey};
use grapnel_core::ids::IntegrationId;
use grapnel_platform::queue::publish::{Publisher, UnpublishedMessage};
use grapnel_platform::queue::{QueueConnection, QueueError};
use grapnel_store::deliveries::{self, DeliveryQueue, RequeuedDelivery, Wait};
use grapnel_store::replays;

mod abandoned;
mod held;
mod lease;
mod lost;

use self::abandoned::Suspects;
pub(crate) use self::lease::DispatcherLease;
use self::lost::LossSchedule;

/// How often the database is asked for due deliveries without a notification.
const TICK: Duration = Duration::from_millis(500);

/// Deliveries queued by one statement.
const BATCH: usize = 1_000;

/// How often the dispatcher checks whether there is room again.
const ROOM_POLL: Duration = Duration::from_millis(5);

/// How long the delivery of a hint waits that was not published for a reason other than its queue.
const UNPUBLISHED_DELAY: Duration = Duration::from_secs(1);

/// The parts of the dispatcher.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub db: Database,
    pub lease: DispatcherLease,
    pub integrations: IntegrationCache,
    pub publisher: Publisher,
    /// Asks queues for their length. Not the publisher's connection, whose channel an error would close.
    pub queues: QueueConnection,
    pub queue_prefix: String,
    /// The deliveries that a queue may have before further ones are held.
    pub max_queue_length: usize,
    pub unpublished: mpsc::Receiver<UnpublishedMessage>,
    /// Notified when a delivery that is due now was committed.
    pub wake: Arc<Notify>,
    pub requeue_after: Duration,
}

/// What this process knows about a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DestinationState {
    Delivering,
    /// Its Integration is paused, it is gone, or it is a Service without ready pods.
    Paused,
    /// It was removed, or is so new that it was not read yet.
    Unknown,
}

impl Dispatcher {
    /// Dispatches until the token is cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut losses = LossSchedule::new(self.requeue_after, Instant::now());
        let mut next_release = Instant::now();
        let mut next_look = Instant::now();
        let mut next_tick = Instant::now();
        let mut failed = Vec::new();
        let mut suspects = Suspects::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                count = self.unpublished.recv_many(&mut failed, BATCH) => {
                    if count > 0 { self.return_unpublished(&mut failed).await; }
                    continue;
                }
                () = self.wake.notified() => {}
                () = sleep_until(next_tick) => {}
            }
            next_tick = Instant::now() + TICK;
            // Before the integrations are loaded, every destination would look unknown.
            if !self.publisher.is_connected() || !self.integrations.is_loaded() {
                continue;
            }
            if let Err(error) = self.queue_due(&stop).await {
                tracing::warn!(error = %chain(&error), "due deliveries cannot be queued");
            }
            if !self.lease.is_held().await {
                continue;
            }
            if Instant::now() >= next_look {
                next_look = Instant::now() + TICK;
                self.take_over_abandoned(&mut suspects, &stop).await;
            }
            if Instant::now() >= next_release {
                next_release = held::next_pass(self.release_held(&stop).await);
            }
            if let Some(bound) = losses.begin_pass(self.db.unanswered(), Instant::now()) {
                self.requeue_lost(bound, &stop).await;
            }
        }
        // Another process finds the last failed hints due at once, and not only after the bound.
        while let Ok(message) = self.unpublished.try_recv() {
            failed.push(message);
        }
        self.return_unpublished(&mut failed).await;
        self.lease.give_up().await;
        self.queues.close().await;
    }

    /// Returns the deliveries of failed hints: those whose queue is the reason are held, the others become due again.
    async fn return_unpublished(&self, failed: &mut Vec<UnpublishedMessage>) {
        let hints = failed.drain(..).flat_map(|UnpublishedMessage { message, failure }| {
            let wait = if failure.is_of_queue() { Wait::Held } else { Wait::For(UNPUBLISHED_DELAY) };
            message.into_hints().map(move |hint| (hint, wait))
        });
        let hints: Vec<(Hint, Wait)> = hints.collect();
        for hints in hints.chunks(BATCH) {
            let hints: Vec<_> = hints.iter().map(|(hint, wait)| (hint, *wait)).collect();
            if let Err(error) = deliveries::give_back(&self.db, &hints).await {
                // Their deliveries stay marked as queued, and the requeue pass finds them.
                tracing::warn!(error = %chain(&error), count = hints.len(), "deliveries of failed hints cannot be returned");
            }
        }
    }

    /// Queues all due deliveries, and holds those whose destination should get nothing now.
    async fn queue_due(&self, stop: &CancellationToken) -> grapnel_store::Result<()> {
        while self.has_room(stop).await {
            let taken = deliveries::take_due(&self.db, BATCH as i64).await?;
            let count = taken.len();
            self.publish_or_hold(taken).await?;
            if count < BATCH {
                break;
            }
        }
        Ok(())
    }

    async fn publish_or_hold(&self, taken: Vec<RequeuedDelivery>) -> grapnel_store::Result<()> {
        let (ready, held): (Vec<_>, Vec<_>) = {
            let integrations = self.integrations.load();
            taken.into_iter().partition(|taken| self.may_publish(&integrations, &taken.hint.queue()))
        };
        self.hold(&held).await?;
        self.publish(ready).await
    }

    fn may_publish(&self, integrations: &Integrations, queue: &QueueKey) -> bool {
        state_of(integrations, queue.0, &queue.1) == DestinationState::Delivering
            && !self.publisher.is_held(queue)
    }

    async fn hold(&self, held: &[RequeuedDelivery]) -> grapnel_store::Result<()> {
        if held.is_empty() {
            return Ok(());
        }
        let hints: Vec<_> = held.iter().map(|held| (&held.hint, Wait::Held)).collect();
        deliveries::give_back(&self.db, &hints).await
    }

    /// Waits until there is room for a batch. Returns false when nothing more should be offered.
    async fn has_room(&self, stop: &CancellationToken) -> bool {
        while self.publisher.is_connected() {
            if self.publisher.room() >= BATCH {
                return !stop.is_cancelled();
            }
            if stop.run_until_cancelled(tokio::time::sleep(ROOM_POLL)).await.is_none() {
                return false;
            }
        }
        false
    }

    async fn publish(&self, taken: Vec<RequeuedDelivery>) -> grapnel_store::Result<()> {
        metrics::counter!("grapnel_dispatched_total").increment(taken.len() as u64);
        let mut replays: Vec<_> = taken.iter().filter_map(|taken| taken.replay_request_id).collect();
        self.publisher.offer_due(taken.into_iter().map(|taken| taken.hint));
        if !replays.is_empty() {
            replays.sort_unstable();
            replays.dedup();
            replays::mark_dispatched(&self.db, &replays).await?;
        }
        Ok(())
    }

    /// Returns the messages of a queue and those that are on their way to it from this process.
    async fn messages(&self, queue: &DeliveryQueue) -> Result<i64, QueueError> {
        let in_flight = self.publisher.in_flight(&key_of(queue)) as i64;
        let name = grapnel_crds::names::queue_name(
            &self.queue_prefix,
            queue.integration_id.uuid(),
            &queue.destination,
        );
        Ok(in_flight + self.queues.ready_messages(&name).await?.map_or(0, i64::from))
    }

    fn state_of(&self, queue: &DeliveryQueue) -> DestinationState {
        state_of(&self.integrations.load(), queue.integration_id, &queue.destination)
    }

    /// Ends the deliveries to a destination that was removed. One that this process has not read yet keeps them.
    async fn end_if_removed(&self, queue: &DeliveryQueue) {
        let ended = deliveries::end_if_removed(&self.db, queue.integration_id, &queue.destination);
        if let Err(error) = ended.await {
            report(queue, "deliveries to a removed destination cannot be ended", &error.into());
        }
    }
}

fn state_of(integrations: &Integrations, id: IntegrationId, destination: &str) -> DestinationState {
    let known = integrations.get(id).and_then(|known| Some((known, known.destination(destination)?)));
    match known {
        Some((integration, destination)) if integration.delivers_to(destination) => {
            DestinationState::Delivering
        }
        Some(_) => DestinationState::Paused,
        None => DestinationState::Unknown,
    }
}

fn key_of(queue: &DeliveryQueue) -> QueueKey {
    (queue.integration_id, queue.destination.as_str().into())
}

fn report(queue: &DeliveryQueue, message: &str, error: &anyhow::Error) {
    tracing::warn!(
        error = %format!("{error:#}"), integration.id = %queue.integration_id, destination = queue.destination, "{message}"
    );
}
