//! `grapnel worker`: the lanes of all integrations, or of one.

use std::pin::pin;
use std::sync::Arc;

use grapnel_core::ids::IntegrationId;

use super::wait_for_schema;
use crate::args::DeliveryArgs;
use crate::delivery::send::DeliveryClient;
use crate::delivery::worker::{LaneHealth, Worker};
use crate::integrations::cache::table;
use grapnel_core::delivery::egress_policy::EgressPolicy;
use grapnel_platform::args::{CommonArgs, DatabaseArgs, QueueArgs, SealingArgs};
use grapnel_platform::ops_server::{bind, ops_stage, start_metrics};
use grapnel_platform::queue::Link;
use grapnel_platform::shutdown::{Stage, requested, supervise};
use grapnel_store::Database;

/// The recorder, the settling of replays, the table's reader and its listener.
const DATABASE_CONNECTIONS: u32 = 5;

/// Lanes that claim at the same time.
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

pub async fn run(command: WorkerCommand) -> anyhow::Result<()> {
    let WorkerCommand { integration, common, delivery, database, queue, sealing } = command;
    let (rabbitmq_url, queue_prefix) = (queue.rabbitmq_url()?, queue.queue_prefix()?);
    let keys = Arc::new(sealing.sealing_keys(common.environment)?);
    let database_url = database.database_url()?;
    let db = Database::new(&database_url, "worker", DATABASE_CONNECTIONS)?;
    let claims = Database::for_claims(&database_url, CLAIM_CONNECTIONS)?;
    let client =
        DeliveryClient::new(EgressPolicy::new(delivery.allowed_destination_cidrs(common.environment)))?;
    let metrics = start_metrics()?;
    let health = LaneHealth::default();
    let ops = ops_stage(bind(common.ops_addr, "GRAPNEL_OPS_ADDR").await?, Arc::new(health.clone()), metrics);
    // One listener from here to the end: a signal between two of them would be heard by neither.
    let mut stop = pin!(requested());
    tokio::select! {
        biased; // it listens from the first look on
        stopped = &mut stop => return stopped,
        () = wait_for_schema(&db) => {}
    }
    let (table, reading) = table(db.clone(), keys);
    // Less than the whole, so that what the attempts came to can still be recorded.
    let drain = common.shutdown_deadline().mul_f32(0.8);
    let link = Link::new(rabbitmq_url, "grapnel-worker");
    let worker =
        Worker { db, claims, integrations: table, client, link, queue_prefix, only: integration, drain };
    let (mut work, mut tables) = (Stage::default(), Stage::default());
    work.spawn("worker", worker.run(health, work.token()));
    tables.spawn("integrations", reading.run(tables.token()));
    tracing::info!("delivering");
    supervise(vec![work, tables, ops], common.shutdown_deadline(), stop).await
}
