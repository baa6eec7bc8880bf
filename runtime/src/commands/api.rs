//! `grapnel api`: the public port, the group commit, the publisher and the dispatcher.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::{any, get};
use bytes::Bytes;
use grapnel_store::{Database, InvalidUrl};
use http::header;
use ipnet::IpNet;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::wait_for_schema;
use crate::args::{ApiArgs, DeliveryArgs, RedisArgs};
use crate::delivery::dispatch::{Dispatcher, DispatcherLease};
use crate::http::{fallback, server};
use crate::ingress::body::BodyBudget;
use crate::ingress::captured_secret::CapturedSecrets;
use crate::ingress::commit;
use crate::ingress::provider_client::ProviderClient;
use crate::ingress::receive::{Ingress, receive};
use crate::integrations::cache::{self, CacheTask, IntegrationCache};
use crate::integrations::secret_uses;
use crate::maintenance::Maintenance;
use crate::maintenance::removals::RemovalWorker;
use crate::management::health::{Health, health};
use crate::management::{self, ManagementKeys, ManagementState, openapi};
use crate::rate_limit;
use grapnel_core::delivery::egress_policy::EgressPolicy;
use grapnel_core::sealing::SealingKeys;
use grapnel_platform::args::{CommonArgs, DatabaseArgs, QueueArgs, SealingArgs};
use grapnel_platform::clock::VerificationClock;
use grapnel_platform::http_server::{ConnectionSlots, PortBounds};
use grapnel_platform::ops_server::{ProcessHealth, bind, ops_stage, start_metrics};
use grapnel_platform::queue::QueueConnection;
use grapnel_platform::queue::publish;
use grapnel_platform::shutdown::{Stage, stop_signal, supervise};
use grapnel_platform::telemetry::Environment;

/// The committer, the integration cache and its listener, captured secrets and the uses of secrets.
const INGEST_CONNECTIONS: u32 = 5;

/// The dispatcher, maintenance, removals and health checks. A round of the maintenance has one more for a moment.
const WORK_CONNECTIONS: u32 = 4;

/// The management routes.
const MANAGEMENT_CONNECTIONS: u32 = 6;

/// The pools of an api, apart from each other: a costly list that an operator reads takes no connection from webhooks or
/// deliveries.
#[derive(Debug, Clone)]
pub(super) struct ApiDatabases {
    pub ingest: Database,
    pub work: Database,
    pub management: Database,
}

impl ApiDatabases {
    pub(super) fn new(url: &SecretString) -> Result<Self, InvalidUrl> {
        Ok(Self {
            ingest: Database::new(url, "api", INGEST_CONNECTIONS)?,
            work: Database::new(url, "api-work", WORK_CONNECTIONS)?,
            management: Database::new(url, "api-management", MANAGEMENT_CONNECTIONS)?,
        })
    }
}

#[derive(Debug, clap::Args)]
pub struct ApiCommand {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    delivery: DeliveryArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    queue: QueueArgs,
    #[command(flatten)]
    sealing: SealingArgs,
}

/// The configuration of an api, from the command line or from `dev`.
#[derive(Debug)]
pub(super) struct ApiConfig {
    pub environment: Environment,
    pub management_keys: Vec<SecretString>,
    pub redis_url: SecretString,
    pub rabbitmq_url: SecretString,
    pub queue_prefix: String,
    pub trusted_proxies: Arc<[IpNet]>,
    pub rate_limit_per_minute: u32,
    pub max_rate_limit_per_minute: Option<u32>,
    pub public_url: Option<Arc<str>>,
    pub clock: VerificationClock,
    pub requeue_after: Duration,
    /// The platform's bound of every retention, in days.
    pub longest_retention: i32,
    pub max_queue_length: usize,
    pub port: PortBounds,
    pub egress: EgressPolicy,
    /// How long requests in flight may take after the stop signal.
    pub drain: Duration,
}

