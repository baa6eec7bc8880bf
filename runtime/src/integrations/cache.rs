//! The integrations as the data plane sees them: read from PostgreSQL, compiled once, swapped as a whole.
//!
//! A reader never waits and never sees half a change. A row that cannot be compiled (a key is missing, a preset is
//! unknown) keeps its last good form and says why; without one, it serves nothing. A changed row notifies, and all rows
//! are read again now and then, so a lost notification only delays.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::{Integration, IntegrationRow};
use grapnel_core::sealing::SealingKeys;
use grapnel_store::Database;
use grapnel_store::integrations as rows;
use grapnel_store::integrations::ChangeListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// How often all rows are read again without a notification.
const POLL: Duration = Duration::from_secs(10);

/// How soon a failed read is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// After a read this many times as long passes before the next one, so that a thousand objects that are applied at once do
/// not have all rows read a thousand times.
const REST_AFTER_READ: u32 = 4;

/// All live integrations at one moment.
#[derive(Debug, Default)]
pub struct Integrations {
    by_id: HashMap<IntegrationId, Arc<Integration>>,
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
                            integration.id = %id, error = %grapnel_core::error_chain::chain(&error),
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

    pub fn get(&self, id: IntegrationId) -> Option<&Arc<Integration>> {
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
    db: Database,
    keys: Arc<SealingKeys>,
    current: Arc<ArcSwap<Integrations>>,
    changed: watch::Sender<u64>,
}

/// An empty table and the task that fills it and keeps it current.
pub fn table(db: Database, keys: Arc<SealingKeys>) -> (Table, ReadTask) {
    let current = Arc::new(ArcSwap::default());
    let (sender, changed) = watch::channel(0);
    (Table { current: Arc::clone(&current), changed }, ReadTask { db, keys, current, changed: sender })
}

impl ReadTask {
    pub async fn run(self, stop: CancellationToken) {
        let mut listener: Option<ChangeListener> = None;
        loop {
            // Listening begins before the read, so that no change falls in between.
            if listener.is_none() {
                listener = rows::listen(&self.db)
                    .await
                    .inspect_err(|error| {
                        tracing::warn!(%error, "changes of integrations are not heard, only polled");
                    })
                    .ok();
            }
            let started = Instant::now();
            let wait = match rows::load_all(&self.db).await {
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
async fn hear(listener: &mut Option<ChangeListener>) -> bool {
    match listener {
        Some(listening) => listening.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}
