//! What happened to every number: the one place where the probe remembers.
//!
//! Each number has a slot of 16 bytes: one word that packs its state and one scheduled time. The senders and the
//! sink touch the same word, and every transition is one atomic step that sees the word as it was before, so that an
//! answer and a delivery that cross each other are still counted once. Slots are made in chunks as numbers are used;
//! memory is bounded by [`MAX_NUMBERS`].
//!
//! The live counters feed the progress bar and the end of the settling; the final [`Tally`] is counted from the slots
//! themselves.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::tally::Tally;
use super::word::{Answer, Phase, Word};

/// The largest number of events in one run: 800 MB of slots.
pub const MAX_NUMBERS: u64 = 50_000_000;

/// 64 KiB of slots: small enough that making a chunk stalls no sender noticeably.
const CHUNK_SLOTS: u64 = 4_096;

struct Slot {
    word: AtomicU64,
    /// Microseconds from the ledger's origin to the time at which the event was due.
    scheduled_us: AtomicU64,
}

impl Slot {
    /// Changes the word in one atomic step and returns it as it was before.
    fn change(&self, transition: impl Fn(Word) -> Word) -> Word {
        let mut current = self.word.load(Ordering::Acquire);
        loop {
            let next = transition(Word(current)).0;
            match self.word.compare_exchange_weak(current, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(before) => return Word(before),
                Err(changed) => current = changed,
            }
        }
    }
}

/// Counters that the sending side writes. Aligned, so that the two sides do not share a cache line.
#[derive(Default)]
#[repr(align(128))]
struct SenderCounts {
    requests: AtomicU64,
    sent: AtomicU64,
    promised: AtomicU64,
    no_answer: AtomicU64,
    refusals: AtomicU64,
}

/// Counters that the sink writes.
#[derive(Default)]
#[repr(align(128))]
struct SinkCounts {
    delivered: AtomicU64,
    duplicates: AtomicU64,
    failed_on_purpose: AtomicU64,
    out_of_range: AtomicU64,
}

/// What a delivery was to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// The first of its number, so long after the event was due.
    First(Duration),
    /// One more of a number that had been delivered before.
    Again,
    /// Of a number that has not been sent.
    Phantom,
}

/// The state of every number of one run.
pub(crate) struct Ledger {
    origin: Instant,
    limit: u64,
    chunks: Box<[OnceLock<Box<[Slot]>>]>,
    sender: SenderCounts,
    sink: SinkCounts,
    /// Numbers both promised by the target and delivered. Both sides write it, each number is added once.
    fulfilled: AtomicU64,
    /// Answers by status code, every attempt counted.
    answers: Box<[AtomicU64]>,
}

