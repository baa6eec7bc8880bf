//! What may be published to one queue. Pure: the broker's answers and the time go in.
//!
//! A queue that fails backs off, exponentially, and then is tried with one hint; each batch that is confirmed allows twice as many. So a queue that takes no more messages costs little, and a slow one cannot fill the channel.

use std::collections::VecDeque;
use std::time::Duration;

use grapnel_core::hint::Hint;
use lapin::types::ShortString;
use tokio::time::Instant;

/// Unconfirmed hints of a queue that works.
const WINDOW: usize = 256;

/// Unconfirmed hints of a queue that is tried again. RabbitMQ keeps up to 32 for a quorum queue that has lost its majority, and then
/// reads nothing more from the connection.
const PROBE: usize = 1;

/// Hints of one queue that may wait for their turn.
const MAX_WAITING: usize = 8_192;

const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Whether a queue is known to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Declaration {
    Unknown,
    UnderWay,
    Done,
}

/// The state of one queue.
#[derive(Debug)]
pub(super) struct DestinationQueue {
    pub(super) name: ShortString,
    declaration: Declaration,
    /// Whether its length is being read again.
    is_checking: bool,
    /// Hints that may be published before that.
    until_checked: usize,
    waiting: VecDeque<Hint>,
    unconfirmed: usize,
    /// How many hints may be unconfirmed.
    window: usize,
    /// Failures since the last confirmed batch.
    failures: u32,
    backing_off_until: Option<Instant>,
}

impl DestinationQueue {
    pub(super) fn new(name: ShortString) -> Self {
        Self {
            name,
            declaration: Declaration::Unknown,
            is_checking: false,
            until_checked: 0,
            waiting: VecDeque::new(),
            unconfirmed: 0,
            window: WINDOW,
            failures: 0,
            backing_off_until: None,
        }
    }

    /// Returns how much longer nothing may be published.
    pub(super) fn backoff(&self, now: Instant) -> Option<Duration> {
        self.backing_off_until.map(|until| until - now).filter(|left| !left.is_zero())
    }

