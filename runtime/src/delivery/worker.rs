//! The delivery worker: from a queue message to a recorded result.
//!
//! It runs one *lane* for each destination, with a consumer, a prefetch and a concurrency of its own, so that a slow
//! destination holds up no other. A lane claims the deliveries that its messages hint at and attempts them; the *recorder*
//! writes the results of all lanes in group commits, and a message is acknowledged only after that.
//!
//! On a stop, consumers are cancelled, attempts in flight finish and are recorded, and other messages are returned.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grapnel_store::{ClaimConnections, Database};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::claimants;
use super::lane::{Lane, LaneContext, NotConsumingSince};
use super::lane_permits::LanePermits;
use super::payload_budget::{LanePayloads, PayloadBudget};
use super::record;
use super::tokens::{LaneToken, TokenClient};
use crate::delivery::send::DeliveryClient;
use crate::integrations::cache::IntegrationCache;
use crate::traffic::Traffic;
use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::CompiledDestination;
use grapnel_platform::ops_server::ProcessHealth;
use grapnel_platform::queue::QueueConnection;

/// A lane that has not been consuming for this long makes the worker not live: a restart may help where waiting does not.
const MAX_NOT_CONSUMING: Duration = Duration::from_secs(300);

/// The parts of a worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub db: Database,
    pub claims: ClaimConnections,
    pub integrations: IntegrationCache,
    pub client: DeliveryClient,
    pub tokens: TokenClient,
    pub queues: QueueConnection,
    pub queue_prefix: String,
    pub traffic: Traffic,
    /// The one integration to work for; `None`: all.
    pub only: Option<IntegrationId>,
    pub drain: Duration,
}

/// The destination that a lane serves.
type LaneKey = (IntegrationId, Arc<str>);

/// The lanes of one destination: the current one, and earlier ones whose attempts are still in flight.
struct DestinationLanes {
    permits: LanePermits,
    payloads: Arc<LanePayloads>,
    current: Option<CurrentLane>,
    /// How many have not ended, the current one included.
    running: usize,
}

/// The lane that consumes.
struct CurrentLane {
    number: u64,
    stop: CancellationToken,
    destination: Arc<CompiledDestination>,
}

/// The health of all lanes, for the liveness probe.
#[derive(Debug, Clone, Default)]
pub(crate) struct LaneHealth(Arc<Mutex<HashMap<LaneKey, Arc<NotConsumingSince>>>>);

impl LaneHealth {
    fn lanes(&self) -> MutexGuard<'_, HashMap<LaneKey, Arc<NotConsumingSince>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, key: LaneKey) -> Arc<NotConsumingSince> {
        let not_consuming_since = Arc::new(NotConsumingSince::now());
        self.lanes().insert(key, Arc::clone(&not_consuming_since));
        not_consuming_since
    }

    fn unregister(&self, key: &LaneKey) {
        self.lanes().remove(key);
    }
}

impl ProcessHealth for LaneHealth {
    fn dead(&self) -> Option<String> {
        let lanes = self.lanes();
        let ((integration_id, destination), _) =
            lanes.iter().find(|(_, not_consuming_since)| not_consuming_since.exceeds(MAX_NOT_CONSUMING))?;
        Some(format!(
            "the queue of destination {destination} of integration {integration_id} is not consumed"
        ))
    }

    fn not_ready(&self) -> Option<String> {
        None
    }
}

impl Worker {
    /// Runs until the token is cancelled and all attempts in flight are recorded, or the drain deadline passes.
    pub(crate) async fn run(self, health: LaneHealth, stop: CancellationToken) {
        let (recorder, record_task) = record::new(self.db.clone(), self.traffic);
        let queues = Arc::new(self.queues);
        let (claimants, claimants_task) =
            claimants::new(self.db.clone(), Arc::clone(&queues), self.queue_prefix.clone(), self.only);
        let leave = CancellationToken::new();
        let claimants_task = tokio::spawn(claimants_task.run(leave.clone()));
        claimants.wait_for_first().await;
        let context = Arc::new(LaneContext {
            payloads: PayloadBudget::new(self.db.clone()),
            db: self.db,
            claims: self.claims,
            claimants,
            client: self.client,
            tokens: self.tokens,
            queues: Arc::clone(&queues),
            queue_prefix: self.queue_prefix,
            recorder,
            drain: self.drain,
        });
        let record_task = tokio::spawn(record_task.run());
        let mut lanes =
            Lanes { context, health, by_key: HashMap::new(), tasks: JoinSet::new(), next_number: 0 };
        let mut changes = self.integrations.changes();
        loop {
            lanes.follow(&self.integrations, self.only);
            tokio::select! {
                () = stop.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
                Some(Ok((key, number))) = lanes.tasks.join_next() => lanes.remove(&key, number),
            }
        }
        lanes.stop().await;
        // The recorder ends when the last lane has dropped its handle.
        if let Err(error) = record_task.await {
            tracing::error!(%error, "the recorder failed");
        }
        leave.cancel();
        if let Err(error) = claimants_task.await {
            tracing::error!(%error, "the claimants failed");
        }
        queues.close().await;
    }
}

