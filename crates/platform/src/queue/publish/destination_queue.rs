//! What may be published to one queue. Pure: the broker's answers and the time go in.
//!
//! A queue that fails backs off, exponentially, and then is tried with one message; each batch that is confirmed allows twice as many.
//! So a queue that takes no more messages costs little, and a slow one cannot fill the channel.
//!
//! The length of a queue is read beside the publishing, and each reading allows so many deliveries that an eighth of the limit is added
//! at most before the next one, and what the last message has beyond it.

use std::collections::VecDeque;
use std::time::Duration;

use grapnel_core::hint::HintMessage;
use lapin::types::ShortString;
use tokio::time::Instant;

use super::message_size::MessageSize;

/// Unconfirmed messages of a queue that works. RabbitMQ keeps up to 32 for a quorum queue that has lost its majority, and then reads
/// nothing more from the connection (`quorum_commands_soft_limit`): with fewer, such a queue stops no other. Deliveries that are committed
/// together share messages, so this is more than a queue has under way when it is busy.
const WINDOW: usize = 24;

/// Unconfirmed messages of a queue that is tried again.
const PROBE: usize = 1;

/// Messages of one queue that may wait for their turn.
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
    /// Whether somebody asks for its length.
    is_length_asked: bool,
    /// Deliveries that may be published before its length is read again.
    until_checked: usize,
    /// At which of these it is time for that, so that nobody waits for it.
    checked_at: usize,
    /// How many deliveries its messages have.
    size: MessageSize,
    waiting: VecDeque<HintMessage>,
    unconfirmed: usize,
    /// How many messages may be unconfirmed.
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
            is_length_asked: false,
            until_checked: 0,
            checked_at: 0,
            size: MessageSize::default(),
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

    /// Lets a message wait for its turn. Returns it when too many do.
    pub(super) fn push(&mut self, message: HintMessage) -> Result<(), HintMessage> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(message);
        }
        self.waiting.push_back(message);
        Ok(())
    }

    /// Returns how many deliveries the messages have that were published lately.
    pub(super) fn message_size(&self) -> MessageSize {
        self.size
    }

    /// Notes that somebody asks for the length. Returns whether it will be read: a queue that backs off is left alone.
    pub(super) fn ask_for_length(&mut self, now: Instant) -> bool {
        self.is_length_asked = self.backoff(now).is_none();
        self.is_length_asked
    }

    /// Returns whether the queue has to be declared now, and counts it as under way. A declaration tells the length too, so one that
    /// exists is declared again now and then, while messages are published to it or somebody asks.
    pub(super) fn begin_declaration(&mut self) -> bool {
        match self.declaration {
            Declaration::Unknown if self.is_length_asked || !self.waiting.is_empty() => {
                self.declaration = Declaration::UnderWay;
                true
            }
            Declaration::Done
                if (self.is_length_asked || self.until_checked <= self.checked_at) && !self.is_checking =>
            {
                self.is_checking = true;
                true
            }
            Declaration::Unknown | Declaration::UnderWay | Declaration::Done => false,
        }
    }

    /// Notes that the queue exists and has so many messages. Returns whether it has enough deliveries: half of the limit, since the
    /// other half is for those that are held. The dispatcher, which publishes these, asks for the length itself.
    pub(super) fn declared(&mut self, messages: usize, limit: usize) -> bool {
        self.declaration = Declaration::Done;
        self.is_checking = false;
        self.is_length_asked = false;
        self.until_checked = (limit / 8).max(1);
        self.checked_at = self.until_checked / 2;
        self.size.deliveries_in(messages) >= limit / 2
    }

    /// Takes the messages whose turn it is, up to `limit`.
    pub(super) fn take_ready(&mut self, limit: usize) -> Vec<HintMessage> {
        if self.declaration != Declaration::Done {
            return Vec::new();
        }
        let allowed = self.window.saturating_sub(self.unconfirmed).min(limit);
        let mut taken = Vec::with_capacity(allowed.min(self.waiting.len()));
        while taken.len() < allowed
            && self.until_checked > 0
            && let Some(message) = self.waiting.pop_front()
        {
            let deliveries = message.event_ids.len();
            self.until_checked = self.until_checked.saturating_sub(deliveries);
            self.size.add(deliveries);
            taken.push(message);
        }
        self.unconfirmed += taken.len();
        taken
    }

    /// Takes all messages that wait.
    pub(super) fn take_waiting(&mut self) -> VecDeque<HintMessage> {
        std::mem::take(&mut self.waiting)
    }

    /// Ends a number of unconfirmed messages, whatever became of them.
    pub(super) fn ended(&mut self, messages: usize) {
        self.unconfirmed = self.unconfirmed.saturating_sub(messages);
    }

    /// Notes a batch that was confirmed. Returns whether that ends a failure.
    pub(super) fn succeeded(&mut self) -> bool {
        self.window = (self.window * 2).min(WINDOW);
        std::mem::take(&mut self.failures) > 0
    }

    /// Returns whether the last messages failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Returns how many messages may be unconfirmed; `None`: as many as for any queue.
    pub(super) fn narrow_window(&self) -> Option<usize> {
        (self.window < WINDOW).then_some(self.window)
    }

    /// Notes a failure, and that the queue is to be declared again. Returns whether a new backoff begins: messages that were published
    /// together fail together, and count once.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.declaration = Declaration::Unknown;
        self.is_checking = false;
        self.is_length_asked = false;
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

    /// Returns the number of messages that wait or are unconfirmed.
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
        queue_of(waiting, 1)
    }

    /// Returns a queue for which messages wait that have so many deliveries each.
    fn queue_of(waiting: usize, deliveries: usize) -> DestinationQueue {
        let mut queue = DestinationQueue::new("orders".into());
        let key = (IntegrationId::new(uuid::Uuid::nil()), Arc::from("orders"));
        let message = HintMessage { queue: key, event_ids: vec![EventId::generate(); deliveries] };
        for _ in 0..waiting {
            queue.push(message.clone()).expect("room");
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
    fn messages_that_fail_together_count_once_and_the_next_failure_doubles_the_backoff() {
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
    fn failed_queue_is_tried_with_one_message_and_then_with_twice_as_many() {
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
    fn length_is_read_again_before_an_eighth_of_the_limit_is_published() {
        let mut queue = queue(200);
        assert!(queue.begin_declaration());
        assert!(!queue.declared(10, 80), "it is short");
        assert_eq!(queue.take_ready(4).len(), 4);
        assert!(!queue.begin_declaration());
        assert_eq!(queue.take_ready(1).len(), 1);
        assert!(queue.begin_declaration());
        assert_eq!(queue.take_ready(100).len(), 5, "meanwhile it goes on, up to an eighth of the limit");
        assert_eq!(queue.take_ready(100).len(), 0);
        assert!(!queue.begin_declaration(), "it is under way");
        assert!(!queue.declared(39, 80), "it is short");
        assert_eq!(queue.take_ready(100).len(), 10);
    }

    #[test]
    fn length_counts_deliveries() {
        let mut queue = queue_of(20, 4);
        assert!(
            !queue.declared(10, 80),
            "it is short: nothing is known of the messages that others published"
        );
        assert_eq!(
            queue.take_ready(100).len(),
            3,
            "an eighth of the limit, and what the last one has beyond it"
        );
        assert_eq!(queue.take_ready(100).len(), 0);
        assert!(!queue.declared(9, 80), "it is short");
        assert!(queue.declared(10, 80), "ten messages of four");
    }

    #[test]
    fn length_of_a_queue_is_read_for_whoever_asks_unless_it_backs_off() {
        let (mut queue, now) = (queue(0), Instant::now());
        assert!(!queue.begin_declaration(), "nobody wants it");
        assert!(queue.ask_for_length(now) && queue.begin_declaration());
        assert!(queue.declared(40, 80), "it is long");
        assert!(!queue.begin_declaration(), "nothing was published");
        assert!(queue.ask_for_length(now) && queue.begin_declaration());
        assert!(!queue.declared(39, 80), "it is short");
        queue.failed(now);
        assert!(!queue.ask_for_length(now) && !queue.begin_declaration());
        assert!(queue.ask_for_length(now + FIRST_BACKOFF) && queue.begin_declaration());
    }

    #[test]
    fn messages_that_wait_are_bounded() {
        let mut queue = queue(MAX_WAITING);
        let message = queue.take_waiting().pop_front().expect("a message");
        for _ in 0..MAX_WAITING {
            queue.push(message.clone()).expect("room");
        }
        assert!(queue.push(message).is_err());
    }
}
