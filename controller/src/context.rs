//! What every step works with: the connections, the caches, the right to write, and what is remembered of each object.
//!
//! Every call to a backend has a deadline, and every write asks first whether this process still leads.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grapnel::queue::Link;
use grapnel::sealing::SealingKeys;
use grapnel::store::{epoch, migrate};
use grapnel_crds::{Integration, IntegrationStatus, ScalingDecision, UnusedSecret};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::{ObjectRef, Store};
use sqlx::postgres::PgPool;
use tokio::sync::{OnceCell, mpsc};
use tokio::time::{Instant, timeout};
use url::Url;
use uuid::Uuid;

use crate::config::WorkerPod;
use crate::lease::Lead;
use crate::scale::decide::Decision;
use crate::scale::history::History;
use crate::status::Active;
use crate::watch::namespaces::Namespaces;

/// An Integration as it is watched. An object that cannot be decoded does not hide the others.
pub type Watched = DeserializeGuard<Integration>;

/// The API server answers within this.
pub const API_DEADLINE: Duration = Duration::from_secs(10);

/// PostgreSQL answers within this.
const DATABASE_DEADLINE: Duration = Duration::from_secs(10);

/// The field manager of everything but the number of workers.
pub const MANAGER: &str = "grapnel-controller";

/// What the steps are configured with.
#[derive(Debug)]
pub struct Settings {
    /// Where Integrations are watched.
    pub watched: Namespaces,
    /// The platform's own.
    pub namespace: String,
    pub worker_pod: WorkerPod,
    pub max_workers: i32,
    pub public_url: Option<Url>,
    pub queue_prefix: String,
}

pub struct Context {
    pub client: Client,
    pub pool: PgPool,
    pub link: Link,
    pub keys: SealingKeys,
    pub lead: Lead,
    pub settings: Settings,
    pub integrations: Store<Watched>,
    pub deployments: Store<Deployment>,
    pub recorder: Recorder,
    /// Objects to reconcile soon.
    pub triggers: mpsc::Sender<ObjectRef<Watched>>,
    /// Whether the last reading of the backlogs succeeded.
    pub backlog_is_readable: AtomicBool,
    /// The clock of everything that is remembered.
    pub started: Instant,
    memory: Mutex<HashMap<Uuid, Memory>>,
    taken_over: OnceCell<()>,
}

/// What is remembered of one object until the process ends. None of it is needed to be right.
#[derive(Debug, Default)]
pub struct Memory {
    /// Failures in a row.
    pub failures: u32,
    /// The version of the object that was reconciled last.
    pub reconciled: Option<String>,
    /// What the row was last seen to be made of.
    pub registered: Option<Registration>,
    /// Changes of a Secret that the object refers to.
    pub secret_changes: u64,
    /// Absent before the first look.
    pub secrets: Option<SecretsMemory>,
    pub reported: Option<Reported>,
    /// Queues that were declared, and seen ever since.
    pub declared: BTreeSet<String>,
    pub scale: ScaleMemory,
}

/// What the last look at all verification secrets found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretsMemory {
    /// Whether one that a handshake captured is not in its Secret yet.
    pub capture_waits: bool,
    pub unused: Vec<UnusedSecret>,
}

/// What a row was made of when it was last compared. While none of it changes, there is nothing to compare again.
#[derive(Debug, Clone, Copy)]
pub struct Registration {
    pub generation: Option<i64>,
    /// [`Memory::secret_changes`] before the Secrets were read.
    pub secret_changes: u64,
    /// By the clock of [`Context::started`].
    pub at: Duration,
}

/// A status that was written, and the versions of the object that it replaced: when the cache still shows one of those,
/// it is behind.
#[derive(Debug, Clone)]
pub struct Reported {
    pub status: IntegrationStatus,
    pub replaced: Vec<String>,
}

/// What the scaler came to last.
#[derive(Debug, Default)]
pub struct ScaleMemory {
    pub history: History,
    /// Absent before the first tick.
    pub decision: Option<Decision>,
    pub last_change: Option<ScalingDecision>,
    /// Since when the backlog could not be read, by the clock of [`Context::started`].
    pub unknown_since: Option<Duration>,
    pub active: Option<Active>,
}