struct Lanes {
    context: Arc<LaneContext>,
    health: LaneHealth,
    by_key: HashMap<LaneKey, DestinationLanes>,
    /// Each task returns its destination and the number of its lane.
    tasks: JoinSet<(LaneKey, u64)>,
    /// The number of the next lane.
    next_number: u64,
}

impl Lanes {
    /// Starts lanes for new destinations, stops lanes of removed ones and of Services without ready pods, and replaces lanes whose
    /// destination has changed in what a delivery uses. Another change of its Integration leaves a lane alone.
    fn follow(&mut self, integrations: &IntegrationCache, only: Option<IntegrationId>) {
        let current = integrations.load();
        let wanted: HashMap<LaneKey, &Arc<CompiledDestination>> = current
            .iter()
            .filter(|integration| only.is_none_or(|id| id == integration.row.id))
            .flat_map(|integration| {
                let id = integration.row.id;
                integration
                    .destinations
                    .iter()
                    .filter(move |destination| integration.delivers_to(destination))
                    .map(move |destination| ((id, Arc::clone(&destination.name)), destination))
            })
            .collect();
        for (key, lanes) in &mut self.by_key {
            let is_wanted = |lane: &CurrentLane| wanted.get(key).is_some_and(|it| **it == lane.destination);
            if let Some(changed) = lanes.current.take_if(|lane| !is_wanted(lane)) {
                changed.stop.cancel();
                self.health.unregister(key);
            }
        }
        for (key, destination) in wanted {
            self.start(key, destination);
        }
        let count = self.by_key.values().filter(|lanes| lanes.current.is_some()).count();
        metrics::gauge!("grapnel_worker_lanes").set(count as f64);
    }

    /// Starts a lane unless there is a current one. It begins with the permits that earlier lanes have left.
    fn start(&mut self, key: LaneKey, destination: &Arc<CompiledDestination>) {
        let limit = destination.max_concurrency;
        let lanes = self.by_key.entry(key.clone()).or_insert_with(|| DestinationLanes {
            permits: LanePermits::new(limit),
            payloads: Arc::new(self.context.payloads.lane()),
            current: None,
            running: 0,
        });
        if lanes.current.is_some() {
            return;
        }
        lanes.permits.set_limit(limit);
        let (stop, number) = (CancellationToken::new(), self.next_number);
        self.next_number += 1;
        lanes.running += 1;
        lanes.current =
            Some(CurrentLane { number, stop: stop.clone(), destination: Arc::clone(destination) });
        let lane = Lane {
            context: Arc::clone(&self.context),
            integration_id: key.0,
            destination: Arc::clone(destination),
            permits: lanes.permits.semaphore(),
            payloads: Arc::clone(&lanes.payloads),
            token: destination
                .target
                .token_request
                .as_ref()
                .map(|request| LaneToken::new(self.context.tokens.clone(), Arc::clone(request))),
            not_consuming_since: self.health.register(key.clone()),
        };
        self.tasks.spawn(async move {
            // In a task of its own: even after a panic the key is returned, and the lane is started again.
            if let Err(error) = tokio::spawn(lane.run(stop)).await {
                tracing::error!(%error, destination = &*key.1, "a lane failed");
            }
            (key, number)
        });
    }

    /// Forgets a lane that has ended.
    fn remove(&mut self, key: &LaneKey, number: u64) {
        let Some(lanes) = self.by_key.get_mut(key) else { return };
        lanes.running -= 1;
        if lanes.current.take_if(|lane| lane.number == number).is_some() {
            self.health.unregister(key);
        }
        if lanes.running == 0 {
            self.by_key.remove(key);
        }
    }

    async fn stop(mut self) {
        for lane in self.by_key.values().filter_map(|lanes| lanes.current.as_ref()) {
            lane.stop.cancel();
        }
        while self.tasks.join_next().await.is_some() {}
    }
}
