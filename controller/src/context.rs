//! The environment of every step: the connections, the caches, the right to write, and the memory of each object.
//!
//! Every call to a backend has a deadline, and every write checks first that this process is still the leader.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_core::sealing::SealingKeys;
use grapnel_crds::Integration;
use grapnel_platform::queue::QueueConnection;
use grapnel_store::integrations::epoch;
use grapnel_store::{Database, migrate};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource};
use tokio::sync::{OnceCell, mpsc};
use tokio::time::{Instant, timeout};
use url::Url;

use crate::config::WorkerPod;
use crate::error::{CallError, SchemaError};
use crate::lease::Leadership;
use crate::memory::Memory;
use crate::namespace_limits::NamespaceLimits;
use crate::namespaces::WatchedNamespaces;
use crate::object::WatchedObject;
use crate::services::Services;

/// The API server must answer within this.
pub const API_DEADLINE: Duration = Duration::from_secs(10);

/// The check of the schema must end within this. Every other use of the database has a deadline of its own.
const DATABASE_DEADLINE: Duration = Duration::from_secs(10);

/// The field manager of everything except the number of workers.
pub const MANAGER: &str = "grapnel-controller";

/// The configuration of the steps.
#[derive(Debug)]
pub struct Settings {
    /// Where Integrations are watched.
    pub watched: WatchedNamespaces,
    /// The platform's own.
    pub namespace: String,
    pub worker_pod: WorkerPod,
    pub max_workers: i32,
    pub namespace_limits: NamespaceLimits,
    /// The platform's bound of every retention.
    pub max_retention_days: i32,
    pub public_url: Option<Url>,
    pub queue_prefix: String,
}

pub struct Context {
    pub client: Client,
    pub db: Database,
    pub link: QueueConnection,
    pub keys: SealingKeys,
    pub leadership: Leadership,
    pub settings: Settings,
    pub integrations: Store<WatchedObject>,
    pub deployments: Store<Deployment>,
    pub services: Services,
    pub recorder: Recorder,
    /// Objects to reconcile soon.
    pub triggers: mpsc::Sender<ObjectRef<WatchedObject>>,
    pub memory: Memory,
    /// Whether the last reading of the backlogs succeeded.
    pub backlog_is_readable: AtomicBool,
    /// When the clock of the process started.
    pub started: Instant,
    /// Set by the first statement, which takes the rows over from the previous leader.
    pub takeover: OnceCell<()>,
}

impl Context {
    /// Returns the time by the clock of the process, which neither jumps nor runs backwards.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Fails unless this process is still the leader. To be called right before every write.
    pub fn ensure_leading(&self) -> Result<(), CallError> {
        if self.leadership.is_held() { Ok(()) } else { Err(CallError::NotLeading) }
    }

    /// Awaits a call of the API server.
    pub async fn api<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
        Ok(timeout(API_DEADLINE, call).await.map_err(|_| CallError::TimedOut("the API server"))??)
    }

    /// Awaits a statement. Before the first one, takes the rows over from the previous leader.
    pub async fn database<T>(
        &self,
        call: impl Future<Output = grapnel_store::Result<T>>,
    ) -> Result<T, CallError> {
        self.takeover.get_or_try_init(|| self.take_over()).await?;
        self.ensure_leading()?;
        Ok(call.await?)
    }

    async fn take_over(&self) -> Result<(), CallError> {
        self.ensure_leading()?;
        let schema = timeout(DATABASE_DEADLINE, migrate::require(&self.db));
        schema
            .await
            .map_err(|_| CallError::TimedOut("PostgreSQL"))?
            .map_err(|error| CallError::Schema(SchemaError(chain(&*error))))?;
        let newest = epoch::take_over(&self.db, self.leadership.epoch).await?;
        if newest { Ok(()) } else { Err(CallError::Superseded) }
    }

    pub fn deployments_api(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.settings.namespace)
    }

    pub fn integrations_api(&self, namespace: &str) -> Api<Integration> {
        self.objects_api(namespace)
    }

    /// Returns the API of a kind in a namespace.
    pub fn objects_api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Returns a worker Deployment from the cache.
    pub fn cached_deployment(&self, name: &str) -> Option<Arc<Deployment>> {
        self.deployments.get(&ObjectRef::new(name).within(&self.settings.namespace))
    }

    /// Requests a reconcile of an object. When the channel is full, the sweep finds the object later.
    pub fn trigger(&self, object: ObjectRef<WatchedObject>) {
        if self.triggers.try_send(object).is_err() {
            tracing::debug!("dropped a trigger; the sweep makes up for it");
        }
    }
}
