//! One destination's lane: consume, claim, attempt.
//!
//! A delivery takes a permit before it is claimed, and holds it until the receiver has answered: no more deliveries than the
//! destination's concurrency are in flight, and no lease runs while its delivery waits for a permit. It also has a place until its
//! result is recorded. There are twice as many places, so that a killed worker repeats a bounded number of deliveries, however many its
//! messages name.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use grapnel_store::{ClaimConnections, Database};
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::attempt;
use super::claimants::Claimants;
use super::message::{self, MessagePart, PartEnd};
use super::payload_budget::{LanePayloads, PayloadBudget};
use super::record::{InFlight, Recorder};
use super::tokens::{self, LaneToken, TokenClient};
use crate::delivery::send::DeliveryClient;
use grapnel_core::error_chain::chain;
use grapnel_core::hint;
use grapnel_core::ids::{EventId, IntegrationId, LeaseId};
use grapnel_core::integration::CompiledDestination;
use grapnel_platform::queue::QueueConnection;
use grapnel_platform::queue::consume::{QueueConsumer, QueueMessage};
use grapnel_store::audit;
use grapnel_store::deliveries::{self, ClaimedDelivery, ClaimingDestination};
use grapnel_store::integrations::gone;

/// Deliveries in one claim.
const BATCH: usize = 128;

/// How much longer than its attempt a lease runs: time to record the result.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// How often a claim is tried before its messages go back to the queue, for a worker that may do better.
const CLAIM_TRIES: usize = 5;

/// The status by which a receiver ends all deliveries to it.
const GONE: u16 = 410;

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// The parts that all lanes share.
#[derive(Debug)]
pub(super) struct LaneContext {
    pub db: Database,
    pub claims: ClaimConnections,
    pub claimants: Claimants,
    pub client: DeliveryClient,
    pub tokens: TokenClient,
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
    /// What authenticates its deliveries, if a token does.
    pub token: Option<Arc<LaneToken>>,
    pub not_consuming_since: Arc<NotConsumingSince>,
}

/// A delivery that may be claimed.
struct StartedDelivery {
    part: MessagePart,
    permit: OwnedSemaphorePermit,
    place: OwnedSemaphorePermit,
}

/// A consumer, and the deliveries of messages that it has received and that are not started.
struct Fetched {
    consumer: QueueConsumer,
    waiting: VecDeque<MessagePart>,
}