impl Ledger {
    /// A ledger for the numbers below `limit` (at most [`MAX_NUMBERS`]).
    pub(crate) fn new(limit: u64) -> Ledger {
        let limit = limit.min(MAX_NUMBERS);
        Ledger {
            origin: Instant::now(),
            limit,
            chunks: (0..limit.div_ceil(CHUNK_SLOTS)).map(|_| OnceLock::new()).collect(),
            sender: SenderCounts::default(),
            sink: SinkCounts::default(),
            fulfilled: AtomicU64::new(0),
            answers: (0..1000).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn slot(&self, number: u64) -> Option<&Slot> {
        if number >= self.limit {
            return None;
        }
        let chunk = self.chunks.get(usize::try_from(number / CHUNK_SLOTS).ok()?)?.get_or_init(|| {
            (0..CHUNK_SLOTS)
                .map(|_| Slot { word: AtomicU64::new(0), scheduled_us: AtomicU64::new(0) })
                .collect()
        });
        chunk.get(usize::try_from(number % CHUNK_SLOTS).ok()?)
    }

    /// Notes that a request for `number` is about to leave, before its first byte does. The returned word is what
    /// [`Ledger::take_back`] needs if it then could not leave. `None`: the number is beyond this run.
    pub(crate) fn begin(&self, number: u64, scheduled: Instant) -> Option<Word> {
        let slot = self.slot(number)?;
        if Word(slot.word.load(Ordering::Acquire)).phase() == Phase::NotSent {
            let scheduled_us = scheduled.saturating_duration_since(self.origin).as_micros();
            slot.scheduled_us.store(u64::try_from(scheduled_us).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        let before = slot.change(Word::begun);
        self.sender.requests.fetch_add(1, Ordering::Relaxed);
        if before.phase() == Phase::NotSent {
            self.sender.sent.fetch_add(1, Ordering::Relaxed);
        }
        Some(before)
    }

    /// Undoes [`Ledger::begin`]: not a byte of the request left.
    pub(crate) fn take_back(&self, number: u64, before: Word) {
        let Some(slot) = self.slot(number) else { return };
        slot.change(|word| word.taken_back(before));
        self.sender.requests.fetch_sub(1, Ordering::Relaxed);
        if before.phase() == Phase::NotSent {
            self.sender.sent.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Notes how the request for `number` ended.
    pub(crate) fn answered(&self, number: u64, answer: Answer) {
        let Some(slot) = self.slot(number) else { return };
        let before = slot.change(|word| word.answered(answer));
        match answer {
            Answer::Status(code) => {
                if let Some(count) = self.answers.get(usize::from(code)) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                if !answer.is_promise() {
                    self.sender.refusals.fetch_add(1, Ordering::Relaxed);
                }
            }
            Answer::None => {
                self.sender.no_answer.fetch_add(1, Ordering::Relaxed);
            }
        }
        if answer.is_promise() && !before.is_promised() {
            self.sender.promised.fetch_add(1, Ordering::AcqRel);
            if before.deliveries() > 0 {
                self.fulfilled.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// True the first time that it is asked for a number which was sent and not yet delivered: the sink then refuses
    /// this delivery on purpose.
    pub(crate) fn refuse_once(&self, number: u64) -> bool {
        let Some(slot) = self.slot(number) else { return false };
        let before = slot.change(Word::refused_once);
        let refused = before.may_be_refused();
        if refused {
            self.sink.failed_on_purpose.fetch_add(1, Ordering::Relaxed);
        }
        refused
    }

    /// Notes a delivery of `number` that arrived at `arrived`.
    pub(crate) fn delivered(&self, number: u64, arrived: Instant) -> Delivered {
        let Some(slot) = self.slot(number) else {
            self.sink.out_of_range.fetch_add(1, Ordering::Relaxed);
            return Delivered::Phantom;
        };
        let before = slot.change(Word::delivered);
        if before.deliveries() > 0 {
            self.sink.duplicates.fetch_add(1, Ordering::Relaxed);
            return Delivered::Again;
        }
        self.sink.delivered.fetch_add(1, Ordering::Relaxed);
        if before.is_promised() {
            self.fulfilled.fetch_add(1, Ordering::AcqRel);
        }
        if before.phase() == Phase::NotSent {
            return Delivered::Phantom;
        }
        let scheduled = Duration::from_micros(slot.scheduled_us.load(Ordering::Relaxed));
        Delivered::First(arrived.saturating_duration_since(self.origin).saturating_sub(scheduled))
    }

    /// A number of ours, but outside of this run's range or written as we never write one.
    pub(crate) fn delivered_out_of_range(&self) {
        self.sink.out_of_range.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters of this moment, cheap enough to ask for at any time.
    pub(crate) fn progress(&self) -> Progress {
        // `fulfilled` first: both only grow, so the queue is never shown shorter than it was.
        let fulfilled = self.fulfilled.load(Ordering::Acquire);
        let promised = self.sender.promised.load(Ordering::Acquire);
        Progress {
            requests: self.sender.requests.load(Ordering::Relaxed),
            sent: self.sender.sent.load(Ordering::Relaxed),
            accepted: promised,
            delivered: self.sink.delivered.load(Ordering::Relaxed),
            duplicate_deliveries: self.sink.duplicates.load(Ordering::Relaxed),
            failed_on_purpose: self.sink.failed_on_purpose.load(Ordering::Relaxed),
            outstanding: promised.saturating_sub(fulfilled),
            errors: self.sender.refusals.load(Ordering::Relaxed)
                + self.sender.no_answer.load(Ordering::Relaxed),
        }
    }

    /// Counts every slot. Exact only when senders and sink have stopped.
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = Tally {
            requests: self.sender.requests.load(Ordering::Acquire),
            attempts_without_answer: self.sender.no_answer.load(Ordering::Acquire),
            failed_on_purpose: self.sink.failed_on_purpose.load(Ordering::Acquire),
            phantom: self.sink.out_of_range.load(Ordering::Acquire),
            ..Tally::default()
        };
        for (code, count) in (0u16..).zip(&self.answers) {
            let count = count.load(Ordering::Acquire);
            if count > 0 {
                tally.answers.insert(code, count);
            }
        }
        for (chunk, first) in self.chunks.iter().zip((0u64..).step_by(CHUNK_SLOTS as usize)) {
            let slots = chunk.get().into_iter().flat_map(|slots| slots.iter());
            for (slot, number) in slots.zip(first..) {
                tally.add(number, Word(slot.word.load(Ordering::Acquire)));
            }
        }
        tally
    }
}

/// Live counters of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Requests that left, every resend counted.
    pub requests: u64,
    /// Numbers of which at least one request left.
    pub sent: u64,
    /// Numbers that the target promised to deliver (202, or 200 for a duplicate).
    pub accepted: u64,
    /// Numbers that were delivered at least once.
    pub delivered: u64,
    /// Deliveries beyond the first of a number.
    pub duplicate_deliveries: u64,
    /// Deliveries that the sink refused on purpose.
    pub failed_on_purpose: u64,
    /// Numbers that were accepted and are not delivered yet.
    pub outstanding: u64,
    /// Requests that were refused or had no answer.
    pub errors: u64,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn send(ledger: &Ledger, number: u64, answer: Answer) {
        ledger.begin(number, Instant::now()).expect("in range");
        ledger.answered(number, answer);
    }

    fn deliver(ledger: &Ledger, number: u64) -> Delivered {
        ledger.delivered(number, Instant::now())
    }

    #[test]
    fn accepted_and_delivered_leaves_nothing_outstanding() {
        let ledger = Ledger::new(10);
        send(&ledger, 3, Answer::Status(202));
        assert_eq!(ledger.progress().outstanding, 1);
        assert!(matches!(deliver(&ledger, 3), Delivered::First(_)));
        assert_eq!(ledger.progress().outstanding, 0);
        let tally = ledger.tally();
        assert_eq!((tally.sent, tally.accepted, tally.delivered), (1, 1, 1));
        assert_eq!((tally.lost, tally.phantom, tally.unknown_delivered), (0, 0, 0));
    }

    #[test]
    fn a_delivery_that_overtakes_the_answer_is_counted_once() {
        let ledger = Ledger::new(1);
        ledger.begin(0, Instant::now()).expect("in range");
        assert!(matches!(deliver(&ledger, 0), Delivered::First(_)));
        assert_eq!(ledger.progress().outstanding, 0);
        ledger.answered(0, Answer::Status(202));
        assert_eq!(ledger.progress().outstanding, 0);
        assert_eq!(deliver(&ledger, 0), Delivered::Again);
        let tally = ledger.tally();
        assert_eq!((tally.duplicate_deliveries, tally.delivered_twice_or_more, tally.phantom), (1, 1, 0));
    }

    #[test]
    fn what_was_promised_and_never_came_is_lost_and_named() {
        let ledger = Ledger::new(100);
        send(&ledger, 7, Answer::Status(202));
        send(&ledger, 9, Answer::None);
        send(&ledger, 9, Answer::Status(200));
        let tally = ledger.tally();
        assert_eq!((tally.lost, tally.lost_numbers), (2, vec![7, 9]));
        assert_eq!((tally.accepted, tally.duplicates_answered, tally.duplicates_unexplained), (1, 1, 0));
    }

    #[test]
    fn a_duplicate_answer_to_a_first_request_is_unexplained() {
        let ledger = Ledger::new(1);
        send(&ledger, 0, Answer::Status(200));
        assert_eq!(ledger.tally().duplicates_unexplained, 1);
    }

    #[test]
    fn phantoms_are_what_was_never_sent_or_definitively_refused() {
        let ledger = Ledger::new(10_000);
        send(&ledger, 0, Answer::Status(401));
        deliver(&ledger, 0);
        assert_eq!(deliver(&ledger, 9_999), Delivered::Phantom);
        assert_eq!(deliver(&ledger, 10_000), Delivered::Phantom);
        // Delivered before it was sent: no later answer can explain that.
        deliver(&ledger, 5_000);
        send(&ledger, 5_000, Answer::Status(202));
        let tally = ledger.tally();
        assert_eq!((tally.phantom, tally.phantom_numbers), (4, vec![0, 5_000, 9_999]));
        assert_eq!((tally.lost, tally.unknown_delivered), (0, 0));
    }

    #[test]
    fn what_may_have_been_accepted_is_neither_lost_nor_phantom() {
        let ledger = Ledger::new(10);
        send(&ledger, 0, Answer::None);
        deliver(&ledger, 0);
        send(&ledger, 1, Answer::Status(503));
        deliver(&ledger, 1);
        // The first attempt had no answer, so the refusal of the second says nothing about it.
        send(&ledger, 2, Answer::None);
        send(&ledger, 2, Answer::Status(429));
        deliver(&ledger, 2);
        ledger.begin(3, Instant::now()).expect("in range");
        let tally = ledger.tally();
        assert_eq!((tally.lost, tally.phantom, tally.unknown_delivered), (0, 0, 3));
        assert_eq!((tally.unknown, tally.sent, tally.requests), (2, 4, 5));
        assert_eq!(tally.refused, BTreeMap::from([(429, 1), (503, 1)]));
    }

    #[test]
    fn a_request_that_could_not_leave_was_not_sent() {
        let ledger = Ledger::new(2);
        let before = ledger.begin(0, Instant::now()).expect("in range");
        ledger.take_back(0, before);
        send(&ledger, 1, Answer::Status(503));
        let before = ledger.begin(1, Instant::now()).expect("in range");
        ledger.take_back(1, before);
        let tally = ledger.tally();
        assert_eq!((tally.sent, tally.requests, tally.unknown), (1, 1, 0));
        assert_eq!(tally.refused, BTreeMap::from([(503, 1)]));
        assert_eq!(ledger.progress().sent, 1);
    }

    #[test]
    fn a_number_is_refused_on_purpose_at_most_once() {
        let ledger = Ledger::new(3);
        assert!(!ledger.refuse_once(0), "never sent: a phantom must not hide behind a refusal");
        ledger.begin(1, Instant::now()).expect("in range");
        assert!(ledger.refuse_once(1));
        assert!(!ledger.refuse_once(1));
        deliver(&ledger, 1);
        send(&ledger, 2, Answer::Status(202));
        deliver(&ledger, 2);
        assert!(!ledger.refuse_once(2));
        assert_eq!(ledger.tally().failed_on_purpose, 1);
    }

    #[test]
    fn nothing_is_counted_beyond_the_limit() {
        let ledger = Ledger::new(u64::MAX);
        assert!(ledger.begin(MAX_NUMBERS - 1, Instant::now()).is_some());
        assert!(ledger.begin(MAX_NUMBERS, Instant::now()).is_none());
    }

    #[test]
    fn both_sides_at_once_agree_on_what_is_fulfilled() {
        let ledger = Ledger::new(20_000);
        std::thread::scope(|scope| {
            let (numbers, due) = std::sync::mpsc::channel();
            let ledger = &ledger;
            scope.spawn(move || {
                for number in 0..20_000 {
                    ledger.begin(number, Instant::now()).expect("in range");
                    numbers.send(number).expect("the other side listens");
                    ledger.answered(number, Answer::Status(202));
                }
            });
            scope.spawn(move || {
                for number in due {
                    ledger.delivered(number, Instant::now());
                }
            });
        });
        let progress = ledger.progress();
        assert_eq!((progress.accepted, progress.delivered, progress.outstanding), (20_000, 20_000, 0));
        assert_eq!(ledger.tally().lost, 0);
    }
}
