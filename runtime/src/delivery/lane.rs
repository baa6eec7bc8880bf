//! One destination's lane: consume, claim, attempt.
//!
//! A message takes a permit before its delivery is claimed, and the permit is held until the receiver has answered: no
//! more than the destination's concurrency is in flight, and no lease runs while its delivery waits for a turn.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use grapnel_store::Database;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::attempt::{self, Attempt};
use super::payload_budget::Payloads;
use super::record::{Finished, Recorder};
use super::worker::CONSUMING;
use crate::delivery::send::DeliveryClient;
use grapnel_core::error_chain::chain;
use grapnel_core::hint;
use grapnel_core::ids::{EventId, IntegrationId, LeaseId};
use grapnel_core::integration::Destination;
use grapnel_platform::queue::Link;
use grapnel_platform::queue::consume::{self, Ack, Message, Subscription};
use grapnel_store::audit;
use grapnel_store::deliveries::{self, ClaimedDelivery};

/// Deliveries in one claim.
const BATCH: usize = 128;

/// How much longer than an attempt its lease runs: time to record the result.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// What all lanes share.
#[derive(Debug)]
pub struct LaneContext {
    pub db: Database,
    pub claims: Database,
    pub client: DeliveryClient,
    pub payloads: Payloads,
    pub link: Arc<Link>,
    pub queue_prefix: String,
    pub recorder: Recorder,
    pub drain: Duration,
}

#[derive(Debug)]
pub struct Lane {
    pub context: Arc<LaneContext>,
    pub integration_id: IntegrationId,
    pub destination: Arc<Destination>,
    /// When the lane ceased to consume, in Unix seconds, or `CONSUMING`.
    pub deaf_since: Arc<AtomicI64>,
}

/// A message whose delivery may be claimed.
struct Begun {
    event_id: EventId,
    ack: Ack,
    permit: OwnedSemaphorePermit,
}

