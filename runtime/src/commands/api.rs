//! `grapnel api`: the public port, the group commit, the publisher and the dispatcher.
//!
//! Where there is a management key, the public port has the management routes too, so that one process can be everything; where
//! there is none, they are paths like any unknown one.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use grapnel_store::{Database, InvalidUrl};
use ipnet::IpNet;
use secrecy::SecretString;
use tokio::net::TcpListener;

use super::manage::openapi_document;
use super::{READ_ONLY, wait_for_schema, watch_database};
use crate::args::{ApiArgs, DeliveryArgs, ManagementKeyArgs, PortArgs, RedisArgs};
use crate::delivery::dispatch::{Dispatcher, DispatcherLease};
use crate::delivery::feed::Feeder;
use crate::egress::Egress;
use crate::http::fallback;
use crate::ingress::body::BodyBudget;
use crate::ingress::captured_secret::CapturedSecrets;
use crate::ingress::commit;
use crate::ingress::filter_errors::{self, FilterErrors};
use crate::ingress::filtering::Filtering;
use crate::ingress::provider_client::ProviderClient;
use crate::ingress::readable_form::ReadableForm;
use crate::ingress::receive::Ingress;
use crate::integrations::cache::{self, CacheTask, IntegrationCache};
use crate::integrations::secret_uses;
use crate::maintenance::Maintenance;
use crate::maintenance::removals::RemovalWorker;
use crate::management::health::{Health, IngestHealth, health};
use crate::management::openapi::Served;
use crate::management::{self, Denials, LiveEvents, ManagementKeys, ManagementState, ReplayWaker};
use crate::rate_limit;
use crate::rejections;
use crate::traffic::{self, Traffic};
use grapnel_core::sealing::SealingKeys;
use grapnel_platform::args::{CommonArgs, DatabaseArgs, QueueArgs, SealingArgs};
use grapnel_platform::clock::VerificationClock;
use grapnel_platform::http_server::{ConnectionSlots, PortBounds};
use grapnel_platform::ops_server::{ProcessHealth, bind, ops_stage, start_metrics};
use grapnel_platform::queue::{self as broker, QueueConnection, publish};
use grapnel_platform::shutdown::{Stage, stop_signal, supervise};
use grapnel_platform::telemetry::Environment;

mod public_port;

/// The committer, the integration cache and its listener, captured secrets, and what is written now and then: the uses of secrets, the
/// errors of filters and the traffic.
const INGEST_CONNECTIONS: u32 = 5;

/// The dispatcher, the feeder of replays, maintenance, removals, minutes of traffic and health checks. A round of the maintenance has one more for a moment.
const WORK_CONNECTIONS: u32 = 5;

