//! `grapnel worker`: the lanes of all integrations, or of one.

use std::pin::pin;
use std::sync::Arc;

use grapnel_core::ids::IntegrationId;

use super::{READ_ONLY, wait_for_schema, watch_database};
use crate::args::DeliveryArgs;
use crate::delivery::heartbeat;
use crate::delivery::send::DeliveryClient;
use crate::delivery::tokens::TokenClient;
use crate::delivery::worker::{LaneHealth, Worker};
use crate::integrations::cache::{self, IntegrationCache};
use crate::traffic::{self, Traffic};
use grapnel_platform::args::{CommonArgs, DatabaseArgs, QueueArgs, SealingArgs};
use grapnel_platform::ops_server::{ProcessHealth, bind, ops_stage, start_metrics};
use grapnel_platform::queue::{self as broker, QueueConnection};
use grapnel_platform::shutdown::{Stage, stop_signal, supervise};
use grapnel_store::{ClaimConnections, Database};

/// Shared by the recorder, the settling of replays, the heartbeat, the traffic, the integration cache, its listener and the registration of
/// claimants. The session of the claimants is one more.
pub(super) const DATABASE_CONNECTIONS: u32 = 5;

/// Lanes that can claim at the same time.
pub(super) const CLAIM_CONNECTIONS: u32 = 8;

#[derive(Debug, clap::Args)]
pub struct WorkerCommand {
    /// Deliver for one integration only: its id
    #[arg(long, env = "GRAPNEL_INTEGRATION")]
    integration: Option<IntegrationId>,
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    delivery: DeliveryArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    queue: QueueArgs,
    #[command(flatten)]
    sealing: SealingArgs,
}

/// Dead when a queue is not consumed; not ready when there are rows to work for and none can be used, and while its sessions with
/// PostgreSQL only read.
struct WorkerHealth {
    db: Database,
    integrations: IntegrationCache,
    only: Option<IntegrationId>,
    lanes: LaneHealth,
}

impl ProcessHealth for WorkerHealth {
    fn dead(&self) -> Option<String> {
        self.lanes.dead()
    }

    fn not_ready(&self) -> Option<String> {
        if self.db.is_read_only() {
            return Some(READ_ONLY.to_owned());
        }
        let integrations = self.integrations.load();
        match self.only {
            Some(id) => integrations.is_unusable(id).then(|| {
                "the integration cannot be used; the log says why, most likely a sealing key is missing"
                    .to_owned()
            }),
            None => integrations.why_none_is_usable(),
        }
    }
}

/// Runs a worker until the stop signal.
pub async fn run(command: WorkerCommand) -> anyhow::Result<()> {
    let WorkerCommand { integration, common, delivery, database, queue, sealing } = command;
    let (rabbitmq_url, queue_prefix) = (queue.rabbitmq_url()?, queue.queue_prefix()?);
    let keys = Arc::new(sealing.sealing_keys(common.environment)?);
    let database_url = database.database_url()?;
    let db = Database::new(&database_url, "worker", DATABASE_CONNECTIONS)?;
    let claims = ClaimConnections::new(&db, CLAIM_CONNECTIONS);
    let datastores = [Some(db.server()), broker::server(&rabbitmq_url)];
    let egress = delivery.egress(common.environment, datastores.into_iter().flatten())?;
    let (client, tokens) = (DeliveryClient::new(egress.clone()), TokenClient::new(egress));
    let metrics = start_metrics()?;
    let (integrations, cache_task) = cache::new(db.clone(), keys);
    let lanes = LaneHealth::default();
    let health = WorkerHealth {
        db: db.clone(),
        integrations: integrations.clone(),
        only: integration,
        lanes: lanes.clone(),
    };
    let ops = ops_stage(bind(common.ops_addr, "GRAPNEL_OPS_ADDR").await?, Arc::new(health), metrics);
    // One listener from here to the end: a signal between two of them would be lost.
    let mut stop = pin!(stop_signal());
    tokio::select! {
        biased; // the first poll registers the listener
        stopped = &mut stop => return stopped,
        () = wait_for_schema(&db) => {}
    }
    // Less than the whole deadline, so that the results of the attempts can still be recorded.
    let drain = common.shutdown_deadline().mul_f32(0.8);
    let queues = QueueConnection::new(rabbitmq_url, "grapnel-worker");
    let (watched, beats, only) = (db.clone(), db.clone(), integration);
    let (counted, traffic) = (db.clone(), Traffic::default());
    let worker = Worker {
        db,
        claims,
        integrations,
        client,
        tokens,
        queues,
        queue_prefix,
        traffic: traffic.clone(),
        only,
        drain,
    };
    let (mut work, mut cache) = (Stage::default(), Stage::default());
    work.spawn("heartbeat", heartbeat::run(beats, work.token()));
    work.spawn("worker", worker.run(lanes, work.token()));
    cache.spawn("integrations", cache_task.run(cache.token()));
    // After the last results are recorded.
    cache.spawn("traffic", traffic::run(counted, traffic, cache.token()));
    cache.spawn("database", watch_database(watched, cache.token()));
    tracing::info!("delivering");
    supervise(vec![work, cache, ops], common.shutdown_deadline(), stop).await
}
