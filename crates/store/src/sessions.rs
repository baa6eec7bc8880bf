//! Which sessions of a process are trusted, and how often one gave no answer.
//!
//! A failover can leave a session on a server that only reads: new ones are led to the new primary, and the old ones stay where they
//! are, or keep a default that holds no longer. Each would fail for the rest of its life. So the first one that is found to be
//! read-only ends all that are as old, in every pool of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::watch;

/// Shared by the pools of a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions {
    trust: Arc<watch::Sender<Trust>>,
    unanswered: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Trust {
    is_read_only: bool,
    /// Sessions that began before this are not used again.
    since: Option<Instant>,
}

impl Sessions {
    /// Notes that a session is read-only.
    pub(crate) fn distrust(&self) {
        let mut is_news = false;
        self.trust.send_modify(|trust| {
            is_news = !trust.is_read_only;
            *trust = Trust { is_read_only: true, since: Some(Instant::now()) };
        });
        if is_news {
            tracing::warn!("PostgreSQL accepts no writes; connecting again");
        }
    }

    /// Notes that a session that is trusted can write.
    pub(crate) fn confirm(&self) {
        let confirmed = self.trust.send_if_modified(|trust| std::mem::take(&mut trust.is_read_only));
        if confirmed {
            tracing::info!("PostgreSQL accepts writes again");
        }
    }

    /// Returns whether the last session that was looked at is read-only.
    pub(crate) fn are_read_only(&self) -> bool {
        self.trust.borrow().is_read_only
    }

    /// Returns whether a session that began at this time may be used.
    pub(crate) fn are_trusted_since(&self, began: Instant) -> bool {
        self.trust.borrow().since.is_none_or(|since| since < began)
    }

    /// Notes that a session gave no answer: what it was asked to write may be written all the same.
    pub(crate) fn note_unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how often a session gave no answer.
    pub(crate) fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Returns when a session that began at this time may not be used any longer.
    pub(crate) async fn until_distrusted(&self, began: Instant) {
        let mut changes = self.trust.subscribe();
        // The sender is in `self`, so the wait ends only with the condition.
        let _never_closed = changes.wait_for(|trust| trust.since.is_some_and(|since| since >= began)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn sessions_that_are_as_old_as_a_read_only_one_end() {
        let sessions = Sessions::default();
        let began = Instant::now();
        assert!(sessions.are_trusted_since(began) && !sessions.are_read_only());
        sessions.distrust();
        assert!(!sessions.are_trusted_since(began) && sessions.are_read_only());
        sessions.until_distrusted(began).await;
        assert!(sessions.are_trusted_since(Instant::now() + Duration::from_secs(1)));
        sessions.confirm();
        assert!(!sessions.are_read_only());
        assert!(!sessions.are_trusted_since(began), "they stay on the server that only reads");
    }
}
