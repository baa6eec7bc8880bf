//! Counts the hints in flight by queue, and hands back those that were not published. Each ends exactly once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use grapnel_core::hint::{Hint, QueueKey};
use thiserror::Error;
use tokio::sync::mpsc;

/// The reason why a hint was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PublishFailure {
    #[error("the channel ended")]
    Disconnected,
    #[error("too many hints wait")]
    NoRoom,
    #[error("RabbitMQ refused the message: the queue is full or unavailable")]
    Refused,
    #[error("RabbitMQ returned the message: the queue is missing")]
    Returned,
    #[error("RabbitMQ did not confirm the message in time")]
    Unconfirmed,
    #[error("a queue with this name exists with other arguments")]
    Mismatch,
    #[error("the queue cannot be declared")]
    NotDeclared,
    #[error("the queue backs off after a failure")]
    BackingOff,
}

impl PublishFailure {
    /// Returns whether the queue is the reason, so that its other hints would fail too.
    pub const fn is_of_queue(self) -> bool {
        !matches!(self, Self::Disconnected | Self::NoRoom)
    }

    /// Returns the value of the label `reason`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::NoRoom => "no_room",
            Self::Refused => "refused",
            Self::Returned => "returned",
            Self::Unconfirmed => "unconfirmed",
            Self::Mismatch => "mismatch",
            Self::NotDeclared => "not_declared",
            Self::BackingOff => "backing_off",
        }
    }
}

/// A hint that was not published.
#[derive(Debug)]
pub struct UnpublishedHint {
    pub hint: Hint,
    pub failure: PublishFailure,
}

/// The hints that are accepted and not settled.
#[derive(Debug, Clone)]
pub(super) struct HintTracker {
    unpublished: mpsc::Sender<UnpublishedHint>,
    /// Queues without a hint in flight are not in the map.
    in_flight: Arc<Mutex<HashMap<QueueKey, usize>>>,
}

impl HintTracker {
    pub(super) fn new(unpublished: mpsc::Sender<UnpublishedHint>) -> Self {
        Self { unpublished, in_flight: Arc::default() }
    }

    /// Passes the hints on. Those for which there is no room are handed back.
    pub(super) fn begin(&self, waiting: &mpsc::Sender<Hint>, hints: impl IntoIterator<Item = Hint>) {
        let mut refused = Vec::new();
        {
            let mut counts = self.counts();
            for hint in hints {
                *counts.entry(hint.queue()).or_default() += 1;
                if let Err(error) = waiting.try_send(hint) {
                    refused.push(error.into_inner());
                }
            }
        }
        for hint in refused {
            self.failed(hint, PublishFailure::NoRoom);
        }
    }

    pub(super) fn in_flight(&self, queue: &QueueKey) -> usize {
        self.counts().get(queue).copied().unwrap_or_default()
    }

    /// Ends a number of hints of a queue that were confirmed.
    pub(super) fn confirmed(&self, queue: &QueueKey, hints: usize) {
        let mut counts = self.counts();
        if let Some(count) = counts.get_mut(queue) {
            *count = count.saturating_sub(hints);
            if *count == 0 {
                counts.remove(queue);
            }
        }
    }

    /// Ends a hint and hands it back.
    pub(super) fn failed(&self, hint: Hint, failure: PublishFailure) {
        self.confirmed(&hint.queue(), 1);
        self.hand_back(hint, failure);
    }

    /// Hands back a hint that has ended or will end.
    pub(super) fn hand_back(&self, hint: Hint, failure: PublishFailure) {
        metrics::counter!("grapnel_queue_publish_failures_total", "reason" => failure.label()).increment(1);
        if self.unpublished.try_send(UnpublishedHint { hint, failure }).is_err() {
            metrics::counter!("grapnel_queue_hints_forgotten_total").increment(1);
        }
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<QueueKey, usize>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use grapnel_core::ids::{EventId, IntegrationId};

    use super::*;

    fn hint(destination: &str) -> Hint {
        Hint {
            integration_id: IntegrationId::new(uuid::Uuid::nil()),
            destination: destination.into(),
            event_id: EventId::generate(),
        }
    }

    #[tokio::test]
    async fn hints_are_counted_by_queue_and_each_ends_once() {
        let (unpublished, mut failed) = mpsc::channel(10);
        let (waiting, mut offered) = mpsc::channel(3);
        let tracker = HintTracker::new(unpublished);
        tracker.begin(&waiting, [hint("orders"), hint("stock"), hint("orders"), hint("stock")]);
        let (orders, stock) = (hint("orders").queue(), hint("stock").queue());
        assert_eq!((tracker.in_flight(&orders), tracker.in_flight(&stock)), (2, 1), "one found no room");
        assert_eq!(&*failed.try_recv().expect("a hint").hint.destination, "stock");
        tracker.confirmed(&orders, 1);
        tracker.failed(offered.try_recv().expect("a hint"), PublishFailure::Disconnected);
        assert_eq!((tracker.in_flight(&orders), tracker.in_flight(&stock)), (0, 1));
        tracker.confirmed(&stock, 1);
        assert!(tracker.counts().is_empty());
        assert_eq!(&*failed.try_recv().expect("a hint").hint.destination, "orders");
        assert!(failed.try_recv().is_err());
    }
}