impl ApiConfig {
    pub(super) fn new(
        common: &CommonArgs,
        api: &ApiArgs,
        redis: &RedisArgs,
        queue: &QueueArgs,
        delivery: &DeliveryArgs,
    ) -> anyhow::Result<Self> {
        let trusted_proxies: Arc<[IpNet]> = api.trusted_proxies().into();
        Ok(Self {
            environment: common.environment,
            management_keys: api.management_keys()?,
            redis_url: redis.redis_url()?,
            rabbitmq_url: queue.rabbitmq_url()?,
            queue_prefix: queue.queue_prefix()?,
            port: api.port.bounds(Arc::clone(&trusted_proxies)),
            egress: EgressPolicy::new(delivery.allowed_destination_cidrs(common.environment)),
            trusted_proxies,
            rate_limit_per_minute: api.rate_limit_per_minute,
            max_rate_limit_per_minute: api.max_rate_limit_per_minute(),
            public_url: api.public_url(),
            clock: api.clock(common.environment)?,
            requeue_after: api.requeue_after(),
            longest_retention: api.max_retention_days,
            max_queue_length: api.max_queue_length(),
            drain: common.shutdown_deadline() / 2,
        })
    }
}

/// An api whose connections have been used up for this long gets no new ones: other pods may have some left.
const CROWDED_TOO_LONG: Duration = Duration::from_secs(15);

/// Ready once the schema is current and the integrations are loaded, unless there are some and none can be used: a rollout
/// must not replace processes that serve by one that cannot. Not ready while there are no connections left.
#[derive(Debug, Clone)]
struct ApiHealth {
    integrations: IntegrationCache,
    schema: Arc<AtomicBool>,
    slots: ConnectionSlots,
}

impl ProcessHealth for ApiHealth {
    fn dead(&self) -> Option<String> {
        None
    }

    fn not_ready(&self) -> Option<String> {
        if !self.schema.load(Ordering::Relaxed) {
            return Some("waiting for the database".to_owned());
        }
        if !self.integrations.is_loaded() {
            return Some("the integrations are not loaded yet".to_owned());
        }
        let is_crowded = self.slots.crowded_for().is_some_and(|time| time >= CROWDED_TOO_LONG);
        let crowded = is_crowded.then(|| "nearly all connections of the public port are in use".to_owned());
        self.integrations.load().why_none_is_usable().or(crowded)
    }
}

/// Runs an api until the stop signal.
pub async fn run(command: ApiCommand) -> anyhow::Result<()> {
    let ApiCommand { common, api, delivery, database, redis, queue, sealing } = command;
    let config = ApiConfig::new(&common, &api, &redis, &queue, &delivery)?;
    let keys = Arc::new(sealing.sealing_keys(common.environment)?);
    let databases = ApiDatabases::new(&database.database_url()?)?;
    let metrics = start_metrics()?;
    let (public, ops) =
        (bind(api.http_addr, "GRAPNEL_HTTP_ADDR").await?, bind(common.ops_addr, "GRAPNEL_OPS_ADDR").await?);
    let (integrations, cache_task) = cache::new(databases.ingest.clone(), Arc::clone(&keys));
    let schema = Arc::new(AtomicBool::new(false));
    let health = ApiHealth {
        integrations: integrations.clone(),
        schema: Arc::clone(&schema),
        slots: config.port.slots.clone(),
    };
    let ops = ops_stage(ops, Arc::new(health), metrics);
    // One listener from here to the end: a signal between two of them would be lost.
    let mut stop = pin!(stop_signal());
    tokio::select! {
        biased; // the first poll registers the listener
        stopped = &mut stop => return stopped,
        () = wait_for_schema(&databases.ingest) => {}
    }
    schema.store(true, Ordering::Relaxed);
    tracing::info!(address = %public.local_addr()?, "accepting webhooks");
    let mut stages = stages(config, databases, keys, integrations, cache_task, public)?;
    stages.push(ops);
    supervise(stages, common.shutdown_deadline(), stop).await
}

