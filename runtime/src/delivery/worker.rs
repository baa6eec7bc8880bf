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

use grapnel_crds::IntegrationState;
use grapnel_store::Database;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::lane::{Lane, LaneContext, NotConsumingSince};
use super::payload_budget::PayloadBudget;
use super::record;
use crate::delivery::send::DeliveryClient;
use crate::integrations::cache::IntegrationCache;
use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::{CompiledDestination, CompiledIntegration};
use grapnel_platform::ops_server::ProcessHealth;
use grapnel_platform::queue::QueueConnection;

/// A lane that has not been consuming for this long makes the worker not live: a restart may help where waiting does not.
const MAX_NOT_CONSUMING: Duration = Duration::from_secs(300);

/// The parts of a worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub db: Database,
    /// From [`Database::for_claims`].
    pub claims: Database,
    pub integrations: IntegrationCache,
    pub client: DeliveryClient,
    pub queues: QueueConnection,
    pub queue_prefix: String,
    /// The one integration to work for; `None`: all.
    pub only: Option<IntegrationId>,
    pub drain: Duration,
}

/// The destination that a lane serves.
type LaneKey = (IntegrationId, Arc<str>);

struct RunningLane {
    stop: CancellationToken,
    integration: Arc<CompiledIntegration>,
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
        let (recorder, record_task) = record::new(self.db.clone());
        let queues = Arc::new(self.queues);
        let context = Arc::new(LaneContext {
            payloads: PayloadBudget::new(self.db.clone()),
            db: self.db,
            claims: self.claims,
            client: self.client,
            queues: Arc::clone(&queues),
            queue_prefix: self.queue_prefix,
            recorder,
            drain: self.drain,
        });
        let record_task = tokio::spawn(record_task.run());
        let mut lanes = Lanes { context, health, running: HashMap::new(), tasks: JoinSet::new() };
        let mut changes = self.integrations.changes();
        loop {
            lanes.follow(&self.integrations, self.only);
            tokio::select! {
                () = stop.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
                Some(Ok(key)) = lanes.tasks.join_next() => lanes.remove(&key),
            }
        }
        lanes.stop().await;
        // The recorder ends when the last lane has dropped its handle.
        if let Err(error) = record_task.await {
            tracing::error!(%error, "the recorder failed");
        }
        queues.close().await;
    }
}

struct Lanes {
    context: Arc<LaneContext>,
    health: LaneHealth,
    running: HashMap<LaneKey, RunningLane>,
    tasks: JoinSet<LaneKey>,
}

impl Lanes {
    /// Starts lanes for new destinations, stops lanes of removed ones, and restarts lanes of changed ones.
    fn follow(&mut self, integrations: &IntegrationCache, only: Option<IntegrationId>) {
        let current = integrations.load();
        let wanted: HashMap<LaneKey, (&Arc<CompiledIntegration>, &Arc<CompiledDestination>)> = current
            .iter()
            .filter(|integration| only.is_none_or(|id| id == integration.row.id))
            .filter(|integration| integration.state == IntegrationState::Active)
            .flat_map(|integration| {
                integration.destinations.iter().map(move |destination| (integration, destination))
            })
            .map(|(integration, destination)| {
                ((integration.row.id, Arc::clone(&destination.name)), (integration, destination))
            })
            .collect();
        for (key, running) in &self.running {
            let is_current = wanted
                .get(key)
                .is_some_and(|(integration, _)| Arc::ptr_eq(integration, &running.integration));
            if !is_current {
                running.stop.cancel();
            }
        }
        // A stopping lane is replaced only after it has ended: two would exceed the concurrency.
        for (key, (integration, destination)) in wanted {
            if self.running.contains_key(&key) {
                continue;
            }
            let stop = CancellationToken::new();
            let lane = Lane {
                context: Arc::clone(&self.context),
                integration_id: integration.row.id,
                destination: Arc::clone(destination),
                not_consuming_since: self.health.register(key.clone()),
            };
            let running = RunningLane { stop: stop.clone(), integration: Arc::clone(integration) };
            self.running.insert(key.clone(), running);
            self.tasks.spawn(async move {
                // In a task of its own: even after a panic the key is returned, and the lane is started again.
                if let Err(error) = tokio::spawn(lane.run(stop)).await {
                    tracing::error!(%error, destination = &*key.1, "a lane failed");
                }
                key
            });
        }
        metrics::gauge!("grapnel_worker_lanes").set(self.running.len() as f64);
    }

    fn remove(&mut self, key: &LaneKey) {
        self.running.remove(key);
        self.health.unregister(key);
    }

    async fn stop(mut self) {
        for running in self.running.values() {
            running.stop.cancel();
        }
        while self.tasks.join_next().await.is_some() {}
    }
}