impl Lane {
    /// Consumes until the token is cancelled, reconnecting for ever; then lets what is in flight finish.
    pub async fn run(self, stop: CancellationToken) {
        let attempts = TaskTracker::new();
        let permits = Arc::new(Semaphore::new(self.destination.max_concurrency));
        let queue = grapnel_crds::names::queue_name(
            &self.context.queue_prefix,
            self.integration_id,
            &self.destination.name,
        );
        let mut backoff = FIRST_BACKOFF;
        while !stop.is_cancelled() {
            match Subscription::start(&self.context.link, &queue, self.prefetch()).await {
                Ok(subscription) => {
                    backoff = FIRST_BACKOFF;
                    self.deaf_since.store(CONSUMING, Ordering::Relaxed);
                    self.consume(subscription, &permits, &attempts, &stop).await;
                    self.deaf_since.store(Timestamp::now().as_second(), Ordering::Relaxed);
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), queue, "the queue cannot be consumed");
                    let _stopped = stop.run_until_cancelled(tokio::time::sleep(backoff)).await;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
            }
        }
    }

    /// Twice the concurrency: while one share is attempted, the results of another are recorded.
    fn prefetch(&self) -> u16 {
        u16::try_from(self.destination.max_concurrency * 2).unwrap_or(u16::MAX)
    }

    fn lease(&self) -> Duration {
        self.destination.timeout + LEASE_MARGIN
    }

    /// Serves one subscription until it ends or the lane is to stop.
    ///
    /// When the lane is to stop, what was begun finishes first, since its messages can only be acknowledged on this
    /// channel, and what was fetched and not begun goes to another worker meanwhile. When RabbitMQ ended the
    /// subscription there is nothing left to acknowledge on: the next one begins at once, beside what is in flight.
    async fn consume(
        &self,
        mut subscription: Subscription,
        permits: &Arc<Semaphore>,
        attempts: &TaskTracker,
        stop: &CancellationToken,
    ) {
        while let Some(batch) = self.next_batch(&mut subscription, permits, stop).await {
            if let Err(begun) = self.claim_and_attempt(batch, attempts, stop).await {
                give_back(begun.into_iter().map(|begun| begun.ack).collect()).await;
            }
        }
        if stop.is_cancelled() {
            self.drain(&mut subscription, attempts).await;
        }
        if let Err(error) = subscription.close().await {
            tracing::debug!(error = %chain(&error), "channel could not be closed");
        }
    }

    async fn drain(&self, subscription: &mut Subscription, attempts: &TaskTracker) {
        if let Err(error) = subscription.cancel().await {
            tracing::debug!(error = %chain(&error), "consumer could not be cancelled");
        }
        let fetched = std::iter::from_fn(|| subscription.next_ready());
        give_back(fetched.map(|message| message.ack).collect()).await;
        attempts.close();
        if timeout(self.context.drain, attempts.wait()).await.is_err() {
            tracing::warn!(
                destination = &*self.destination.name,
                "attempts were still in flight at the drain's deadline"
            );
        }
    }

    /// Waits for a message and takes what else is there, as far as there are permits. `None` when the subscription has
    /// ended or the lane is to stop.
    async fn next_batch(
        &self,
        subscription: &mut Subscription,
        permits: &Arc<Semaphore>,
        stop: &CancellationToken,
    ) -> Option<Vec<Begun>> {
        let mut batch = Vec::new();
        while batch.is_empty() {
            let permit = stop.run_until_cancelled(Arc::clone(permits).acquire_owned()).await?.ok()?;
            let message = stop.run_until_cancelled(subscription.next()).await??;
            batch.extend(self.begin(message, permit).await);
            while batch.len() < BATCH
                && let Ok(permit) = Arc::clone(permits).try_acquire_owned()
                && let Some(message) = subscription.next_ready()
            {
                batch.extend(self.begin(message, permit).await);
            }
        }
        Some(batch)
    }

    /// A message that is not ours is reported and acknowledged: whatever it meant, the rows decide.
    async fn begin(&self, message: Message, permit: OwnedSemaphorePermit) -> Option<Begun> {
        let Message { body, ack } = message;
        match hint::decode(&body) {
            Some(event_id) => Some(Begun { event_id, ack, permit }),
            None => {
                metrics::counter!("grapnel_queue_poison_messages_total").increment(1);
                let db = &self.context.db;
                let reported =
                    audit::message_rejected(db, self.integration_id, &self.destination.name, body.len());
                if let Err(error) = reported.await {
                    tracing::error!(error = %chain(&error), "a message that is not ours could not be reported");
                }
                acknowledge(vec![ack]).await;
                None
            }
        }
    }

    /// Claims the batch and starts the attempts. Hands the batch back when the lane is to stop before PostgreSQL
    /// answered.
    async fn claim_and_attempt(
        &self,
        batch: Vec<Begun>,
        attempts: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(), Vec<Begun>> {
        let ids: Vec<EventId> = batch.iter().map(|begun| begun.event_id).collect();
        let Some(claimed) = self.claim(&ids, stop).await else {
            return Err(batch);
        };
        let mut claimed: HashMap<EventId, ClaimedDelivery> =
            claimed.into_iter().map(|claimed| (claimed.event_id, claimed)).collect();
        let mut done = Vec::new();
        for Begun { event_id, ack, permit } in batch {
            match claimed.remove(&event_id) {
                Some(claimed) => {
                    let attempt =
                        Attempt { claimed, destination: Arc::clone(&self.destination), ack, permit };
                    let context = Arc::clone(&self.context);
                    // The token lives until the result is recorded and its message acknowledged.
                    let open = attempts.token();
                    attempts.spawn(async move {
                        let (result, ack) = attempt::run(attempt, &context.client, &context.payloads).await;
                        context.recorder.record(Finished { result, ack, open }).await;
                    });
                }
                // Finished, not due, or under another claim: the dispatcher looks after it.
                None => done.push(ack),
            }
        }
        if !done.is_empty() {
            acknowledge(done).await;
        }
        Ok(())
    }

    /// Tries until PostgreSQL answers or the lane is to stop.
    async fn claim(&self, ids: &[EventId], stop: &CancellationToken) -> Option<Vec<ClaimedDelivery>> {
        // One for all tries: what an earlier one claimed without our learning of it is ours.
        let lease_id = LeaseId::generate();
        let mut backoff = FIRST_BACKOFF;
        loop {
            match deliveries::claim(&self.context.claims, &self.destination.name, ids, lease_id, self.lease())
                .await
            {
                Ok(claimed) => return Some(claimed),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "deliveries cannot be claimed");
                    stop.run_until_cancelled(tokio::time::sleep(backoff)).await?;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
            }
        }
    }
}

async fn acknowledge(acks: Vec<Ack>) {
    if let Err(error) = consume::acknowledge(acks).await {
        tracing::debug!(error = %chain(&error), "messages could not be acknowledged");
    }
}

async fn give_back(acks: Vec<Ack>) {
    if let Err(error) = consume::give_back(acks).await {
        tracing::debug!(error = %chain(&error), "messages could not be given back");
    }
}
