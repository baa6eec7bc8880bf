//! Which of the dispatchers looks after all queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use grapnel_store::{Database, dispatcher_lease};
use tokio::time::Instant;
use uuid::Uuid;

use grapnel_core::error_chain::chain;

/// A process that was killed is replaced after this time, or after the requeue bound if that is shorter.
const LONGEST: Duration = Duration::from_secs(6);

/// The lease is renewed, or tried, this often while it lasts.
const RENEWALS: u32 = 3;

/// One process has it at a time. Two that both believe to have it only do the same work twice.
#[derive(Debug)]
pub(crate) struct DispatcherLease {
    db: Database,
    holder: Uuid,
    duration: Duration,
    is_held: bool,
    /// The same, for others of this process.
    leads: Arc<AtomicBool>,
    next_renewal: Instant,
}

impl DispatcherLease {
    pub(crate) fn new(db: Database, requeue_after: Duration) -> Self {
        let duration = requeue_after.min(LONGEST);
        Self {
            db,
            holder: Uuid::now_v7(),
            duration,
            is_held: false,
            leads: Arc::default(),
            next_renewal: Instant::now(),
        }
    }

    /// Follows whether this process has the lease, as far as it knows.
    pub(crate) fn leads(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.leads)
    }

    /// Returns whether this process has the lease. Takes or renews it when it is time.
    pub(super) async fn is_held(&mut self) -> bool {
        if Instant::now() >= self.next_renewal {
            self.next_renewal = Instant::now() + self.duration / RENEWALS;
            self.is_held = dispatcher_lease::hold(&self.db, self.holder, self.duration)
                .await
                .inspect_err(|error| {
                    tracing::warn!(error = %chain(error), "the lease of the dispatcher cannot be renewed");
                })
                .unwrap_or(false);
            self.leads.store(self.is_held, Ordering::Release);
        }
        self.is_held
    }

    /// Lets another process take it at once.
    pub(super) async fn give_up(&self) {
        self.leads.store(false, Ordering::Release);
        if self.is_held
            && let Err(error) = dispatcher_lease::release(&self.db, self.holder).await
        {
            tracing::debug!(error = %chain(&error), "the lease of the dispatcher ends by itself");
        }
    }
}
