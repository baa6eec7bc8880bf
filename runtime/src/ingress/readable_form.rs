//! The form in which events are stored that are not the whole of their request, that of headers, and the number of hints in a message: what every
//! live worker can read.
//!
//! A worker of before that has no heartbeat does not count: it cannot read the new form of an event either, and leaves it to others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_store::{Database, StoredForm, worker_heartbeats};
use tokio_util::sync::CancellationToken;

/// How often the heartbeats of the workers are read: within one of their beats.
const PERIOD: Duration = Duration::from_secs(5);

/// The forms, shared by those who write and the one who reads them. Unknown, they are those that every version can read.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadableForm {
    is_apart: Arc<AtomicBool>,
    may_share: Arc<AtomicBool>,
    may_pack: Arc<AtomicBool>,
}

impl ReadableForm {
    /// Reads the forms for the first webhooks.
    pub(crate) async fn read(db: &Database) -> Self {
        let form = Self::default();
        form.refresh(db).await;
        form
    }

    pub(crate) fn current(&self) -> StoredForm {
        if self.is_apart.load(Ordering::Relaxed) { StoredForm::Apart } else { StoredForm::Alone }
    }

    /// Whether hints may share a message.
    pub(crate) fn may_share_messages(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.may_share)
    }

    /// Whether the headers of a request can be packed.
    pub(crate) fn may_pack_headers(&self) -> bool {
        self.may_pack.load(Ordering::Relaxed)
    }

    /// Follows the heartbeats until the token is cancelled.
    pub(crate) async fn follow(self, db: Database, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
            self.refresh(&db).await;
        }
    }

    /// Reads the forms. While the database is away nothing is stored either, so the last answer stays.
    async fn refresh(&self, db: &Database) {
        match worker_heartbeats::readable_formats(db).await {
            Ok(formats) => {
                self.is_apart.store(formats.stored_form() == StoredForm::Apart, Ordering::Relaxed);
                self.may_share.store(formats.has_shared_messages(), Ordering::Relaxed);
                self.may_pack.store(formats.has_packed_headers(), Ordering::Relaxed);
            }
            Err(error) => tracing::warn!(error = %chain(&error), "the heartbeats of workers cannot be read"),
        }
    }
}
