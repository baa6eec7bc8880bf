//! `grapnel-controller run`: waits for the custom resource, waits to become the leader, and then reconciles and scales.
//!
//! A replica that waits does nothing else; one that loses the leadership exits, and waits again after its restart.
//! Writers stop before the Lease is released, and the operations port closes last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use grapnel_platform::ops_server::{ProcessHealth, bind, ops_stage, start_metrics};
use grapnel_platform::queue::QueueConnection;

use grapnel_core::sealing::SealingKeys;
use grapnel_platform::shutdown::{Stage, stop_signal, supervise};
use grapnel_store::Database;
use grapnel_store::integrations::epoch;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use kube::client::ClientBuilder;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector;
use kube::{Client, Config};
use tokio::sync::{OnceCell, mpsc};
use tokio::time::{Instant, timeout};

use crate::config::{RunArgs, WorkerPod};
use crate::context::{Context, MANAGER, Settings};
use crate::crd_wait::wait_for_crd;
use crate::lease::{Elector, Identity, Leadership, LeaseEnd};
use crate::memory::Memory;
use crate::metrics;
use crate::namespace_limits::NamespaceLimits;
use crate::namespaces::WatchedNamespaces;
use crate::object::wait_until_filled;
use crate::queues::readings::ManagementApi;
use crate::replays;
use crate::scaler;
use crate::services::Services;
use crate::services::datastores::Datastores;
use crate::status_copies;
use crate::watch::{self, filter_errors, followed_services, sweep, verification_secrets};

/// Triggers that may wait; the sweep finds those that do not fit.
const TRIGGERS: usize = 8192;

/// Fewer than the concurrent passes, which do not need a connection each.
const DATABASE_CONNECTIONS: u32 = 8;

/// Reading the highest epoch of the database is optional: it must not delay the election.
const FLOOR_DEADLINE: Duration = Duration::from_secs(3);

/// The state of the process that the operations port reports.
#[derive(Debug, Default)]
struct ProbeState {
    crd_is_installed: AtomicBool,
    is_leader: AtomicBool,
    is_synced: AtomicBool,
}

impl ProcessHealth for ProbeState {
    fn dead(&self) -> Option<String> {
        None
    }

    /// A replica that waits to become the leader is ready, so that a rollout can proceed.
    fn not_ready(&self) -> Option<String> {
        if !self.crd_is_installed.load(Ordering::Relaxed) {
            return Some("the custom resource integrations.grapnel.dev is not installed".to_owned());
        }
        let waits_for_caches =
            self.is_leader.load(Ordering::Relaxed) && !self.is_synced.load(Ordering::Relaxed);
        waits_for_caches.then(|| "the caches are not filled yet".to_owned())
    }
}

/// Everything that exists before the first connection.
struct Dependencies {
    settings: Settings,
    management: ManagementApi,
    link: QueueConnection,
    db: Database,
    keys: SealingKeys,
    client: Client,
    services: Services,
}

/// Runs until a signal, or until the Lease is lost.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let dependencies = prepare(&args).await?;
    let handle = start_metrics()?;
    let state = Arc::new(ProbeState::default());
    let listener = bind(args.common.ops_addr, "GRAPNEL_OPS_ADDR").await?;
    let ops = ops_stage(listener, Arc::clone(&state) as Arc<dyn ProcessHealth>, handle);
    let namespace = &dependencies.settings.namespace;
    let leases: Api<Lease> = Api::namespaced(dependencies.client.clone(), namespace);
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| MANAGER.to_owned());
    let elector = Elector::new(leases, &args.lease_name, Identity::new(&host, args.pod_uid.as_deref()));
    metrics::leading(false);
    let (leadership, lease) = tokio::select! {
        stopped = stop_signal() => return stopped,
        acquired = acquire_lease(&dependencies, &state, &elector) => acquired,
    };
    tracing::info!(epoch = leadership.epoch, "leading");
    metrics::leading(true);
    state.is_leader.store(true, Ordering::Relaxed);
    let control = control_stage(dependencies, leadership.clone(), args.concurrency, &state);
    let mut election = Stage::default();
    let token = election.token();
    election.spawn("lease", async move {
        if elector.keep(&leadership, lease, token).await == LeaseEnd::Lost {
            tracing::error!("the Lease was lost; this process exits");
            metrics::leading(false);
        }
    });
    supervise(vec![control, election, ops], args.common.shutdown_deadline(), stop_signal()).await
}