    /// Lets a hint wait for its turn. Returns it when too many do.
    pub(super) fn push(&mut self, hint: Hint) -> Result<(), Hint> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(hint);
        }
        self.waiting.push_back(hint);
        Ok(())
    }

    /// Returns whether the queue has to be declared now, and counts it as under way. A declaration tells the length too, so one that
    /// exists is declared again now and then, while hints are published to it.
    pub(super) fn begin_declaration(&mut self) -> bool {
        match self.declaration {
            Declaration::Unknown if !self.waiting.is_empty() => {
                self.declaration = Declaration::UnderWay;
                true
            }
            Declaration::Done if self.until_checked == 0 && !self.is_checking => {
                self.is_checking = true;
                true
            }
            Declaration::Unknown | Declaration::UnderWay | Declaration::Done => false,
        }
    }

    /// Notes that the queue exists and has so many messages. Returns whether it has enough of them: half of the limit, since the
    /// other half is for those that are held.
    pub(super) fn declared(&mut self, messages: usize, limit: usize) -> bool {
        self.declaration = Declaration::Done;
        self.is_checking = false;
        let is_long = messages >= limit / 2;
        self.until_checked = if is_long { 1 } else { (limit / 8).max(1) };
        is_long
    }

    /// Takes the hints whose turn it is, up to `limit`.
    pub(super) fn take_ready(&mut self, limit: usize) -> Vec<Hint> {
        if self.declaration != Declaration::Done {
            return Vec::new();
        }
        let count = self.window.saturating_sub(self.unconfirmed).min(self.waiting.len()).min(limit);
        self.unconfirmed += count;
        self.until_checked = self.until_checked.saturating_sub(count);
        self.waiting.drain(..count).collect()
    }

    /// Takes all hints that wait.
    pub(super) fn take_waiting(&mut self) -> VecDeque<Hint> {
        std::mem::take(&mut self.waiting)
    }

    /// Ends a number of unconfirmed hints, whatever became of them.
    pub(super) fn ended(&mut self, hints: usize) {
        self.unconfirmed = self.unconfirmed.saturating_sub(hints);
    }

    /// Notes a batch that was confirmed. Returns whether that ends a failure.
    pub(super) fn succeeded(&mut self) -> bool {
        self.window = (self.window * 2).min(WINDOW);
        std::mem::take(&mut self.failures) > 0
    }

    /// Returns whether the last hints failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Returns how many hints may be unconfirmed; `None`: as many as for any queue.
    pub(super) fn narrow_window(&self) -> Option<usize> {
        (self.window < WINDOW).then_some(self.window)
    }

    /// Notes a failure, and that the queue is to be declared again. Returns whether a new backoff begins: hints that were published
    /// together fail together, and count once.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.declaration = Declaration::Unknown;
        self.is_checking = false;
        if self.backoff(now).is_some() {
            return false;
        }
        let backoff = FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(self.failures)).min(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        self.window = PROBE;
        self.backing_off_until = Some(now + backoff);
        true
    }

    /// Forgets what depended on the channel.
    pub(super) fn channel_ended(&mut self) {
        self.unconfirmed = 0;
        self.is_checking = false;
        if self.declaration == Declaration::UnderWay {
            self.declaration = Declaration::Unknown;
        }
    }

    /// Returns the number of hints that wait or are unconfirmed.
    pub(super) fn unsettled(&self) -> usize {
        self.waiting.len() + self.unconfirmed
    }

    /// Returns whether nothing would be lost if it were forgotten.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.unsettled() == 0 && self.declaration != Declaration::UnderWay && self.backoff(now).is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use grapnel_core::ids::{EventId, IntegrationId};

    use super::*;

    const LIMIT: usize = 100_000;

    fn queue(waiting: usize) -> DestinationQueue {
        let mut queue = DestinationQueue::new("orders".into());
        let hint = Hint {
            integration_id: IntegrationId::new(uuid::Uuid::nil()),
            destination: Arc::from("orders"),
            event_id: EventId::generate(),
        };
        for _ in 0..waiting {
            queue.push(hint.clone()).expect("room");
        }
        queue
    }

    #[test]
    fn nothing_is_published_before_the_queue_is_declared() {
        let mut queue = queue(3);
        assert!(queue.take_ready(10).is_empty());
        assert!(queue.begin_declaration());
        assert!(!queue.begin_declaration(), "it is under way");
        assert!(!queue.declared(0, LIMIT));
        assert_eq!(queue.take_ready(2).len(), 2);
        assert_eq!(queue.take_ready(2).len(), 1);
        assert_eq!(queue.unsettled(), 3);
    }

    #[test]
    fn hints_that_fail_together_count_once_and_the_next_failure_doubles_the_backoff() {
        let (mut queue, start) = (queue(0), Instant::now());
        assert!(queue.failed(start));
        assert!(!queue.failed(start));
        assert_eq!(queue.backoff(start), Some(FIRST_BACKOFF));
        let later = start + FIRST_BACKOFF;
        assert_eq!(queue.backoff(later), None);
        assert!(queue.failed(later));
        assert_eq!(queue.backoff(later), Some(FIRST_BACKOFF * 2));
        let mut now = later;
        for _ in 0..100 {
            now += MAX_BACKOFF;
            assert!(queue.failed(now));
        }
        assert_eq!(queue.backoff(now), Some(MAX_BACKOFF));
    }

    #[test]
    fn failed_queue_is_tried_with_one_hint_and_then_with_twice_as_many() {
        let (mut queue, now) = (queue(1_000), Instant::now());
        assert!(!queue.declared(0, LIMIT));
        assert_eq!(queue.take_ready(1_000).len(), WINDOW);
        queue.ended(WINDOW);
        queue.failed(now);
        assert!(!queue.declared(0, LIMIT));
        assert_eq!(queue.take_ready(1_000).len(), PROBE);
        assert_eq!(queue.take_ready(1_000).len(), 0);
        queue.ended(PROBE);
        assert!(queue.succeeded(), "the failure has ended");
        assert!(!queue.succeeded());
        assert_eq!(queue.take_ready(1_000).len(), 4 * PROBE);
    }

    #[test]
    fn length_is_read_again_after_some_hints_and_each_time_while_it_is_long() {
        let mut queue = queue(200);
        assert!(queue.begin_declaration());
        assert!(!queue.declared(10, 80), "it is short");
        assert_eq!(queue.take_ready(9).len(), 9);
        assert!(!queue.begin_declaration());
        assert_eq!(queue.take_ready(1).len(), 1);
        assert!(queue.begin_declaration());
        assert_eq!(queue.take_ready(1).len(), 1, "meanwhile it goes on");
        assert!(!queue.begin_declaration(), "it is under way");
        assert!(queue.declared(40, 80), "it is long");
        assert!(!queue.begin_declaration(), "nothing was published");
        assert_eq!(queue.take_ready(1).len(), 1);
        assert!(queue.begin_declaration());
    }

    #[test]
    fn hints_that_wait_are_bounded() {
        let mut queue = queue(MAX_WAITING);
        let hint = queue.take_waiting().pop_front().expect("a hint");
        for _ in 0..MAX_WAITING {
            queue.push(hint.clone()).expect("room");
        }
        assert!(queue.push(hint).is_err());
    }
}
