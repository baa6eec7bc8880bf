//! `grapnel manage`: the management port, for operators. It accepts no webhooks and delivers nothing.
//!
//! It has no key of sealed secrets, and needs no RabbitMQ: a replay is committed, and a dispatcher of some api finds it. Of Redis it
//! reads the refused webhooks, and goes without where there is none. It alone may ask the API server of the cluster who has a token and what its owner may do.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::handler::Handler;
use axum::routing::get;
use bytes::Bytes;
use grapnel_platform::args::{CommonArgs, ConfigError, DatabaseArgs, QueuePrefixArgs};
use grapnel_platform::http_server::PortBounds;
use grapnel_platform::ops_server::{ProcessHealth, bind, ops_stage, start_metrics};
use grapnel_platform::shutdown::{Stage, stop_signal, supervise};
use grapnel_store::Database;
use http::header;
use ipnet::IpNet;
use tokio::net::TcpListener;

use super::{READ_ONLY, wait_for_schema, watch_database};
use crate::args::{ManageArgs, ManagementKeyArgs, PortArgs, RedisArgs};
use crate::console::settings::ConsoleArgs;
use crate::console::{self, ConsoleSettings};
use crate::http::{fallback, server};
use crate::management::health::{Health, health};
use crate::management::openapi::{self, Served};
use crate::management::{
    self, ClusterAccess, Denials, LiveEvents, ManagementKeys, ManagementState, ReplayWaker,
};
use crate::rejections::Rejections;

/// The routes. One request uses one at a time.
const MANAGEMENT_CONNECTIONS: u32 = 6;

/// Health checks, which must not wait for a costly list.
const HEALTH_CONNECTIONS: u32 = 2;

#[derive(Debug, clap::Args)]
pub struct ManageCommand {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    manage: ManageArgs,
    #[command(flatten)]
    keys: ManagementKeyArgs,
    #[command(flatten)]
    port: PortArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    queue: QueuePrefixArgs,
    #[command(flatten)]
    console: ConsoleArgs,
}

/// The configuration of a management port, from the command line or from `dev`.
pub(super) struct ManageConfig {
    keys: ManagementKeys,
    cluster: Option<Arc<ClusterAccess>>,
    rejections: Option<Rejections>,
    queue_prefix: String,
    trusted_proxies: Arc<[IpNet]>,
    port: PortBounds,
    console: Option<ConsoleSettings>,
    /// How long requests in flight may take after the stop signal.
    drain: Duration,
}

impl ManageConfig {
    /// Returns `None` where nobody could be let in: there is no key, tokens of a cluster are not accepted, and the console is not open.
    pub(super) async fn new(
        common: &CommonArgs,
        manage: &ManageArgs,
        keys: ManagementKeys,
        port: &PortArgs,
        redis: &RedisArgs,
        queue_prefix: String,
        console: Option<ConsoleSettings>,
    ) -> anyhow::Result<Option<Self>> {
        let is_open = console.as_ref().is_some_and(ConsoleSettings::is_local);
        if keys.is_empty() && !manage.kubernetes_access && !is_open {
            return Ok(None);
        }
        let cluster =
            if manage.kubernetes_access { Some(Arc::new(ClusterAccess::find().await?)) } else { None };
        let reader = |url| Rejections::reader(&url, &queue_prefix);
        let rejections = redis.optional_redis_url()?.map(reader).transpose()?;
        Ok(Some(Self {
            keys,
            cluster,
            rejections,
            queue_prefix,
            trusted_proxies: port.trusted_proxies(),
            port: port.bounds(),
            console,
            drain: common.shutdown_deadline() / 2,
        }))
    }
}

/// Ready once the schema is current, while PostgreSQL accepts writes. The API server of the cluster is not asked: without it, the
/// key works, and so does who was let in before.
struct ManageHealth {
    schema: Arc<AtomicBool>,
    db: Database,
}

impl ProcessHealth for ManageHealth {
    fn dead(&self) -> Option<String> {
        None
    }

    fn not_ready(&self) -> Option<String> {
        if !self.schema.load(Ordering::Relaxed) {
            return Some("waiting for the database".to_owned());
        }
        self.db.is_read_only().then(|| READ_ONLY.to_owned())
    }
}

