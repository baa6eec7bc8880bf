//! The delivery workers: from a queue message to a recorded result.
//!
//! One *lane* for each destination, with a consumer, a prefetch and a concurrency of its own, so that a slow destination
//! holds back nobody else. A lane claims what its messages hint at, attempts each delivery, and the *recorder* writes
//! results of all lanes in group commits; a message is acknowledged only after that.
//!
//! Stopping: consumers are cancelled, attempts under way finish and are recorded, what was not begun goes back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use grapnel_crds::IntegrationState;
use grapnel_store::Database;
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::lane::{Lane, LaneContext};
use crate::delivery::send::DeliveryClient;
use crate::integrations::cache::Table;
use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::{Destination, Integration};
use grapnel_platform::ops_server::ProcessHealth;
use grapnel_platform::queue::Link;

/// A lane that has not consumed for this long makes the worker not live: a restart may cure what waiting does not.
const DEAF_AFTER: Duration = Duration::from_secs(300);

/// What a worker is made of.
#[derive(Debug)]
pub struct Worker {
    pub db: Database,
    /// From [`grapnel_store::claim_pool`].
    pub claims: Database,
    pub integrations: Table,
    pub client: DeliveryClient,
    pub link: Link,
    pub queue_prefix: String,
    /// The one integration to work for; `None`: all.
    pub only: Option<IntegrationId>,
    pub drain: Duration,
}

/// Which destination of which integration a lane serves.
type LaneKey = (IntegrationId, Arc<str>);

struct Running {
    stop: CancellationToken,
    integration: Arc<Integration>,
}

/// Since when each lane has not been consuming, for the liveness probe.
#[derive(Debug, Clone, Default)]
pub struct LaneHealth(Arc<std::sync::Mutex<HashMap<LaneKey, Arc<AtomicI64>>>>);

/// The value of a lane that consumes.
pub(super) const CONSUMING: i64 = 0;

impl LaneHealth {
    fn lanes(&self) -> std::sync::MutexGuard<'_, HashMap<LaneKey, Arc<AtomicI64>>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn enter(&self, key: LaneKey) -> Arc<AtomicI64> {
        let deaf_since = Arc::new(AtomicI64::new(Timestamp::now().as_second()));
        self.lanes().insert(key, Arc::clone(&deaf_since));
        deaf_since
    }

    fn leave(&self, key: &LaneKey) {
        self.lanes().remove(key);
    }
}

impl ProcessHealth for LaneHealth {
    fn dead(&self) -> Option<String> {
        let now = Timestamp::now().as_second();
        let is_deaf = |since: i64| since != CONSUMING && now - since > DEAF_AFTER.as_secs().cast_signed();
        let lanes = self.lanes();
        let ((integration_id, destination), _) =
            lanes.iter().find(|(_, since)| is_deaf(since.load(Ordering::Relaxed)))?;
        Some(format!(
            "the queue of destination {destination} of integration {integration_id} is not consumed"
        ))
    }

    fn not_ready(&self) -> Option<String> {
        None
    }
}

impl Worker {
    /// Works until the token is cancelled and what is in flight is recorded, or the deadline of the drain passes.
    pub async fn run(self, health: LaneHealth, stop: CancellationToken) {
        let (recorder, record_task) = super::record::recorder(self.db.clone());
        let link = Arc::new(self.link);
        let context = Arc::new(LaneContext {
            payloads: super::payload_budget::Payloads::new(self.db.clone()),
            db: self.db,
            claims: self.claims,
            client: self.client,
            link: Arc::clone(&link),
            queue_prefix: self.queue_prefix,
            recorder,
            drain: self.drain,
        });
        let recording = tokio::spawn(record_task.run());
        let mut lanes = Lanes { context, health, running: HashMap::new(), tasks: JoinSet::new() };
        let mut changes = self.integrations.changes();
        loop {
            lanes.follow(&self.integrations, self.only);
            tokio::select! {
                () = stop.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
                Some(Ok(key)) = lanes.tasks.join_next() => lanes.ended(&key),
            }
        }
        lanes.stop().await;
        // The recorder ends when the last lane has dropped its handle.
        if let Err(error) = recording.await {
            tracing::error!(%error, "the recorder failed");
        }
        link.close().await;
    }
}

struct Lanes {
    context: Arc<LaneContext>,
    health: LaneHealth,
    running: HashMap<LaneKey, Running>,
    tasks: JoinSet<LaneKey>,
}

impl Lanes {
    /// Starts lanes for destinations that are new, stops those that are gone, and restarts those that changed.
    fn follow(&mut self, integrations: &Table, only: Option<IntegrationId>) {
        let table = integrations.load();
        let wanted: HashMap<LaneKey, (&Arc<Integration>, &Arc<Destination>)> = table
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
        // A stopping lane is followed by its successor only after it has ended: two would exceed the concurrency.
        for (key, (integration, destination)) in wanted {
            if self.running.contains_key(&key) {
                continue;
            }
            let stop = CancellationToken::new();
            let lane = Lane {
                context: Arc::clone(&self.context),
                integration_id: integration.row.id,
                destination: Arc::clone(destination),
                deaf_since: self.health.enter(key.clone()),
            };
            let running = Running { stop: stop.clone(), integration: Arc::clone(integration) };
            self.running.insert(key.clone(), running);
            self.tasks.spawn(async move {
                // In a task of its own, so that even a panic leaves the key, and the lane is started again.
                if let Err(error) = tokio::spawn(lane.run(stop)).await {
                    tracing::error!(%error, destination = &*key.1, "a lane failed");
                }
                key
            });
        }
        metrics::gauge!("grapnel_worker_lanes").set(self.running.len() as f64);
    }

    fn ended(&mut self, key: &LaneKey) {
        self.running.remove(key);
        self.health.leave(key);
    }

    async fn stop(mut self) {
        for running in self.running.values() {
            running.stop.cancel();
        }
        while self.tasks.join_next().await.is_some() {}
    }
}
