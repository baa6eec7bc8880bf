//! `grapnel api`: the public port, the group commit, the publisher and the dispatcher.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::routing::{any, get};
use axum::{Json, Router};
use grapnel_store::Database;
use ipnet::IpNet;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::wait_for_schema;
use crate::args::{ApiArgs, RedisArgs};
use crate::delivery::dispatch::Dispatcher;
use crate::http::server;
use crate::ingress::body::BodyBudget;
use crate::ingress::captured_secret::Captures;
use crate::ingress::commit::committer;
use crate::ingress::provider_client::ProviderClient;
use crate::ingress::receive::{Ingress, receive};
use crate::integrations::cache::{ReadTask, Table, table};
use crate::integrations::secret_uses;
use crate::maintenance::Maintenance;
use crate::management::health::{Health, health};
use crate::management::{self, openapi};
use crate::management::{ManagementKeys, ManagementState};
use crate::rate_limit::limits;
use grapnel_core::sealing::SealingKeys;
use grapnel_platform::args::{CommonArgs, DatabaseArgs, QueueArgs, SealingArgs};
use grapnel_platform::clock::Clock;
use grapnel_platform::ops_server::ProcessHealth;
use grapnel_platform::ops_server::{bind, ops_stage, start_metrics};
use grapnel_platform::queue::Link;
use grapnel_platform::queue::publish::publisher;
use grapnel_platform::shutdown::{Stage, requested, supervise};
use grapnel_platform::telemetry::Environment;

/// The committer, the table's listener, the dispatcher, maintenance, and the management routes share these.
pub(super) const DATABASE_CONNECTIONS: u32 = 16;

#[derive(Debug, clap::Args)]
pub struct ApiCommand {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    queue: QueueArgs,
    #[command(flatten)]
    sealing: SealingArgs,
}

/// What an api is started with, from the command line or by `dev`.
#[derive(Debug)]
pub(super) struct ApiConfig {
    pub environment: Environment,
    pub management_keys: Vec<SecretString>,
    pub redis_url: SecretString,
    pub rabbitmq_url: SecretString,
    pub queue_prefix: String,
    pub trusted_proxies: Arc<[IpNet]>,
    pub rate_limit_per_minute: u32,
    pub public_url: Option<Arc<str>>,
    pub clock: Clock,
    pub requeue_after: Duration,
    /// How long requests in flight may take after the stop.
    pub drain: Duration,
}

impl ApiConfig {
    pub(super) fn new(
        common: &CommonArgs,
        api: &ApiArgs,
        redis: &RedisArgs,
        queue: &QueueArgs,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            environment: common.environment,
            management_keys: api.management_keys()?,
            redis_url: redis.redis_url()?,
            rabbitmq_url: queue.rabbitmq_url()?,
            queue_prefix: queue.queue_prefix()?,
            trusted_proxies: api.trusted_proxies().into(),
            rate_limit_per_minute: api.rate_limit_per_minute,
            public_url: api.public_url(),
            clock: api.clock(common.environment)?,
            requeue_after: api.requeue_after(),
            drain: common.shutdown_deadline() / 2,
        })
    }
}

/// Ready once the schema is there and the integrations were read.
#[derive(Debug, Clone)]
struct ApiProbes {
    table: Table,
    schema: Arc<AtomicBool>,
}

impl ProcessHealth for ApiProbes {
    fn dead(&self) -> Option<String> {
        None
    }

    fn not_ready(&self) -> Option<String> {
        if !self.schema.load(Ordering::Relaxed) {
            return Some("waiting for the database".to_owned());
        }
        (!self.table.is_read()).then(|| "the integrations are not read yet".to_owned())
    }
}

