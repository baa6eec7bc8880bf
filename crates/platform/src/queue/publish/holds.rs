//! The queues for which nothing new should be published now, shared with those who store deliveries: a delivery that is held from
//! the start costs no message and no second write.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grapnel_core::hint::QueueKey;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::message_size::MessageSize;

/// How long the length of a long queue counts as known. Whoever asks later has it read again, and is still told to hold.
const LONG_FOR: Duration = Duration::from_secs(1);

/// Questions for a length that may wait. Further ones are asked again a moment later.
const MAX_QUESTIONS: usize = 1_024;

/// What is known about queues that fail or are long.
#[derive(Debug, Clone)]
pub(super) struct QueueHolds {
    inner: Arc<Mutex<Inner>>,
    /// The number of queues in it, so that the usual case needs no lock.
    count: Arc<AtomicUsize>,
    /// The long queues whose length somebody asks for.
    questions: mpsc::Sender<QueueKey>,
}

#[derive(Debug, Default)]
struct Inner {
    failing: HashMap<QueueKey, Failing>,
    /// Until when the length of each of these is known.
    long_until: HashMap<QueueKey, Instant>,
    /// Those of queues whose messages have several deliveries.
    message_sizes: HashMap<QueueKey, MessageSize>,
}

/// A queue that has failed and has not worked fully again.
#[derive(Debug, Clone, Copy)]
struct Failing {
    until: Instant,
    window: usize,
}

impl QueueHolds {
    /// Returns it with the queues whose length is to be read again.
    pub(super) fn new() -> (Self, mpsc::Receiver<QueueKey>) {
        let (questions, asked) = mpsc::channel(MAX_QUESTIONS);
        (Self { inner: Arc::default(), count: Arc::default(), questions }, asked)
    }

    /// Returns whether there is any such queue.
    pub(super) fn is_any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Returns whether a delivery to the queue should be held. Of those who ask about a long queue, one in every [`LONG_FOR`] has its
    /// length read again.
    pub(super) fn is_held(&self, queue: &QueueKey) -> bool {
        self.is_any() && self.is_held_at(queue, Instant::now())
    }

    fn is_held_at(&self, queue: &QueueKey, now: Instant) -> bool {
        let mut inner = self.lock();
        if inner.failing.get(queue).is_some_and(|failing| now < failing.until) {
            return true;
        }
        let Some(until) = inner.long_until.get_mut(queue) else { return false };
        if *until <= now && self.questions.try_send(queue.clone()).is_ok() {
            *until = now + LONG_FOR;
        }
        true
    }

    /// Returns how many held deliveries of a queue may be published together.
    pub(super) fn allowance(&self, queue: &QueueKey) -> usize {
        match self.lock().failing.get(queue) {
            Some(failing) if Instant::now() < failing.until => 0,
            Some(failing) => failing.window,
            None => usize::MAX,
        }
    }

    /// Notes that a queue fails: nothing is published to it for a time, and then only so many hints at once.
    pub(super) fn set_failing(&self, queue: &QueueKey, until: Instant, window: usize) {
        self.change(|inner| {
            inner.failing.insert(queue.clone(), Failing { until, window });
        });
    }

    /// Notes that a queue works, as far as this window; `None`: fully.
    pub(super) fn set_working(&self, queue: &QueueKey, window: Option<usize>) {
        if !self.is_any() {
            return;
        }
        self.change(|inner| match (window, inner.failing.get_mut(queue)) {
            (Some(window), Some(failing)) => failing.window = window,
            (_, _) => {
                inner.failing.remove(queue);
            }
        });
    }

    /// Notes that a queue has as many messages as it should have.
    pub(super) fn set_long(&self, queue: &QueueKey) {
        self.change(|inner| {
            inner.long_until.insert(queue.clone(), Instant::now() + LONG_FOR);
        });
    }

    /// Notes that a queue is not long.
    pub(super) fn set_short(&self, queue: &QueueKey) {
        if self.is_any() {
            self.change(|inner| {
                inner.long_until.remove(queue);
            });
        }
    }

    /// Notes how many deliveries the messages of a queue have.
    pub(super) fn set_message_size(&self, queue: &QueueKey, size: MessageSize) {
        if size.is_of_one() {
            return;
        }
        let mut inner = self.lock();
        match inner.message_sizes.get_mut(queue) {
            Some(known) => *known = size,
            None => drop(inner.message_sizes.insert(queue.clone(), size)),
        }
    }

    /// Returns how many deliveries so many messages of a queue are expected to have.
    pub(super) fn deliveries_in(&self, queue: &QueueKey, messages: usize) -> usize {
        let size = self.lock().message_sizes.get(queue).copied().unwrap_or_default();
        size.deliveries_in(messages)
    }

    /// Forgets queues that are no longer used.
    pub(super) fn retain(&self, is_used: impl Fn(&QueueKey) -> bool) {
        self.change(|inner| {
            inner.failing.retain(|queue, _| is_used(queue));
            inner.long_until.retain(|queue, _| is_used(queue));
            inner.message_sizes.retain(|queue, _| is_used(queue));
        });
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        change(&mut inner);
        self.count.store(inner.failing.len() + inner.long_until.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use grapnel_core::ids::IntegrationId;

    use super::*;

    #[test]
    fn long_queue_is_held_until_it_is_known_not_to_be_long() {
        let (holds, mut asked) = QueueHolds::new();
        let queue: QueueKey = (IntegrationId::new(uuid::Uuid::nil()), "orders".into());
        assert!(!holds.is_held(&queue));
        holds.set_long(&queue);
        assert!(holds.is_held(&queue));
        assert!(asked.try_recv().is_err(), "its length is known");
        for _ in 0..3 {
            assert!(holds.is_held_at(&queue, Instant::now() + LONG_FOR));
        }
        assert_eq!(asked.try_recv().as_ref(), Ok(&queue));
        assert!(asked.try_recv().is_err(), "asked once");
        holds.set_short(&queue);
        assert!(!holds.is_held(&queue) && !holds.is_any());
    }
}
