//! One destination's lane: consume, claim, attempt.
//!
//! A message takes a permit before its delivery is claimed, and holds it until the receiver has answered: no more
//! deliveries than the destination's concurrency are in flight, and no lease runs while its delivery waits for a permit.

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

use super::attempt;
use super::payload_budget::{LanePayloads, PayloadBudget};
use super::record::{InFlight, Recorder};
use crate::delivery::send::DeliveryClient;
use grapnel_core::error_chain::chain;
use grapnel_core::hint;
use grapnel_core::ids::{EventId, IntegrationId, LeaseId};
use grapnel_core::integration::CompiledDestination;
use grapnel_platform::queue::QueueConnection;
use grapnel_platform::queue::consume::{self, Ack, QueueConsumer, QueueMessage};
use grapnel_store::audit;
use grapnel_store::deliveries::{self, ClaimedDelivery};

/// Deliveries in one claim.
const BATCH: usize = 128;

/// How much longer than its attempt a lease runs: time to record the result.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// How often a claim is tried before its messages go back to the queue, for a worker that may do better.
const CLAIM_TRIES: usize = 5;

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// The parts that all lanes share.
#[derive(Debug)]
pub(super) struct LaneContext {
    pub db: Database,
    pub claims: Database,
    pub client: DeliveryClient,
    pub payloads: PayloadBudget,
    pub queues: Arc<QueueConnection>,
    pub queue_prefix: String,
    pub recorder: Recorder,
    pub drain: Duration,
}

/// The time since which a lane has not been consuming, in Unix seconds.
#[derive(Debug)]
pub(super) struct NotConsumingSince(AtomicI64);

impl NotConsumingSince {
    /// The value of a lane that consumes.
    const CONSUMING: i64 = 0;

    pub(super) fn now() -> Self {
        Self(AtomicI64::new(Timestamp::now().as_second()))
    }

    /// Returns whether the lane has not been consuming for longer than this.
    pub(super) fn exceeds(&self, limit: Duration) -> bool {
        let since = self.0.load(Ordering::Relaxed);
        since != Self::CONSUMING && Timestamp::now().as_second() - since > limit.as_secs().cast_signed()
    }

    fn set_consuming(&self) {
        self.0.store(Self::CONSUMING, Ordering::Relaxed);
    }

    fn set_not_consuming(&self) {
        self.0.store(Timestamp::now().as_second(), Ordering::Relaxed);
    }
}

/// The consumer of one destination's queue.
#[derive(Debug)]
pub(super) struct Lane {
    pub context: Arc<LaneContext>,
    pub integration_id: IntegrationId,
    pub destination: Arc<CompiledDestination>,
    /// One for each delivery in flight; shared with earlier lanes of the destination.
    pub permits: Arc<Semaphore>,
    /// Shared with earlier lanes of the destination too.
    pub payloads: Arc<LanePayloads>,
    pub not_consuming_since: Arc<NotConsumingSince>,
}

/// A message whose delivery may be claimed.
struct StartedMessage {
    event_id: EventId,
    ack: Ack,
    permit: OwnedSemaphorePermit,
}