pub async fn run(command: ApiCommand) -> anyhow::Result<()> {
    let ApiCommand { common, api, database, redis, queue, sealing } = command;
    let config = ApiConfig::new(&common, &api, &redis, &queue)?;
    let keys = Arc::new(sealing.sealing_keys(common.environment)?);
    let db = Database::new(&database.database_url()?, "api", DATABASE_CONNECTIONS)?;
    let metrics = start_metrics()?;
    let (public, ops) =
        (bind(api.http_addr, "GRAPNEL_HTTP_ADDR").await?, bind(common.ops_addr, "GRAPNEL_OPS_ADDR").await?);
    let (table, reading) = table(db.clone(), Arc::clone(&keys));
    let schema = Arc::new(AtomicBool::new(false));
    let ops =
        ops_stage(ops, Arc::new(ApiProbes { table: table.clone(), schema: Arc::clone(&schema) }), metrics);
    // One listener from here to the end: a signal between two of them would be heard by neither.
    let mut stop = pin!(requested());
    tokio::select! {
        biased; // it listens from the first look on
        stopped = &mut stop => return stopped,
        () = wait_for_schema(&db) => {}
    }
    schema.store(true, Ordering::Relaxed);
    tracing::info!(address = %public.local_addr()?, "accepting webhooks");
    let mut stages = stages(config, db, keys, table, reading, public)?;
    stages.push(ops);
    supervise(stages, common.shutdown_deadline(), stop).await
}

/// The parts of an api, in the order in which they stop: first nothing new comes in, then what came in is committed,
/// then what is committed is published.
pub(super) fn stages(
    config: ApiConfig,
    db: Database,
    keys: Arc<SealingKeys>,
    table: Table,
    reading: ReadTask,
    public: TcpListener,
) -> anyhow::Result<Vec<Stage>> {
    let link = |name: &str| Link::new(config.rabbitmq_url.clone(), format!("grapnel-api-{name}"));
    let (limits, counting) = limits(&config.redis_url)?;
    let (publisher, publishing, unpublished) = publisher(link("publish"), config.queue_prefix.clone());
    let (committer, committing) = committer(db.clone(), publisher.clone());
    let wake = Arc::new(Notify::new());
    let ingress = Ingress {
        integrations: table.clone(),
        limits: limits.clone(),
        bodies: BodyBudget::default(),
        committer,
        trusted_proxies: config.trusted_proxies,
        rate_limit_per_minute: config.rate_limit_per_minute,
        public_url: config.public_url,
        captures: Captures::new(
            db.clone(),
            Arc::clone(&keys),
            config.environment == Environment::Development,
        ),
        provider_client: ProviderClient::new()?,
        clock: config.clock,
    };
    let health_state = Arc::new(Health::new(db.clone(), limits, link("health")));
    let management = ManagementState {
        db: db.clone(),
        keys: ManagementKeys::new(&config.management_keys),
        delivery_sink: config.environment == Environment::Development,
        replays: Arc::clone(&wake),
        queue_prefix: config.queue_prefix.clone(),
    };
    let router = router(ingress, health_state, management);
    let dispatcher = Dispatcher {
        db: db.clone(),
        publisher,
        link: link("dispatch"),
        queue_prefix: config.queue_prefix,
        unpublished,
        wake,
        requeue_after: config.requeue_after,
    };
    let (uses_db, uses_table) = (db.clone(), table.clone());
    let maintenance = Maintenance { db, integrations: table, keys };

    let (mut incoming, mut commit, mut publish, mut dispatch) =
        (Stage::default(), Stage::default(), Stage::default(), Stage::default());
    incoming.spawn("public port", server::serve(public, router, incoming.token(), config.drain));
    commit.spawn("commit", committing.run(commit.token()));
    commit.spawn("rate limits", counting.run(commit.token()));
    commit.spawn("integrations", reading.run(commit.token()));
    commit.spawn("secret uses", secret_uses::run(uses_db, uses_table, commit.token()));
    commit.spawn("maintenance", maintenance.run(commit.token()));
    publish.spawn("publish", publishing.run(publish.token()));
    dispatch.spawn("dispatch", dispatcher.run(dispatch.token()));
    Ok(vec![incoming, commit, publish, dispatch])
}

/// Everything on the public port.
fn router(ingress: Ingress, health_state: Arc<Health>, management: ManagementState) -> Router {
    let document = Arc::new(openapi::document(management.delivery_sink));
    let ours = Router::new()
        .route("/webhooks/{route}", any(receive).with_state(ingress))
        .route("/health", get(health).with_state(health_state))
        .method_not_allowed_fallback(management::method_not_allowed);
    Router::new()
        .route("/openapi.json", get(|| async move { Json(document.as_ref().clone()) }))
        .nest("/api/v1", management::router(management).merge(ours))
        .method_not_allowed_fallback(management::method_not_allowed)
        .fallback(management::not_found)
}
