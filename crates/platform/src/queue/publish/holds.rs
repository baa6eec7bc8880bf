//! The queues for which nothing new should be published now, shared with those who store deliveries: a delivery that is held from
//! the start costs no message and no second write.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grapnel_core::hint::QueueKey;
use tokio::time::Instant;

/// How long a queue counts as long after its length was read. Then one asks in vain, so that a message is published and has the
/// length read again.
const LONG_FOR: Duration = Duration::from_secs(1);

/// What is known about queues that fail or are long.
#[derive(Debug, Clone, Default)]
pub(super) struct QueueHolds {
    inner: Arc<Mutex<Inner>>,
    /// The number of queues in it, so that the usual case needs no lock.
    count: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Inner {
    failing: HashMap<QueueKey, Failing>,
    long_until: HashMap<QueueKey, Instant>,
}

/// A queue that has failed and has not worked fully again.
#[derive(Debug, Clone, Copy)]
struct Failing {
    until: Instant,
    window: usize,
}

impl QueueHolds {
    /// Returns whether there is any such queue.
    pub(super) fn is_any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Returns whether a delivery to the queue should be held. Of those who ask about a long queue, one in every [`LONG_FOR`] may
    /// publish.
    pub(super) fn is_held(&self, queue: &QueueKey) -> bool {
        if !self.is_any() {
            return false;
        }
        let (mut inner, now) = (self.lock(), Instant::now());
        if inner.failing.get(queue).is_some_and(|failing| now < failing.until) {
            return true;
        }
        match inner.long_until.get_mut(queue) {
            Some(until) if now < *until => true,
            Some(until) => {
                *until = now + LONG_FOR;
                false
            }
            None => false,
        }
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

    /// Forgets queues that are no longer used.
    pub(super) fn retain(&self, is_used: impl Fn(&QueueKey) -> bool) {
        self.change(|inner| {
            inner.failing.retain(|queue, _| is_used(queue));
            inner.long_until.retain(|queue, _| is_used(queue));
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
