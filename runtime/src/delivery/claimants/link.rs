//! A session or a connection, as far as it is proven.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::LOST_AFTER;

/// What others see end.
#[derive(Debug)]
pub(super) struct Link<T> {
    name: T,
    proven_at: Mutex<Instant>,
}

impl<T> Link<T> {
    /// Returns a link that did not exist before this time.
    pub(super) fn new(name: T, began: Instant) -> Self {
        Self { name, proven_at: Mutex::new(began) }
    }

    /// Returns the name by which others ask for it.
    pub(super) fn name(&self) -> &T {
        &self.name
    }

    /// Notes that it existed at a time or after it: when somebody asked who was answered.
    pub(super) fn prove(&self, asked_at: Instant) {
        *self.proven_at.lock().unwrap_or_else(PoisonError::into_inner) = asked_at;
    }

    /// Returns whether it may have ended so long ago that others act on it.
    pub(super) fn is_lost(&self, now: Instant) -> bool {
        let proven_at = *self.proven_at.lock().unwrap_or_else(PoisonError::into_inner);
        now.saturating_duration_since(proven_at) >= LOST_AFTER
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn link_is_lost_when_no_proof_was_asked_for_lately() {
        let (began, moment) = (Instant::now(), Duration::from_millis(1));
        let link = Link::new("session", began);
        assert!(!link.is_lost(began + LOST_AFTER - moment));
        assert!(link.is_lost(began + LOST_AFTER));
        link.prove(began + LOST_AFTER);
        assert!(!link.is_lost(began + 2 * LOST_AFTER - moment));
        assert!(link.is_lost(began + 2 * LOST_AFTER));
    }
}
