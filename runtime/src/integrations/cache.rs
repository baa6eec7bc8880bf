//! Caches all integrations: they are read from PostgreSQL, compiled once, and replaced as a whole.
//!
//! A reader never waits and never sees part of a change. For a row that cannot be compiled (a key is missing, a preset is
//! unknown) the error is logged and the last valid version stays in use; without one, the row serves nothing. A changed row
//! sends a notification, and all rows are also read periodically, so a lost notification only causes a delay.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use grapnel_core::error_chain::chain;
use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::{CompiledIntegration, IntegrationRow};
use grapnel_core::sealing::SealingKeys;
use grapnel_store::Database;
use grapnel_store::integrations as rows;
use grapnel_store::integrations::ChangeListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// How often all rows are read without a notification.
const POLL: Duration = Duration::from_secs(10);

/// How soon a failed read is retried.
const RETRY: Duration = Duration::from_secs(1);

/// The wait before the next read, as a multiple of the last read's duration: a thousand objects that are applied at once
/// must not cause a thousand reads of all rows.
const WAIT_AFTER_READ: u32 = 4;

/// All live integrations at one time.
#[derive(Debug, Default)]
pub(crate) struct Integrations {
    by_id: HashMap<IntegrationId, Arc<CompiledIntegration>>,
    by_route: HashMap<String, Arc<CompiledIntegration>>,
}

impl Integrations {
    /// Compiles the rows. An unchanged row keeps its compiled form, and a row that fails keeps its last valid one.
    fn next(&self, rows: Vec<IntegrationRow>, keys: &SealingKeys) -> Self {
        let mut next = Self::default();
        for row in rows {
            let (id, before) = (row.id, self.by_id.get(&row.id));
            let compiled = match before {
                Some(before) if before.row == row => Some(Arc::clone(before)),
                _ => match CompiledIntegration::compile(row, keys) {
                    Ok(integration) => Some(Arc::new(integration)),
                    Err(error) => {
                        tracing::error!(
                            integration.id = %id, error = %chain(&error),
                            "integration cannot be compiled; its last valid version stays in use"
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

    pub(crate) fn by_route(&self, route: &str) -> Option<&Arc<CompiledIntegration>> {
        self.by_route.get(route)
    }

    pub(crate) fn get(&self, id: IntegrationId) -> Option<&Arc<CompiledIntegration>> {
        self.by_id.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<CompiledIntegration>> {
        self.by_id.values()
    }
}

/// A handle to the cache. All clones share it.
#[derive(Debug, Clone)]
pub(crate) struct IntegrationCache {
    current: Arc<ArcSwap<Integrations>>,
    changed: watch::Receiver<u64>,
}

impl IntegrationCache {
    /// Returns the current integrations.
    pub(crate) fn load(&self) -> arc_swap::Guard<Arc<Integrations>> {
        self.current.load()
    }

    /// Returns whether the rows were read at least once. Before that, an unknown route may exist.
    pub(crate) fn is_loaded(&self) -> bool {
        *self.changed.borrow() != 0
    }

    /// Returns a receiver that sees a new number after every read that found a change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }
}

/// The task that reads the rows for an [`IntegrationCache`].
#[derive(Debug)]
pub(crate) struct CacheTask {
    db: Database,
    keys: Arc<SealingKeys>,
    current: Arc<ArcSwap<Integrations>>,
    changed: watch::Sender<u64>,
}

/// Returns an empty cache and the task that fills it and keeps it current.
pub(crate) fn new(db: Database, keys: Arc<SealingKeys>) -> (IntegrationCache, CacheTask) {
    let current = Arc::new(ArcSwap::default());
    let (sender, changed) = watch::channel(0);
    (
        IntegrationCache { current: Arc::clone(&current), changed },
        CacheTask { db, keys, current, changed: sender },
    )
}

impl CacheTask {
    /// Keeps the cache current until the token is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut listener: Option<ChangeListener> = None;
        loop {
            // Listening starts before the read, so that no change is missed in between.
            if listener.is_none() {
                listener = rows::listen(&self.db)
                    .await
                    .inspect_err(|error| {
                        tracing::warn!(%error, "no notifications of changed integrations; they are only polled");
                    })
                    .ok();
            }
            let started = Instant::now();
            let wait = match rows::load_all(&self.db).await {
                Ok(rows) => {
                    self.replace(rows);
                    POLL
                }
                Err(error) => {
                    tracing::warn!(%error, "integrations cannot be read; the last known ones stay in use");
                    listener = None;
                    RETRY
                }
            };
            let next_read = Instant::now() + started.elapsed() * WAIT_AFTER_READ;
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
                notified = wait_for_change(&mut listener) => if !notified { listener = None },
            }
            // One read covers all notifications until then.
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep_until(next_read) => break,
                    notified = wait_for_change(&mut listener) => if !notified { listener = None },
                }
            }
        }
    }

    fn replace(&self, rows: Vec<IntegrationRow>) {
        let before = self.current.load();
        let next = before.next(rows, &self.keys);
        let unchanged = next.by_id.len() == before.by_id.len()
            && next.iter().all(|integration| {
                before.get(integration.row.id).is_some_and(|known| Arc::ptr_eq(known, integration))
            });
        // The first read counts as a change even if it finds nothing: readers wait for it.
        if !unchanged || *self.changed.borrow() == 0 {
            metrics::gauge!("grapnel_integrations").set(next.by_id.len() as f64);
            self.current.store(Arc::new(next));
            self.changed.send_modify(|number| *number += 1);
        }
    }
}

/// Waits for a notification; returns false if the listener is lost. Without a listener, it never returns.
async fn wait_for_change(listener: &mut Option<ChangeListener>) -> bool {
    match listener {
        Some(listener) => listener.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}