/// Why a step could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("the API server")]
    Api(#[from] kube::Error),
    #[error("PostgreSQL")]
    Database(#[from] sqlx::Error),
    #[error("PostgreSQL is not usable")]
    Schema(#[source] SchemaError),
    #[error("RabbitMQ")]
    Queue(#[from] grapnel::queue::QueueError),
    #[error("{0} did not answer in time")]
    TimedOut(&'static str),
    #[error("{0} cannot be used")]
    Unavailable(&'static str),
    #[error("this process does not lead any more")]
    NotLeading,
    #[error("a newer leader was here")]
    Superseded,
}

/// The schema is older than this program.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(String);

impl CallError {
    /// A bounded word for metrics.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Api(kube::Error::Api(status)) if status.code == 409 => "conflict",
            Self::Api(kube::Error::Api(_)) => "api_refused",
            Self::Api(_) => "api_unavailable",
            Self::Database(_) | Self::Schema(_) => "database",
            Self::Queue(_) | Self::Unavailable(_) => "queue",
            Self::TimedOut(_) => "timeout",
            Self::NotLeading | Self::Superseded => "not_leading",
        }
    }
}

/// The parts that a [`Context`] is made of.
pub struct Parts {
    pub client: Client,
    pub pool: PgPool,
    pub link: Link,
    pub keys: SealingKeys,
    pub lead: Lead,
    pub settings: Settings,
    pub integrations: Store<Watched>,
    pub deployments: Store<Deployment>,
    pub recorder: Recorder,
    pub triggers: mpsc::Sender<ObjectRef<Watched>>,
}

impl Context {
    pub fn new(parts: Parts) -> Self {
        let Parts { client, pool, link, keys, lead, settings, integrations, deployments, recorder, triggers } =
            parts;
        Self {
            client,
            pool,
            link,
            keys,
            lead,
            settings,
            integrations,
            deployments,
            recorder,
            triggers,
            backlog_is_readable: AtomicBool::new(false),
            started: Instant::now(),
            memory: Mutex::default(),
            taken_over: OnceCell::new(),
        }
    }

    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Refuses unless this process still leads. To be asked right before every write.
    pub fn leading(&self) -> Result<(), CallError> {
        if self.lead.is_held() { Ok(()) } else { Err(CallError::NotLeading) }
    }

    /// A call of the API server.
    pub async fn api<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
        Ok(timeout(API_DEADLINE, call).await.map_err(|_| CallError::TimedOut("the API server"))??)
    }

    /// A statement. Before the first one, the rows are taken over from the leader before.
    pub async fn database<T>(&self, call: impl Future<Output = sqlx::Result<T>>) -> Result<T, CallError> {
        self.taken_over.get_or_try_init(|| self.take_over()).await?;
        self.leading()?;
        within_database_deadline(call).await
    }

    async fn take_over(&self) -> Result<(), CallError> {
        self.leading()?;
        let schema = timeout(DATABASE_DEADLINE, migrate::require(&self.pool));
        schema
            .await
            .map_err(|_| CallError::TimedOut("PostgreSQL"))?
            .map_err(|error| CallError::Schema(SchemaError(grapnel::telemetry::chain(&*error))))?;
        let newest = within_database_deadline(epoch::take_over(&self.pool, self.lead.epoch)).await?;
        if newest { Ok(()) } else { Err(CallError::Superseded) }
    }

    pub fn deployments_api(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.settings.namespace)
    }

    pub fn integrations_api(&self, namespace: &str) -> Api<Integration> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The worker Deployment in the cache.
    pub fn cached_deployment(&self, name: &str) -> Option<std::sync::Arc<Deployment>> {
        self.deployments.get(&ObjectRef::new(name).within(&self.settings.namespace))
    }

    /// What is remembered of an object. Never held across a wait.
    pub fn with_memory<T>(&self, id: Uuid, use_it: impl FnOnce(&mut Memory) -> T) -> T {
        use_it(self.memory().entry(id).or_default())
    }

    pub fn forget(&self, id: Uuid) {
        self.memory().remove(&id);
    }

    /// Forgets all objects but these.
    pub fn remember_only(&self, ids: &BTreeSet<Uuid>) {
        self.memory().retain(|id, _| ids.contains(id));
    }

    /// Objects that failed and wait to be tried again.
    pub fn in_backoff(&self) -> usize {
        self.memory().values().filter(|memory| memory.failures > 0).count()
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<Uuid, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for an object to be reconciled. When there is no room, the sweep finds it.
    pub fn trigger(&self, object: ObjectRef<Watched>) {
        if self.triggers.try_send(object).is_err() {
            tracing::debug!("a trigger was dropped; the sweep makes up for it");
        }
    }
}

async fn within_database_deadline<T>(call: impl Future<Output = sqlx::Result<T>>) -> Result<T, CallError> {
    Ok(timeout(DATABASE_DEADLINE, call).await.map_err(|_| CallError::TimedOut("PostgreSQL"))??)
}
