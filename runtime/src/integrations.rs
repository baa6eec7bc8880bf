//! The integrations as the data plane sees them: read from PostgreSQL, compiled once, swapped as a whole.
//!
//! A reader never waits and never sees half a change. A row that cannot be compiled (a key is missing, a preset is
//! unknown) keeps its last good form and says why; without one, it serves nothing. A changed row notifies, and all rows
//! are read again now and then, so a lost notification only delays.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use grapnel_crds::{Backoff, FieldError, IntegrationSpec, IntegrationState};
use sqlx::postgres::{PgListener, PgPool};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::deliver::{Target, TargetError};
use crate::ingress::verify::SchemeError;
use crate::provider::{Compiled, ProviderError};
use crate::retry::{self, RetryPolicy};
use crate::sealing::SealingKeys;
use crate::secret_uses::Uses;
use crate::secrets::{Secrets, SecretsError};
use crate::standard_webhooks::{SigningKey, SigningKeyError};
use crate::store;
use crate::store::integrations::{self as rows, IntegrationRow};

/// How often all rows are read again without a notification.
const POLL: Duration = Duration::from_secs(10);

/// How soon a failed read is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// After a read this many times as long passes before the next one, so that a thousand objects that are applied at once do
/// not have all rows read a thousand times.
const REST_AFTER_READ: u32 = 4;

/// An integration, ready to verify and deliver.
#[derive(Debug)]
pub struct Integration {
    pub row: IntegrationRow,
    pub state: IntegrationState,
    /// Its object is being deleted: webhooks are refused, and what was accepted is still delivered.
    pub draining: bool,
    pub max_body_bytes: usize,
    /// `None`: the platform's limit; 0: no limit.
    pub rate_limit_per_minute: Option<u32>,
    pub provider: Arc<str>,
    /// How its webhooks are verified, answered and read.
    pub compiled: Compiled,
    /// Which of its secrets prove webhooks.
    pub uses: Uses,
    pub destinations: Vec<Arc<Destination>>,
    /// The names of `destinations`, as events are stored with them.
    pub destination_names: Arc<[Arc<str>]>,
}

#[derive(Debug)]
pub struct Destination {
    pub name: Arc<str>,
    pub target: Target,
    pub timeout: Duration,
    /// Requests in flight from one worker.
    pub max_concurrency: usize,
    pub retry: RetryPolicy,
}

/// Why a row serves nothing.
#[derive(Debug, Error)]
pub enum CompileError {
    #[error("the spec is not of a form that this version knows")]
    Spec(#[source] serde_json::Error),
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error("{0}")]
    UnknownProvider(FieldError),
    /// The verification secrets are no keys for the provider.
    #[error(transparent)]
    Verification(SchemeError),
    #[error(transparent)]
    Provider(ProviderError),
    #[error("the signing secret of destination {destination} cannot be used")]
    Signing {
        destination: String,
        #[source]
        source: SigningKeyError,
    },
    #[error("destination {destination} cannot be used")]
    Destination {
        destination: String,
        #[source]
        source: TargetError,
    },
}

impl From<ProviderError> for CompileError {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::Unknown(error) => Self::UnknownProvider(error),
            ProviderError::Scheme(error @ (SchemeError::EmptySecret | SchemeError::Key(_))) => {
                Self::Verification(error)
            }
            error => Self::Provider(error),
        }
    }
}

/// The state of a row whose object is being deleted.
pub const DRAINING: &str = "Draining";

impl Integration {
    /// What a row comes to. The controller compiles a row before it writes it, so that what is written can be served.
    pub fn compile(row: IntegrationRow, keys: &SealingKeys) -> Result<Self, CompileError> {
        let spec: IntegrationSpec = serde_json::from_str(&row.spec).map_err(CompileError::Spec)?;
        let secrets = Secrets::open(keys, row.id, &row.secrets)?;
        let compiled = Compiled::new(&spec, &secrets.verification()?)?;
        let destinations: Vec<_> = spec
            .destinations
            .iter()
            .map(|destination| compile_destination(destination, &row.provider, &secrets).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            state: spec.state,
            draining: row.state == DRAINING,
            max_body_bytes: usize::try_from(spec.ingress.max_body_bytes).unwrap_or(0),
            rate_limit_per_minute: spec
                .ingress
                .rate_limit_per_minute
                .map(|limit| u32::try_from(limit).unwrap_or(0)),
            provider: row.provider.as_str().into(),
            compiled,
            uses: Uses::new(&spec.verification),
            destination_names: destinations.iter().map(|destination| Arc::clone(&destination.name)).collect(),
            destinations,
            row,
        })
    }

    /// Whether webhooks are accepted.
    pub fn accepts(&self) -> bool {
        self.state != IntegrationState::Disabled && !self.draining
    }

    pub fn destination(&self, name: &str) -> Option<&Arc<Destination>> {
        self.destinations.iter().find(|destination| &*destination.name == name)
    }
}