impl Lane {
    /// Consumes until the token is cancelled, reconnecting without end; then lets the attempts in flight finish.
    pub(super) async fn run(self, stop: CancellationToken) {
        let attempts = TaskTracker::new();
        let queue = grapnel_crds::names::queue_name(
            &self.context.queue_prefix,
            self.integration_id,
            &self.destination.name,
        );
        let mut backoff = FIRST_BACKOFF;
        while !stop.is_cancelled() {
            match QueueConsumer::start(&self.context.queues, &queue, self.prefetch()).await {
                Ok(consumer) => {
                    backoff = FIRST_BACKOFF;
                    self.not_consuming_since.set_consuming();
                    self.consume(consumer, &attempts, &stop).await;
                    self.not_consuming_since.set_not_consuming();
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), queue, "the queue cannot be consumed");
                    let _stopped = stop.run_until_cancelled(tokio::time::sleep(backoff)).await;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
            }
        }
    }

    /// Returns twice the concurrency: while one half is attempted, the results of the other are recorded.
    fn prefetch(&self) -> u16 {
        u16::try_from(self.destination.max_concurrency * 2).unwrap_or(u16::MAX)
    }

    fn lease(&self) -> Duration {
        self.destination.timeout + LEASE_MARGIN
    }

    /// Serves one consumer until it ends or the token is cancelled.
    ///
    /// On a stop, started attempts finish first, since their messages can only be acknowledged on this channel, and
    /// messages that were fetched but not started go to another worker. If RabbitMQ ended the consumer, there is no
    /// channel left to acknowledge on: the next one begins at once, while earlier attempts are still in flight.
    async fn consume(&self, mut consumer: QueueConsumer, attempts: &TaskTracker, stop: &CancellationToken) {
        while let Some(batch) = self.next_batch(&mut consumer, stop).await {
            if let Err(batch) = self.claim_and_attempt(batch, attempts, stop).await {
                give_back(batch.into_iter().map(|message| message.ack).collect()).await;
                // They may come back at once.
                let _stopped = stop.run_until_cancelled(tokio::time::sleep(MAX_BACKOFF)).await;
            }
        }
        if stop.is_cancelled() {
            self.drain(&mut consumer, attempts).await;
        }
        if let Err(error) = consumer.close().await {
            tracing::debug!(error = %chain(&error), "channel could not be closed");
        }
    }

    async fn drain(&self, consumer: &mut QueueConsumer, attempts: &TaskTracker) {
        if let Err(error) = consumer.cancel().await {
            tracing::debug!(error = %chain(&error), "consumer could not be cancelled");
        }
        let fetched = std::iter::from_fn(|| consumer.next_ready());
        give_back(fetched.map(|message| message.ack).collect()).await;
        attempts.close();
        if timeout(self.context.drain, attempts.wait()).await.is_err() {
            tracing::warn!(
                destination = &*self.destination.name,
                "attempts were still in flight at the drain deadline"
            );
        }
    }

    /// Waits for a message and takes the others that have arrived, as far as there are permits. `None` when the
    /// consumer has ended or the token is cancelled.
    async fn next_batch(
        &self,
        consumer: &mut QueueConsumer,
        stop: &CancellationToken,
    ) -> Option<Vec<StartedMessage>> {
        let mut batch = Vec::new();
        while batch.is_empty() {
            let permit = stop.run_until_cancelled(Arc::clone(&self.permits).acquire_owned()).await?.ok()?;
            let message = stop.run_until_cancelled(consumer.next()).await??;
            batch.extend(self.start(message, permit).await);
            while batch.len() < BATCH
                && let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned()
                && let Some(message) = consumer.next_ready()
            {
                batch.extend(self.start(message, permit).await);
            }
        }
        Some(batch)
    }

    /// Decodes a message. A foreign one is reported and acknowledged: the rows decide in any case.
    async fn start(&self, message: QueueMessage, permit: OwnedSemaphorePermit) -> Option<StartedMessage> {
        let QueueMessage { body, ack } = message;
        match hint::decode(&body) {
            Some(event_id) => Some(StartedMessage { event_id, ack, permit }),
            None => {
                metrics::counter!("grapnel_queue_poison_messages_total").increment(1);
                let db = &self.context.db;
                let reported =
                    audit::message_rejected(db, self.integration_id, &self.destination.name, body.len());
                if let Err(error) = reported.await {
                    tracing::error!(error = %chain(&error), "a foreign message could not be reported");
                }
                acknowledge(vec![ack]).await;
                None
            }
        }
    }

    /// Claims the batch and starts the attempts. Returns the batch if PostgreSQL does not answer, or if the token is cancelled before.
    async fn claim_and_attempt(
        &self,
        batch: Vec<StartedMessage>,
        attempts: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(), Vec<StartedMessage>> {
        let ids: Vec<EventId> = batch.iter().map(|message| message.event_id).collect();
        let Some(claimed) = self.claim(&ids, stop).await else {
            return Err(batch);
        };
        let mut claimed: HashMap<EventId, ClaimedDelivery> =
            claimed.into_iter().map(|claimed| (claimed.event_id, claimed)).collect();
        let mut unclaimed = Vec::new();
        for StartedMessage { event_id, ack, permit } in batch {
            match claimed.remove(&event_id) {
                Some(claimed) => {
                    let (context, destination) = (Arc::clone(&self.context), Arc::clone(&self.destination));
                    let (payloads, message) =
                        (Arc::clone(&self.payloads), InFlight { ack, open: attempts.token() });
                    attempts.spawn(async move {
                        let LaneContext { client, recorder, .. } = &*context;
                        let result = attempt::run(claimed, &destination, permit, client, &payloads).await;
                        recorder.record(result, message).await;
                    });
                }
                // Finished, not due, or under another claim: the dispatcher takes care of it.
                None => unclaimed.push(ack),
            }
        }
        if !unclaimed.is_empty() {
            acknowledge(unclaimed).await;
        }
        Ok(())
    }

    /// Claims the deliveries of a batch. If PostgreSQL does not answer, tries a few times; if it rejects the batch, claims them one by
    /// one, so that one that it cannot read concerns only itself. `None`: no answer, or the token is cancelled.
    async fn claim(&self, ids: &[EventId], stop: &CancellationToken) -> Option<Vec<ClaimedDelivery>> {
        // One id for all tries: deliveries that an earlier try claimed without our knowledge are ours.
        let lease_id = LeaseId::generate();
        let mut backoff = FIRST_BACKOFF;
        for _ in 0..CLAIM_TRIES {
            match self.try_claim(ids, lease_id).await {
                Ok(claimed) => return Some(claimed),
                Err(error) if error.is_answer() => return Some(self.claim_singly(ids, lease_id).await),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "deliveries cannot be claimed");
                    stop.run_until_cancelled(tokio::time::sleep(backoff)).await?;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
            }
        }
        None
    }

    /// Claims each delivery alone. One that is rejected stays queued: its message is acknowledged, and the dispatcher finds it again
    /// after the requeue bound.
    async fn claim_singly(&self, ids: &[EventId], lease_id: LeaseId) -> Vec<ClaimedDelivery> {
        let mut claimed = Vec::with_capacity(ids.len());
        for id in ids {
            match self.try_claim(std::slice::from_ref(id), lease_id).await {
                Ok(one) => claimed.extend(one),
                Err(error) => {
                    tracing::error!(error = %chain(&error), event.id = %id, "a delivery cannot be claimed");
                    if !error.is_answer() {
                        break;
                    }
                }
            }
        }
        claimed
    }

    async fn try_claim(
        &self,
        ids: &[EventId],
        lease_id: LeaseId,
    ) -> grapnel_store::Result<Vec<ClaimedDelivery>> {
        deliveries::claim(&self.context.claims, &self.destination.name, ids, lease_id, self.lease()).await
    }
}

async fn acknowledge(acks: Vec<Ack>) {
    if let Err(error) = consume::acknowledge(acks).await {
        tracing::debug!(error = %chain(&error), "messages could not be acknowledged");
    }
}

async fn give_back(acks: Vec<Ack>) {
    if let Err(error) = consume::give_back(acks).await {
        tracing::debug!(error = %chain(&error), "messages could not be returned");
    }
}
