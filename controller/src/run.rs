//! `grapnel-controller run`: waits for the custom resource, waits for its turn, and then reconciles and scales.
//!
//! A replica that waits for its turn does nothing else; one that loses its turn ends, and starts anew as one that waits.
//! Writers stop before the Lease is given back, and the operations port is the last to go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use grapnel::health::Probes;
use grapnel::queue::Link;
use grapnel::roles::{bind, ops_stage, start_metrics};
use grapnel::sealing::SealingKeys;
use grapnel::shutdown::{Stage, requested, supervise};
use grapnel::store::{self, epoch};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use kube::client::ClientBuilder;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector;
use kube::{Client, Config};
use sqlx::postgres::PgPool;
use tokio::sync::mpsc;

use crate::config::{RunArgs, WorkerPod};
use crate::context::{Context, MANAGER, Parts, Settings};
use crate::lease::{Elector, Identity, Kept, Lead};
use crate::scale::readings::Management;
use crate::watch::namespaces::Namespaces;
use crate::{crd_wait, metrics, scale, secrets, sweep, watch};

/// Triggers that may wait; what finds no room is found by the sweep.
const TRIGGERS: usize = 8192;

/// A connection for each reconcile under way would be more than they use.
const DATABASE_CONNECTIONS: u32 = 8;

/// The highest epoch in the database is a help and no condition for leading.
const FLOOR_DEADLINE: Duration = Duration::from_secs(3);

/// What the operations port tells of the process.
#[derive(Debug, Default)]
struct State {
    crd_is_there: AtomicBool,
    leads: AtomicBool,
    synced: AtomicBool,
}

impl Probes for State {
    fn dead(&self) -> Option<String> {
        None
    }

    /// A replica that waits for its turn is ready: a rollout must be able to go on.
    fn not_ready(&self) -> Option<String> {
        if !self.crd_is_there.load(Ordering::Relaxed) {
            return Some("the custom resource integrations.grapnel.dev is not there".to_owned());
        }
        let waits_for_caches = self.leads.load(Ordering::Relaxed) && !self.synced.load(Ordering::Relaxed);
        waits_for_caches.then(|| "the caches are not filled yet".to_owned())
    }
}

/// Everything that is known before the first connection.
struct Prepared {
    settings: Settings,
    management: Management,
    link: Link,
    pool: PgPool,
    keys: SealingKeys,
    client: Client,
}

/// Runs until a signal, or until the Lease is lost.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let prepared = prepare(&args).await?;
    let handle = start_metrics()?;
    let state = Arc::new(State::default());
    let listener = bind(args.common.ops_addr, "GRAPNEL_OPS_ADDR").await?;
    let ops = ops_stage(listener, Arc::clone(&state) as Arc<dyn Probes>, handle);
    let namespace = &prepared.settings.namespace;
    let leases: Api<Lease> = Api::namespaced(prepared.client.clone(), namespace);
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| MANAGER.to_owned());
    let elector = Elector::new(leases, &args.lease_name, Identity::new(&host, args.pod_uid.as_deref()));
    metrics::leading(false);
    let (lead, lease) = tokio::select! {
        stopped = requested() => return stopped,
        led = wait_for_turn(&prepared, &state, &elector) => led,
    };
    tracing::info!(epoch = lead.epoch, "leading");
    metrics::leading(true);
    state.leads.store(true, Ordering::Relaxed);
    let control = control_stage(prepared, lead.clone(), args.concurrency, &state);
    let mut turn = Stage::default();
    let token = turn.token();
    turn.spawn("lease", async move {
        if elector.keep(&lead, lease, token).await == Kept::Lost {
            tracing::error!("the Lease was lost; this process ends");
            metrics::leading(false);
        }
    });
    supervise(vec![control, turn, ops], args.common.shutdown_deadline(), requested()).await
}

async fn prepare(args: &RunArgs) -> anyhow::Result<Prepared> {
    let rabbitmq_url = args.queue.rabbitmq_url()?;
    let management = Management::new(&args.management.management_url()?, &rabbitmq_url)?;
    let keys = args.sealing.sealing_keys(args.common.environment)?;
    let pool = store::pool(&args.database.database_url()?, "controller", DATABASE_CONNECTIONS)?;
    let worker_pod = WorkerPod::read(&args.worker_pod_file)?;
    let config = Config::infer().await.context("find the API server")?;
    let settings = Settings {
        watched: Namespaces::new(args.watch_namespaces.iter().cloned()),
        namespace: args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone()),
        worker_pod,
        max_workers: args.max_workers,
        public_url: args.public_url.clone(),
        queue_prefix: args.queue.queue_prefix()?,
    };
    let client = ClientBuilder::try_from(config)
        .context("make a client of the API server")?
        .with_layer(&metrics::CountRequests);
    let link = Link::new(rabbitmq_url, MANAGER);
    Ok(Prepared { settings, management, link, pool, keys, client: client.build() })
}

async fn wait_for_turn(prepared: &Prepared, state: &State, elector: &Elector) -> (Lead, Lease) {
    crd_wait::wait_for_crd(&prepared.client, &prepared.settings.watched).await;
    state.crd_is_there.store(true, Ordering::Relaxed);
    elector
        .acquire(async || match tokio::time::timeout(FLOOR_DEADLINE, epoch::highest(&prepared.pool)).await {
            Ok(Ok(highest)) => highest,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the epoch in the database is not known");
                0
            }
            Err(_) => 0,
        })
        .await
}

/// Everything that writes.
fn control_stage(prepared: Prepared, lead: Lead, concurrency: u16, state: &Arc<State>) -> Stage {
    let Prepared { settings, management, link, pool, keys, client } = prepared;
    let (integrations, integrations_writer) = reflector::store();
    let (deployments, deployments_writer) = reflector::store();
    let (triggers, triggered) = mpsc::channel(TRIGGERS);
    let reporter = Reporter { controller: MANAGER.to_owned(), instance: None };
    let ctx = Arc::new(Context::new(Parts {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        pool,
        link,
        keys,
        lead,
        settings,
        integrations,
        deployments,
        triggers: triggers.clone(),
    }));
    let mut stage = Stage::default();
    let token = stage.token();
    stage.spawn(
        "worker Deployments",
        watch::watch_deployments(ctx.deployments_api(), deployments_writer, triggers.clone(), token.clone()),
    );
    stage.spawn("Secrets", watch::watch_secrets(Arc::clone(&ctx), triggers, token.clone()));
    let (reconciler, reconciler_token) = (Arc::clone(&ctx), token.clone());
    stage.spawn("reconciler", async move {
        // Without its Deployment in the cache, each object would be looked up on its own.
        if reconciler_token.run_until_cancelled(watch::filled(&reconciler.deployments)).await.is_some() {
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
    let (follower, state, follower_token) = (Arc::clone(&ctx), Arc::clone(state), token.clone());
    stage.spawn("scaler", async move {
        let ready = async {
            watch::filled(&follower.integrations).await;
            watch::filled(&follower.deployments).await;
        };
        if follower_token.run_until_cancelled(ready).await.is_some() {
            state.synced.store(true, Ordering::Relaxed);
            tracing::info!("caches are filled");
            scale::tick::run(follower, management, follower_token).await;
        }
    });
    stage.spawn("verification secrets", secrets::run(Arc::clone(&ctx), token.clone()));
    stage.spawn("sweep", sweep::run(ctx, token));
    stage
}