fn compile_destination(
    spec: &grapnel_crds::Destination,
    provider: &str,
    secrets: &Secrets,
) -> Result<Destination, CompileError> {
    let signing = |source| CompileError::Signing { destination: spec.name.clone(), source };
    let mut signing_keys = Vec::new();
    for secret in secrets.signing(&spec.name)? {
        let text = std::str::from_utf8(&secret).map_err(|_| signing(SigningKeyError::Base64))?;
        signing_keys.push(SigningKey::parse(text).map_err(signing)?);
    }
    let target = Target::new(&spec.url, spec.timeout(), provider, signing_keys)
        .map_err(|source| CompileError::Destination { destination: spec.name.clone(), source })?;
    Ok(Destination {
        name: spec.name.as_str().into(),
        target,
        timeout: spec.timeout(),
        max_concurrency: spec.concurrency(),
        retry: RetryPolicy {
            max_attempts: spec.retry.attempts(),
            backoff: match spec.retry.backoff {
                Backoff::Exponential => retry::Backoff::Exponential,
                Backoff::Linear => retry::Backoff::Linear,
            },
            initial_delay: spec.retry.initial_delay(),
            max_delay: spec.retry.max_delay(),
            retry_after_max: spec.retry.retry_after_max(),
        },
    })
}

/// All live integrations at one moment.
#[derive(Debug, Default)]
pub struct Integrations {
    by_id: HashMap<Uuid, Arc<Integration>>,
    by_route: HashMap<String, Arc<Integration>>,
}

impl Integrations {
    /// What the rows come to, given what was there before. An unchanged row keeps its compiled form, and a row that
    /// fails keeps its last good one.
    fn next(&self, rows: Vec<IntegrationRow>, keys: &SealingKeys) -> Self {
        let mut next = Self::default();
        for row in rows {
            let (id, before) = (row.id, self.by_id.get(&row.id));
            let compiled = match before {
                Some(before) if before.row == row => Some(Arc::clone(before)),
                _ => match Integration::compile(row, keys) {
                    Ok(integration) => Some(Arc::new(integration)),
                    Err(error) => {
                        tracing::error!(
                            integration.id = %id, error = %crate::telemetry::chain(&error),
                            "integration cannot be used as it is; its last good form stays"
                        );
                        metrics::counter!("grapnel_integration_compile_failures_total").increment(1);
                        before.cloned()
                    }
                },
            };
            if let Some(integration) = compiled {
                next.by_route.insert(integration.row.route.clone(), Arc::clone(&integration));
                next.by_id.insert(id, integration);
            }
        }
        next
    }

    pub fn by_route(&self, route: &str) -> Option<&Arc<Integration>> {
        self.by_route.get(route)
    }

    pub fn get(&self, id: Uuid) -> Option<&Arc<Integration>> {
        self.by_id.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Integration>> {
        self.by_id.values()
    }
}

/// The table that every reader shares.
#[derive(Debug, Clone)]
pub struct Table {
    current: Arc<ArcSwap<Integrations>>,
    changed: watch::Receiver<u64>,
}

impl Table {
    /// The integrations of this moment.
    pub fn load(&self) -> arc_swap::Guard<Arc<Integrations>> {
        self.current.load()
    }

    /// Whether the rows were read at least once. Before that, nobody can say that a route does not exist.
    pub fn is_read(&self) -> bool {
        *self.changed.borrow() != 0
    }

    /// Sees a new number whenever the table was read anew and something in it changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }
}

/// The task's side of a [`Table`].
#[derive(Debug)]
pub struct ReadTask {
    pool: PgPool,
    keys: Arc<SealingKeys>,
    current: Arc<ArcSwap<Integrations>>,
    changed: watch::Sender<u64>,
}

/// An empty table and the task that fills it and keeps it current.
pub fn table(pool: PgPool, keys: Arc<SealingKeys>) -> (Table, ReadTask) {
    let current = Arc::new(ArcSwap::default());
    let (sender, changed) = watch::channel(0);
    (Table { current: Arc::clone(&current), changed }, ReadTask { pool, keys, current, changed: sender })
}

impl ReadTask {
    pub async fn run(self, stop: CancellationToken) {
        let mut listener: Option<PgListener> = None;
        loop {
            // Listening begins before the read, so that no change falls in between.
            if listener.is_none() {
                listener = store::bounded(&self.pool, rows::listen(&self.pool))
                    .await
                    .inspect_err(|error| {
                        tracing::warn!(%error, "changes of integrations are not heard, only polled");
                    })
                    .ok();
            }
            let started = Instant::now();
            let wait = match store::bounded(&self.pool, rows::load_all(&self.pool)).await {
                Ok(rows) => {
                    self.swap(rows);
                    POLL
                }
                Err(error) => {
                    tracing::warn!(%error, "integrations cannot be read; the last known ones stay");
                    listener = None;
                    RETRY
                }
            };
            let rested = Instant::now() + started.elapsed() * REST_AFTER_READ;
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
                heard = hear(&mut listener) => if !heard { listener = None },
            }
            // One read serves all changes that are heard until then.
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep_until(rested) => break,
                    heard = hear(&mut listener) => if !heard { listener = None },
                }
            }
        }
    }

    fn swap(&self, rows: Vec<IntegrationRow>) {
        let before = self.current.load();
        let next = before.next(rows, &self.keys);
        let unchanged = next.by_id.len() == before.by_id.len()
            && next.iter().all(|integration| {
                before.get(integration.row.id).is_some_and(|known| Arc::ptr_eq(known, integration))
            });
        // The first read counts as a change even when it finds nothing: readers wait for it.
        if !unchanged || *self.changed.borrow() == 0 {
            metrics::gauge!("grapnel_integrations").set(next.by_id.len() as f64);
            self.current.store(Arc::new(next));
            self.changed.send_modify(|number| *number += 1);
        }
    }
}

/// Returns when a change was notified, or false when the listener is lost. Without one, never.
async fn hear(listener: &mut Option<PgListener>) -> bool {
    match listener {
        Some(listening) => listening.recv().await.is_ok(),
        None => std::future::pending().await,
    }
}