/// Returns the parts of an api, in the order in which they stop: first nothing new is received, then received events are
/// committed, then committed events are published.
pub(super) fn stages(
    config: ApiConfig,
    databases: ApiDatabases,
    keys: Arc<SealingKeys>,
    integrations: IntegrationCache,
    cache_task: CacheTask,
    public: TcpListener,
) -> anyhow::Result<Vec<Stage>> {
    let ApiDatabases { ingest, work, management } = databases;
    let connect =
        |name: &str| QueueConnection::new(config.rabbitmq_url.clone(), format!("grapnel-api-{name}"));
    let (rate_limiter, rate_limit_task) = rate_limit::new(&config.redis_url)?;
    let (publisher, publish_task, unpublished) =
        publish::new(connect("publish"), config.queue_prefix.clone(), config.max_queue_length);
    let (committer, commit_task) = commit::new(ingest.clone(), publisher.clone());
    let wake = Arc::new(Notify::new());
    let ingress = Ingress {
        integrations: integrations.clone(),
        rate_limiter: rate_limiter.clone(),
        bodies: BodyBudget::default(),
        committer,
        trusted_proxies: config.trusted_proxies,
        rate_limit_per_minute: config.rate_limit_per_minute,
        max_rate_limit_per_minute: config.max_rate_limit_per_minute,
        public_url: config.public_url,
        captured_secrets: CapturedSecrets::new(
            ingest.clone(),
            Arc::clone(&keys),
            config.environment == Environment::Development,
        ),
        provider_client: ProviderClient::new(config.egress)?,
        clock: config.clock,
    };
    let health_state =
        Arc::new(Health::new(work.clone(), rate_limiter, connect("health"), integrations.clone()));
    let management = ManagementState {
        db: management,
        keys: ManagementKeys::new(&config.management_keys),
        delivery_sink: config.environment == Environment::Development,
        replays: Arc::clone(&wake),
        queue_prefix: config.queue_prefix.clone(),
    };
    let router = router(ingress, health_state, management)?;
    let dispatcher = Dispatcher {
        lease: DispatcherLease::new(work.clone(), config.requeue_after),
        db: work.clone(),
        integrations: integrations.clone(),
        publisher,
        queues: connect("dispatch"),
        queue_prefix: config.queue_prefix,
        max_queue_length: config.max_queue_length,
        unpublished,
        wake,
        requeue_after: config.requeue_after,
    };
    let removals = RemovalWorker { db: work.clone(), integrations: integrations.clone() };
    let maintenance = Maintenance {
        db: work,
        integrations: integrations.clone(),
        keys,
        longest_retention: config.longest_retention,
    };

    let (mut incoming, mut commit, mut publish, mut dispatch) =
        (Stage::default(), Stage::default(), Stage::default(), Stage::default());
    incoming.spawn("public port", server::serve(public, config.port, router, incoming.token(), config.drain));
    commit.spawn("commit", commit_task.run(commit.token()));
    commit.spawn("rate limits", rate_limit_task.run(commit.token()));
    commit.spawn("integrations", cache_task.run(commit.token()));
    commit.spawn("secret uses", secret_uses::run(ingest, integrations, commit.token()));
    commit.spawn("maintenance", maintenance.run(commit.token()));
    commit.spawn("removals", removals.run(commit.token()));
    publish.spawn("publish", publish_task.run(publish.token()));
    dispatch.spawn("dispatch", dispatcher.run(dispatch.token()));
    Ok(vec![incoming, commit, publish, dispatch])
}

/// Returns all routes of the public port.
fn router(
    ingress: Ingress,
    health_state: Arc<Health>,
    management: ManagementState,
) -> serde_json::Result<Router> {
    // Written once: requests for it need no key.
    let document = Bytes::from(openapi::document(management.delivery_sink).to_json()?);
    let document = move || {
        let answer = ([(header::CONTENT_TYPE, "application/json")], document.clone());
        async move { answer }
    };
    let routes = Router::new()
        .route("/webhooks/{route}", any(receive).with_state(ingress.clone()))
        .route("/webhooks/{route}/", any(receive).with_state(ingress))
        .route("/health", get(health).with_state(health_state))
        .method_not_allowed_fallback(fallback::method_not_allowed);
    let router = Router::new()
        .route("/openapi.json", get(document))
        .nest("/api/v1", management::router(management).merge(routes))
        .method_not_allowed_fallback(fallback::method_not_allowed)
        .fallback(fallback::not_found);
    Ok(router)
}
