//! Caches all integrations: they are read from PostgreSQL, compiled once, and replaced as a whole.
//!
//! A reader never waits and never sees part of a change. For a row that cannot be compiled (a key is missing, a preset is
//! unknown) the error is logged and the last valid version stays in use; without one, the row serves nothing and its route is
//! known to be unusable, which is not the same as unknown: the fault is ours, and passes.
//!
//! A changed row sends a notification, and all rows are read as soon as that is possible without reading them all the time. Whenever
//! notifications may have been missed the rows are read too: listening always begins before a read, and where it fails or ends it is
//! soon begun again. The periodic read is for what nobody foresees.

use std::collections::{HashMap, HashSet};
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

/// How soon a failed read is retried, or an attempt to listen. The latter waits twice as long each time, up to [`POLL`].
const RETRY: Duration = Duration::from_secs(1);

/// The wait before the next read, as a multiple of the last read's duration: a thousand objects that are applied at once
/// must not cause a thousand reads of all rows.
const WAIT_AFTER_READ: u32 = 4;

/// The longest such wait. The first read of a process on a busy machine takes seconds, because it connects, and the first Integration may
/// be applied right after it.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// All live integrations at one time.
#[derive(Debug, Default)]
pub(crate) struct Integrations {
    by_id: HashMap<IntegrationId, Arc<CompiledIntegration>>,
    by_route: HashMap<String, Arc<CompiledIntegration>>,
    /// The rows that cannot be compiled and have no valid version.
    unusable: HashSet<IntegrationId>,
    /// Their routes, as far as they accept webhooks.
    unusable_routes: HashSet<String>,
}

impl Integrations {
    /// Compiles the rows. An unchanged row keeps its compiled form, and a row that fails keeps its last valid one.
    fn next(&self, rows: Vec<IntegrationRow>, keys: &SealingKeys) -> Self {
        let mut next = Self::default();
        for row in rows {
            let (id, before) = (row.id, self.by_id.get(&row.id));
            let (route, accepts) = (row.route.clone(), row.state.accepts());
            let compiled = match before {
                Some(before) if before.row == row => Some(Arc::clone(before)),
                _ => match CompiledIntegration::compile(row, keys) {
                    Ok(integration) => Some(Arc::new(integration)),
                    Err(error) => {
                        tracing::error!(
                            integration.id = %id, error = %chain(&error),
                            "integration cannot be compiled; its last valid version stays in use, if there is one"
                        );
                        metrics::counter!("grapnel_integration_compile_failures_total").increment(1);
                        before.cloned()
                    }
                },
            };
            if let Some(integration) = compiled {
                // By the row's own route: that of an earlier version may be another integration's by now.
                next.by_route.insert(route, Arc::clone(&integration));
                next.by_id.insert(id, integration);
            } else {
                next.unusable.insert(id);
                next.unusable_routes.extend(accepts.then_some(route));
            }
        }
        next
    }

    pub(crate) fn by_route(&self, route: &str) -> Option<&Arc<CompiledIntegration>> {
        self.by_route.get(route)
    }

    /// Returns whether a route belongs to a row that accepts webhooks and cannot be used here.
    pub(crate) fn is_route_unusable(&self, route: &str) -> bool {
        self.unusable_routes.contains(route)
    }

    /// Returns whether a row cannot be used here.
    pub(crate) fn is_unusable(&self, id: IntegrationId) -> bool {
        self.unusable.contains(&id)
    }

    /// Returns how many rows cannot be used here.
    pub(crate) fn unusable(&self) -> usize {
        self.unusable.len()
    }

    /// Returns why nothing can be served although there are rows: most likely this process lacks their sealing key.
    pub(crate) fn why_none_is_usable(&self) -> Option<String> {
        (self.by_id.is_empty() && !self.unusable.is_empty()).then(|| {
            format!(
                "none of the {} integrations can be used; the log says why, most likely a sealing key is missing",
                self.unusable.len()
            )
        })
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
        let mut listen_again = RETRY;
        loop {
            // Listening starts before the read, so that no change is missed in between.
            self.listen(&mut listener).await;
            let started = Instant::now();
            let read = rows::load_all(&self.db).await;
            let next_read = Instant::now() + (started.elapsed() * WAIT_AFTER_READ).min(LONGEST_WAIT);
            let wait = match (read, &listener) {
                (Ok(rows), Some(_)) => {
                    self.replace(rows);
                    listen_again = RETRY;
                    POLL
                }
                (Ok(rows), None) => {
                    self.replace(rows);
                    let next = (listen_again * 2).min(POLL);
                    std::mem::replace(&mut listen_again, next)
                }
                (Err(error), _) => {
                    tracing::warn!(%error, "integrations cannot be read; the last known ones stay in use");
                    listener = None;
                    RETRY
                }
            };
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

    /// Begins to listen, unless there is a listener that still works.
    async fn listen(&self, listener: &mut Option<ChangeListener>) {
        if let Some(listening) = listener
            && let Err(error) = listening.check().await
        {
            tracing::info!(%error, "the connection for notifications of changed integrations is lost");
            *listener = None;
        }
        if listener.is_none() {
            let listening = rows::listen(&self.db).await.inspect_err(|error| {
                tracing::warn!(%error, "no notifications of changed integrations; they are only polled");
            });
            *listener = listening.ok();
        }
    }

    fn replace(&self, rows: Vec<IntegrationRow>) {
        let before = self.current.load();
        let next = before.next(rows, &self.keys);
        metrics::gauge!("grapnel_integrations_unusable").set(next.unusable.len() as f64);
        let unchanged = next.by_id.len() == before.by_id.len()
            && next.unusable == before.unusable
            && next.unusable_routes == before.unusable_routes
            && next.by_route.len() == before.by_route.len()
            && next.by_route.keys().all(|route| before.by_route.contains_key(route))
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