impl Lane {
    /// Consumes until the token is cancelled, reconnecting without end; then lets the attempts in flight finish.
    pub(super) async fn run(self, stop: CancellationToken) {
        let (attempts, places) = (TaskTracker::new(), Arc::new(Semaphore::new(self.places())));
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
                    let fetched = Fetched { consumer, waiting: VecDeque::new() };
                    self.consume(fetched, &places, &attempts, &stop).await;
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
    fn places(&self) -> usize {
        self.destination.max_concurrency * 2
    }

    /// Returns how many messages the lane may have. Each may be kept by one slow delivery, and the others must find messages.
    fn prefetch(&self) -> u16 {
        u16::try_from(self.places()).unwrap_or(u16::MAX)
    }

    fn lease(&self) -> Duration {
        // With a token there may be two requests, each after a wait for it.
        let longest = match &self.token {
            Some(_) => 2 * (self.destination.timeout + tokens::LONGEST_WAIT),
            None => self.destination.timeout,
        };
        longest + LEASE_MARGIN
    }

    /// Serves one consumer until it ends or the token is cancelled.
    ///
    /// On a stop, started attempts finish first, since their messages can only be acknowledged on this channel, and
    /// messages that were fetched but not started go to another worker. If RabbitMQ ended the consumer, there is no
    /// channel left to acknowledge on: the next one begins at once, while earlier attempts are still in flight.
    async fn consume(
        &self,
        mut fetched: Fetched,
        places: &Arc<Semaphore>,
        attempts: &TaskTracker,
        stop: &CancellationToken,
    ) {
        while let Some(batch) = self.next_batch(&mut fetched, places, stop).await {
            if let Err(batch) = self.claim_and_attempt(batch, attempts, stop).await {
                let parts = batch.into_iter().map(|started| started.part).chain(fetched.waiting.drain(..));
                message::end(parts, PartEnd::GivenBack).await;
                // They may come back at once.
                let _stopped = stop.run_until_cancelled(tokio::time::sleep(MAX_BACKOFF)).await;
            }
        }
        if stop.is_cancelled() {
            self.drain(&mut fetched, attempts).await;
        }
        if let Err(error) = fetched.consumer.close().await {
            tracing::debug!(error = %chain(&error), "channel could not be closed");
        }
    }

    async fn drain(&self, Fetched { consumer, waiting }: &mut Fetched, attempts: &TaskTracker) {
        if let Err(error) = consumer.cancel().await {
            tracing::debug!(error = %chain(&error), "consumer could not be cancelled");
        }
        message::give_back_now(waiting.drain(..)).await;
        let fetched = std::iter::from_fn(|| consumer.next_ready());
        message::give_back(fetched.map(|message| message.ack).collect()).await;
        attempts.close();
        if timeout(self.context.drain, attempts.wait()).await.is_err() {
            tracing::warn!(
                destination = &*self.destination.name,
                "attempts were still in flight at the drain deadline"
            );
        }
    }

    /// Waits for a delivery and takes the others that have arrived, as far as there are permits and places. `None` when the
    /// consumer has ended or the token is cancelled.
    async fn next_batch(
        &self,
        fetched: &mut Fetched,
        places: &Arc<Semaphore>,
        stop: &CancellationToken,
    ) -> Option<Vec<StartedDelivery>> {
        let place = self.next_place(places, stop).await?;
        let permit = stop.run_until_cancelled(Arc::clone(&self.permits).acquire_owned()).await?.ok()?;
        while fetched.waiting.is_empty() {
            let message = stop.run_until_cancelled(fetched.consumer.next()).await??;
            fetched.waiting.extend(self.parts(message).await.into_iter().flatten());
        }
        let first = fetched.waiting.pop_front()?;
        let mut batch = vec![StartedDelivery { part: first, permit, place }];
        while batch.len() < BATCH
            && let Ok(place) = Arc::clone(places).try_acquire_owned()
            && let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned()
            && let Some(part) = self.next_ready(fetched).await
        {
            batch.push(StartedDelivery { part, permit, place });
        }
        Some(batch)
    }

    /// Waits for a place. Those that are taken become free as results are recorded.
    async fn next_place(
        &self,
        places: &Arc<Semaphore>,
        stop: &CancellationToken,
    ) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            return Some(place);
        }
        let _waiting = self.context.recorder.await_places();
        stop.run_until_cancelled(Arc::clone(places).acquire_owned()).await?.ok()
    }

    /// Returns a delivery whose message has arrived, if there is one.
    async fn next_ready(&self, fetched: &mut Fetched) -> Option<MessagePart> {
        while fetched.waiting.is_empty() {
            let message = fetched.consumer.next_ready()?;
            fetched.waiting.extend(self.parts(message).await.into_iter().flatten());
        }
        fetched.waiting.pop_front()
    }

    /// Decodes a message. A foreign one is reported and acknowledged: the rows decide in any case.
    async fn parts(&self, message: QueueMessage) -> Option<impl Iterator<Item = MessagePart> + use<>> {
        let QueueMessage { body, ack } = message;
        match hint::decode(&body) {
            Some(event_ids) => Some(message::parts(event_ids, ack)),
            None => {
                metrics::counter!("grapnel_queue_poison_messages_total").increment(1);
                let db = &self.context.db;
                let reported =
                    audit::message_rejected(db, self.integration_id, &self.destination.name, body.len());
                if let Err(error) = reported.await {
                    tracing::error!(error = %chain(&error), "a foreign message could not be reported");
                }
                message::acknowledge(ack).await;
                None
            }
        }
    }

    /// Claims the batch and starts the attempts. Returns the batch if PostgreSQL does not answer, or if the token is cancelled before.
    async fn claim_and_attempt(
        &self,
        batch: Vec<StartedDelivery>,
        attempts: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(), Vec<StartedDelivery>> {
        let ids: Vec<EventId> = batch.iter().map(|started| started.part.event_id).collect();
        let claimant = self.context.claimants.current();
        // One id for all tries: deliveries that an earlier try claimed without our knowledge are ours.
        let lease_id = claimant.as_ref().map_or_else(LeaseId::generate, |claimant| LeaseId::of(claimant.id));
        let Some(claimed) = self.claim(&ids, lease_id, stop).await else {
            return Err(batch);
        };
        let mut claimed: HashMap<EventId, ClaimedDelivery> =
            claimed.into_iter().map(|claimed| (claimed.event_id, claimed)).collect();
        let mut unclaimed = Vec::new();
        for StartedDelivery { part, permit, place } in batch {
            match claimed.remove(&part.event_id) {
                Some(claimed) => {
                    let (context, destination) = (Arc::clone(&self.context), Arc::clone(&self.destination));
                    let (payloads, token) = (Arc::clone(&self.payloads), self.token.clone());
                    let integration_id = self.integration_id;
                    let in_flight =
                        InFlight { part, place, open: attempts.token(), claimant: claimant.clone() };
                    attempts.spawn(async move {
                        let LaneContext { client, recorder, .. } = &*context;
                        let attempt =
                            attempt::run(claimed, &destination, permit, client, &payloads, token.as_ref());
                        let mut attempt = pin!(attempt);
                        let result = match &in_flight.claimant {
                            Some(claimant) => claimant.unless_lost(attempt.as_mut()).await,
                            None => Some(attempt.await),
                        };
                        let Some(result) = result else {
                            metrics::counter!("grapnel_attempts_dropped_total").increment(1);
                            return;
                        };
                        if result.http_status == Some(GONE) {
                            Box::pin(mark_gone(&context, integration_id, &destination)).await;
                        }
                        recorder.record(result, in_flight).await;
                    });
                }
                // Finished, not due, or under another claim: the dispatcher takes care of it.
                None => unclaimed.push(part),
            }
        }
        message::end(unclaimed, PartEnd::Done).await;
        Ok(())
    }

    /// Claims the deliveries of a batch. If PostgreSQL does not answer, tries a few times; if it rejects the batch, claims them one by
    /// one, so that one that it cannot read concerns only itself. `None`: no answer, or the token is cancelled.
    async fn claim(
        &self,
        ids: &[EventId],
        lease_id: LeaseId,
        stop: &CancellationToken,
    ) -> Option<Vec<ClaimedDelivery>> {
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
        let destination = ClaimingDestination {
            name: &self.destination.name,
            delivered_as: self.destination.delivered_as,
            needs_headers: self.destination.forwarded.are_always_needed(),
        };
        deliveries::claim(&self.context.claims, destination, ids, lease_id, self.lease()).await
    }
}

/// Sees to it that nothing more is sent to a destination until its Integration changes. If that fails, the next answer does it.
async fn mark_gone(context: &LaneContext, integration_id: IntegrationId, destination: &CompiledDestination) {
    if let Err(error) = gone::mark(&context.db, integration_id, &destination.name).await {
        tracing::warn!(error = %chain(&error), destination = &*destination.name, "a destination cannot be marked as gone");
    }
}