/// Serves the management port until the stop signal.
pub async fn run(command: ManageCommand) -> anyhow::Result<()> {
    let ManageCommand { common, manage, keys, port, database, redis, queue, console } = command;
    let queue_prefix = queue.queue_prefix()?;
    let routes = Database::new(&database.database_url()?, "manage", MANAGEMENT_CONNECTIONS)?;
    let work = routes.beside("manage-work", HEALTH_CONNECTIONS);
    let console = console.settings(manage.kubernetes_access)?;
    let keys = keys.management_keys()?;
    let config = ManageConfig::new(&common, &manage, keys, &port, &redis, queue_prefix, console).await?;
    let config = config.ok_or_else(|| ConfigError::Invalid {
        name: "MANAGEMENT_API_KEY",
        reason: "is required unless GRAPNEL_KUBERNETES_ACCESS is true: nobody could be let in".to_owned(),
    })?;
    let metrics = start_metrics()?;
    let listener = bind(manage.management_addr, "GRAPNEL_MANAGEMENT_ADDR").await?;
    let ops = bind(common.ops_addr, "GRAPNEL_OPS_ADDR").await?;
    let schema = Arc::new(AtomicBool::new(false));
    let health = ManageHealth { schema: Arc::clone(&schema), db: work.clone() };
    let ops = ops_stage(ops, Arc::new(health), metrics);
    // One listener from here to the end: a signal between two of them would be lost.
    let mut stop = pin!(stop_signal());
    tokio::select! {
        biased; // the first poll registers the listener
        stopped = &mut stop => return stopped,
        () = wait_for_schema(&work) => {}
    }
    schema.store(true, Ordering::Relaxed);
    tracing::info!(address = %listener.local_addr()?, "serving the management routes");
    let served = serve(config, routes, &work, ReplayWaker::default(), listener)?;
    let mut watched = Stage::default();
    watched.spawn("database", watch_database(work, watched.token()));
    supervise(vec![served, watched, ops], common.shutdown_deadline(), stop).await
}

/// Returns the management port.
pub(super) fn serve(
    config: ManageConfig,
    routes: Database,
    work: &Database,
    replays: ReplayWaker,
    listener: TcpListener,
) -> anyhow::Result<Stage> {
    let mut stage = Stage::default();
    let state = ManagementState {
        live: LiveEvents::new(routes.clone(), stage.token()),
        db: routes,
        keys: config.keys,
        cluster: config.cluster,
        trusted_proxies: config.trusted_proxies,
        denials: Denials::default(),
        delivery_sink: false,
        replays,
        rejections: config.rejections,
        queue_prefix: config.queue_prefix,
    };
    let console = config.console.map(|settings| console::router(state.clone(), settings));
    let health_state = Arc::new(Health::new(work.clone(), None));
    let public = Router::new()
        .route("/health", get(health).with_state(health_state))
        .method_not_allowed_fallback(fallback::method_not_allowed);
    let served = Served { webhooks: false, managed: true, delivery_sink: false };
    let router = Router::new()
        .route("/openapi.json", get(openapi_document(served)?))
        .nest("/api/v1", management::router(state).merge(public))
        .method_not_allowed_fallback(fallback::method_not_allowed);
    let router = match console {
        Some(console) => {
            let sessions = console::drop_expired_sessions(work.clone(), stage.token());
            stage.spawn("sessions of the console", sessions);
            router.merge(console)
        }
        None => router,
    };
    let router = router.fallback(fallback::not_found);
    let serving = server::serve(listener, config.port, router, stage.token(), config.drain);
    stage.spawn("management port", serving);
    Ok(stage)
}

/// Returns the handler of a port's description, which is written once: requests for it need no credential.
pub(super) fn openapi_document(served: Served) -> serde_json::Result<impl Handler<((),), ()>> {
    let document = Bytes::from(openapi::document(served).to_json()?);
    Ok(move || {
        let answer = ([(header::CONTENT_TYPE, "application/json")], document.clone());
        async move { answer }
    })
}