/// The management routes, where they are served.
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
        let ingest = Database::new(url, "api", INGEST_CONNECTIONS)?;
        Ok(Self {
            work: ingest.beside("api-work", WORK_CONNECTIONS),
            management: ingest.beside("api-management", MANAGEMENT_CONNECTIONS),
            ingest,
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
    keys: ManagementKeyArgs,
    #[command(flatten)]
    port: PortArgs,
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
    /// Without any, there are no management routes.
    pub management_keys: ManagementKeys,
    /// Wakes the dispatcher of this process.
    pub wake: ReplayWaker,
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
    pub egress: Egress,
    /// How long requests in flight may take after the stop signal.
    pub drain: Duration,
}

impl ApiConfig {
    pub(super) fn new(
        common: &CommonArgs,
        api: &ApiArgs,
        management_keys: ManagementKeys,
        port: &PortArgs,
        redis: &RedisArgs,
        queue: &QueueArgs,
        egress: Egress,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            environment: common.environment,
            management_keys,
            wake: ReplayWaker::default(),
            egress,
            redis_url: redis.redis_url()?,
            rabbitmq_url: queue.rabbitmq_url()?,
            queue_prefix: queue.queue_prefix()?,
            port: port.bounds(),
            trusted_proxies: port.trusted_proxies(),
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

/// Returns the way out of an api, which leads to none of its datastores.
pub(super) fn egress(
    common: &CommonArgs,
    delivery: &DeliveryArgs,
    databases: &ApiDatabases,
    redis: &RedisArgs,
    queue: &QueueArgs,
) -> anyhow::Result<Egress> {
    let datastores = [
        Some(databases.ingest.server()),
        rate_limit::server(&redis.redis_url()?),
        broker::server(&queue.rabbitmq_url()?),
    ];
    Ok(delivery.egress(common.environment, datastores.into_iter().flatten())?)
}

/// An api whose connections have been used up for this long gets no new ones: other pods may have some left.
const CROWDED_TOO_LONG: Duration = Duration::from_secs(15);

/// Ready once the schema is current and the integrations are loaded, unless there are some and none can be used: a rollout
/// must not replace processes that serve by one that cannot. Not ready while there are no connections left, and while its sessions
/// with PostgreSQL only read: other pods may have reached the new primary. RabbitMQ is not asked: without it, webhooks are accepted.
#[derive(Debug, Clone)]
struct ApiHealth {
    integrations: IntegrationCache,
    schema: Arc<AtomicBool>,
    db: Database,
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
        if self.db.is_read_only() {
            return Some(READ_ONLY.to_owned());
        }
        let is_crowded = self.slots.crowded_for().is_some_and(|time| time >= CROWDED_TOO_LONG);
        let crowded = is_crowded.then(|| "nearly all connections of the public port are in use".to_owned());
        self.integrations.load().why_none_is_usable().or(crowded)
    }
}

/// Runs an api until the stop signal.
pub async fn run(command: ApiCommand) -> anyhow::Result<()> {
    let ApiCommand { common, api, keys, port, delivery, database, redis, queue, sealing } = command;
    let databases = ApiDatabases::new(&database.database_url()?)?;
    let egress = egress(&common, &delivery, &databases, &redis, &queue)?;
    let config = ApiConfig::new(&common, &api, keys.management_keys()?, &port, &redis, &queue, egress)?;
    let keys = Arc::new(sealing.sealing_keys(common.environment)?);
    let metrics = start_metrics()?;
    let (public, ops) =
        (bind(api.http_addr, "GRAPNEL_HTTP_ADDR").await?, bind(common.ops_addr, "GRAPNEL_OPS_ADDR").await?);
    let (integrations, cache_task) = cache::new(databases.ingest.clone(), Arc::clone(&keys));
    let schema = Arc::new(AtomicBool::new(false));
    let health = ApiHealth {
        integrations: integrations.clone(),
        schema: Arc::clone(&schema),
        db: databases.work.clone(),
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
    let form = ReadableForm::read(&databases.ingest).await;
    let mut stages = stages(config, databases, keys, integrations, cache_task, form, public)?;
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
    form: ReadableForm,
    public: TcpListener,
) -> anyhow::Result<Vec<Stage>> {
    let ApiDatabases { ingest, work, management } = databases;
    let connect =
        |name: &str| QueueConnection::new(config.rabbitmq_url.clone(), format!("grapnel-api-{name}"));
    let traffic = Traffic::default();
    let (rejections, rejection_task) = rejections::new(&config.redis_url, &config.queue_prefix)?;
    let (rate_limiter, rate_limit_task) = rate_limit::new(&config.redis_url)?;
    let (publisher, publish_task, unpublished) = publish::new(
        connect("publish"),
        config.queue_prefix.clone(),
        config.max_queue_length,
        form.may_share_messages(),
    );
    let (committer, commit_task) =
        commit::new(ingest.clone(), publisher.clone(), form.clone(), traffic.clone());
    let filter_errors = FilterErrors::default();
    let ingress = Arc::new(Ingress {
        integrations: integrations.clone(),
        rate_limiter: rate_limiter.clone(),
        bodies: BodyBudget::default(),
        filtering: Filtering::new(filter_errors.clone()),
        committer,
        readable_form: form.clone(),
        trusted_proxies: Arc::clone(&config.trusted_proxies),
        rate_limit_per_minute: config.rate_limit_per_minute,
        max_rate_limit_per_minute: config.max_rate_limit_per_minute,
        public_url: config.public_url,
        captured_secrets: CapturedSecrets::new(
            ingest.clone(),
            Arc::clone(&keys),
            config.environment == Environment::Development,
        ),
        provider_client: ProviderClient::new(config.egress),
        traffic: traffic.clone(),
        rejections: rejections.clone(),
        clock: config.clock,
    });
    let health = IngestHealth {
        rate_limiter,
        rabbitmq: connect("health"),
        publisher: publisher.clone(),
        integrations: integrations.clone(),
    };
    let health = Arc::new(Health::new(work.clone(), Some(health)));
    let (mut incoming, mut commit, mut publish, mut dispatch) =
        (Stage::default(), Stage::default(), Stage::default(), Stage::default());
    let management = (!config.management_keys.is_empty()).then(|| ManagementState {
        live: LiveEvents::new(management.clone(), incoming.token()),
        db: management,
        keys: config.management_keys,
        // The pod that anybody can reach must not be able to ask the API server anything.
        cluster: None,
        trusted_proxies: config.trusted_proxies,
        denials: Denials::default(),
        delivery_sink: config.environment == Environment::Development,
        replays: Arc::clone(&config.wake),
        rejections: Some(rejections),
        queue_prefix: config.queue_prefix.clone(),
    });
    let router = router(health, management, config.environment)?;
    let lease = DispatcherLease::new(work.clone(), config.requeue_after);
    let feeder = Feeder {
        db: work.clone(),
        leads: lease.leads(),
        integrations: integrations.clone(),
        queues: connect("replays"),
        queue_prefix: config.queue_prefix.clone(),
        wake: Arc::clone(&config.wake),
    };
    let dispatcher = Dispatcher {
        lease,
        db: work.clone(),
        integrations: integrations.clone(),
        publisher,
        queues: connect("dispatch"),
        queue_prefix: config.queue_prefix,
        max_queue_length: config.max_queue_length,
        unpublished,
        wake: config.wake,
        requeue_after: config.requeue_after,
    };
    let watched = work.clone();
    let removals = RemovalWorker { db: work.clone(), integrations: integrations.clone() };
    let closing = work.clone();
    let maintenance = Maintenance {
        db: work,
        integrations: integrations.clone(),
        keys,
        longest_retention: config.longest_retention,
    };

    let stop = incoming.token();
    incoming
        .spawn("public port", public_port::serve(public, config.port, ingress, router, stop, config.drain));
    commit.spawn("commit", commit_task.run(commit.token()));
    commit.spawn("stored form", form.follow(ingest.clone(), commit.token()));
    commit.spawn("rejections", rejection_task.run(commit.token()));
    commit.spawn("rate limits", rate_limit_task.run(commit.token()));
    commit.spawn("integrations", cache_task.run(commit.token()));
    commit.spawn("secret uses", secret_uses::run(ingest.clone(), integrations, commit.token()));
    commit.spawn("filter errors", filter_errors::run(ingest.clone(), filter_errors, commit.token()));
    commit.spawn("minutes of traffic", traffic::close_minutes(closing, commit.token()));
    commit.spawn("database", watch_database(watched, commit.token()));
    commit.spawn("maintenance", maintenance.run(commit.token()));
    commit.spawn("removals", removals.run(commit.token()));
    commit.spawn("replays", feeder.run(commit.token()));
    publish.spawn("publish", publish_task.run(publish.token()));
    // After everything that was committed is counted.
    publish.spawn("traffic", traffic::run(ingest, traffic, publish.token()));
    dispatch.spawn("dispatch", dispatcher.run(dispatch.token()));
    Ok(vec![incoming, commit, publish, dispatch])
}

/// Returns all routes of the public port but those of webhooks.
fn router(
    health_state: Arc<Health>,
    management: Option<ManagementState>,
    environment: Environment,
) -> serde_json::Result<Router> {
    let delivery_sink = environment == Environment::Development;
    let served = Served { webhooks: true, managed: management.is_some(), delivery_sink };
    let routes = Router::new()
        .route("/health", get(health).with_state(health_state))
        .method_not_allowed_fallback(fallback::method_not_allowed);
    let routes = match management {
        Some(management) => management::router(management).merge(routes),
        None if delivery_sink => management::delivery_sink().merge(routes).fallback(fallback::not_found),
        None => routes.fallback(fallback::not_found),
    };
    let router = Router::new()
        .route("/openapi.json", get(openapi_document(served)?))
        .nest("/api/v1", routes)
        .method_not_allowed_fallback(fallback::method_not_allowed)
        .fallback(fallback::not_found);
    Ok(router)
}
