//! Counts the messages in flight by queue, and hands back those that were not published. Each ends exactly once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use grapnel_core::hint::{HintMessage, QueueKey};
use thiserror::Error;
use tokio::sync::mpsc;

/// The reason why a message was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PublishFailure {
    #[error("the channel ended")]
    Disconnected,
    #[error("too many messages wait")]
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
    /// Returns whether the queue is the reason, so that its other messages would fail too.
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

/// A message that was not published.
#[derive(Debug)]
pub struct UnpublishedMessage {
    pub message: HintMessage,
    pub failure: PublishFailure,
}

/// The messages that are accepted and not settled.
#[derive(Debug, Clone)]
pub(super) struct HintTracker {
    unpublished: mpsc::Sender<UnpublishedMessage>,
    /// Queues without a message in flight are not in the map.
    in_flight: Arc<Mutex<HashMap<QueueKey, usize>>>,
}

impl HintTracker {
    pub(super) fn new(unpublished: mpsc::Sender<UnpublishedMessage>) -> Self {
        Self { unpublished, in_flight: Arc::default() }
    }

    /// Passes the messages on. Those for which there is no room are handed back.
    pub(super) fn begin(&self, waiting: &mpsc::Sender<HintMessage>, messages: Vec<HintMessage>) {
        let mut refused = Vec::new();
        {
            // Held until all are counted, so that none of them ends before.
            let mut counts = self.counts();
            for message in messages {
                match counts.get_mut(&message.queue) {
                    Some(count) => *count += 1,
                    None => drop(counts.insert(message.queue.clone(), 1)),
                }
                if let Err(error) = waiting.try_send(message) {
                    refused.push(error.into_inner());
                }
            }
        }
        for message in refused {
            self.failed(message, PublishFailure::NoRoom);
        }
    }

    pub(super) fn in_flight(&self, queue: &QueueKey) -> usize {
        self.counts().get(queue).copied().unwrap_or_default()
    }

    /// Ends a number of messages of a queue that were confirmed.
    pub(super) fn confirmed(&self, queue: &QueueKey, messages: usize) {
        let mut counts = self.counts();
        if let Some(count) = counts.get_mut(queue) {
            *count = count.saturating_sub(messages);
            if *count == 0 {
                counts.remove(queue);
            }
        }
    }

    /// Ends a message and hands it back.
    pub(super) fn failed(&self, message: HintMessage, failure: PublishFailure) {
        self.confirmed(&message.queue, 1);
        self.hand_back(message, failure);
    }

    /// Hands back a message that has ended or will end.
    pub(super) fn hand_back(&self, message: HintMessage, failure: PublishFailure) {
        let hints = message.event_ids.len() as u64;
        metrics::counter!("grapnel_queue_publish_failures_total", "reason" => failure.label())
            .increment(hints);
        if self.unpublished.try_send(UnpublishedMessage { message, failure }).is_err() {
            metrics::counter!("grapnel_queue_hints_forgotten_total").increment(hints);
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

    fn message(destination: &str) -> HintMessage {
        let integration_id = IntegrationId::new(uuid::Uuid::nil());
        HintMessage { queue: (integration_id, destination.into()), event_ids: vec![EventId::generate()] }
    }

    #[tokio::test]
    async fn messages_are_counted_by_queue_and_each_ends_once() {
        let (unpublished, mut failed) = mpsc::channel(10);
        let (waiting, mut offered) = mpsc::channel(3);
        let tracker = HintTracker::new(unpublished);
        tracker.begin(&waiting, ["orders", "stock", "orders", "stock"].map(message).into());
        let (orders, stock) = (message("orders").queue, message("stock").queue);
        assert_eq!((tracker.in_flight(&orders), tracker.in_flight(&stock)), (2, 1), "one found no room");
        assert_eq!(&*failed.try_recv().expect("a message").message.queue.1, "stock");
        tracker.confirmed(&orders, 1);
        tracker.failed(offered.try_recv().expect("a message"), PublishFailure::Disconnected);
        assert_eq!((tracker.in_flight(&orders), tracker.in_flight(&stock)), (0, 1));
        tracker.confirmed(&stock, 1);
        assert!(tracker.counts().is_empty());
        assert_eq!(&*failed.try_recv().expect("a message").message.queue.1, "orders");
        assert!(failed.try_recv().is_err());
    }
}