async fn prepare(args: &RunArgs) -> anyhow::Result<Dependencies> {
    let rabbitmq_url = args.queue.rabbitmq_url()?;
    let management_url = args.management.management_url()?;
    let management = ManagementApi::new(&management_url, &rabbitmq_url)?;
    let keys = args.sealing.sealing_keys(args.common.environment)?;
    let database_url = args.database.database_url()?;
    let db = Database::new(&database_url, "controller", DATABASE_CONNECTIONS)?;
    let datastores = Datastores::new([&database_url, &rabbitmq_url, &management_url]);
    let worker_pod = WorkerPod::read(&args.worker_pod_file)?;
    let config = Config::infer().await.context("find the API server")?;
    let settings = Settings {
        watched: WatchedNamespaces::new(args.watch_namespaces.iter().cloned()),
        namespace: args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone()),
        worker_pod,
        max_workers: args.max_workers,
        namespace_limits: NamespaceLimits {
            integrations: usize::try_from(args.max_integrations_per_namespace).unwrap_or(usize::MAX),
            workers: args.max_workers_per_namespace,
        },
        max_retention_days: args.max_retention_days,
        public_url: args.public_url.clone(),
        queue_prefix: args.queue.queue_prefix()?,
    };
    let client = ClientBuilder::try_from(config)
        .context("create a client of the API server")?
        .with_layer(&metrics::RequestCountLayer);
    let link = QueueConnection::new(rabbitmq_url, MANAGER);
    let services = Services::new(&settings.namespace, datastores);
    Ok(Dependencies { settings, management, link, db, keys, client: client.build(), services })
}

async fn acquire_lease(
    dependencies: &Dependencies,
    state: &ProbeState,
    elector: &Elector,
) -> (Leadership, Lease) {
    wait_for_crd(&dependencies.client, &dependencies.settings.watched).await;
    state.crd_is_installed.store(true, Ordering::Relaxed);
    elector
        .acquire(async || match timeout(FLOOR_DEADLINE, epoch::highest(&dependencies.db)).await {
            Ok(Ok(highest)) => highest,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot read the highest epoch of the database");
                0
            }
            Err(_) => 0,
        })
        .await
}

/// Starts every task that writes.
fn control_stage(
    dependencies: Dependencies,
    leadership: Leadership,
    concurrency: u16,
    state: &Arc<ProbeState>,
) -> Stage {
    let Dependencies { settings, management, link, db, keys, client, services } = dependencies;
    let (integrations, integrations_writer) = reflector::store();
    let (deployments, deployments_writer) = reflector::store();
    let (triggers, triggered) = mpsc::channel(TRIGGERS);
    let reporter = Reporter { controller: MANAGER.to_owned(), instance: None };
    let ctx = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        db,
        link,
        keys,
        leadership,
        settings,
        integrations,
        deployments,
        services,
        triggers: triggers.clone(),
        memory: Memory::default(),
        backlog_is_readable: AtomicBool::new(false),
        started: Instant::now(),
        takeover: OnceCell::new(),
    });
    let mut stage = Stage::default();
    let token = stage.token();
    stage.spawn(
        "worker Deployments",
        watch::watch_deployments(ctx.deployments_api(), deployments_writer, triggers.clone(), token.clone()),
    );
    stage.spawn("Secrets", watch::watch_secrets(Arc::clone(&ctx), triggers, token.clone()));
    let (reconciler, reconciler_token) = (Arc::clone(&ctx), token.clone());
    stage.spawn("reconciler", async move {
        // Without its Deployment in the cache, each object would cause a request of its own.
        if reconciler_token.run_until_cancelled(wait_until_filled(&reconciler.deployments)).await.is_some() {
            Box::pin(watch::reconcile_all(
                reconciler,
                integrations_writer,
                triggered,
                concurrency,
                reconciler_token,
            ))
            .await;
        }
    });
    let (scaler_ctx, state, scaler_token) = (Arc::clone(&ctx), Arc::clone(state), token.clone());
    stage.spawn("scaler", async move {
        let filled = async {
            wait_until_filled(&scaler_ctx.integrations).await;
            wait_until_filled(&scaler_ctx.deployments).await;
        };
        if scaler_token.run_until_cancelled(filled).await.is_some() {
            state.is_synced.store(true, Ordering::Relaxed);
            tracing::info!("caches are filled");
            scaler::run(scaler_ctx, management, scaler_token).await;
        }
    });
    stage.spawn("verification secrets", verification_secrets::run(Arc::clone(&ctx), token.clone()));
    stage.spawn("Services", followed_services::run(Arc::clone(&ctx), token.clone()));
    stage.spawn("filter errors", filter_errors::run(Arc::clone(&ctx), token.clone()));
    stage.spawn("status copies", status_copies::run(Arc::clone(&ctx), token.clone()));
    stage.spawn("Replays", replays::run(Arc::clone(&ctx), token.clone()));
    stage.spawn("sweep", sweep::run(ctx, token));
    stage
}
