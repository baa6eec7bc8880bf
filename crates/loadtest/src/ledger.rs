//! The ledger: what happened to every number of a run. Nothing else remembers it.
//!
//! Each number has a slot of 16 bytes: its state, packed into one word, and the time at which it was due. The senders and
//! the sink change the same word, and every transition is one atomic step that sees the previous state, so that an answer
//! and a delivery that cross each other are still counted once. Slots are allocated in chunks as numbers are used; memory
//! is bounded by [`MAX_NUMBERS`].
//!
//! The live counters feed the progress bar and end the waiting for deliveries; the final [`LedgerTotals`] are counted from
//! the slots themselves.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::event_state::{EventState, Phase};
pub(crate) use self::totals::LedgerTotals;

mod event_state;
#[cfg(test)]
mod tests;
mod totals;

/// The maximum number of events in one run: 800 MB of slots.
pub const MAX_NUMBERS: u64 = 50_000_000;

/// 64 KiB of slots: few enough that allocating a chunk does not delay a sender noticeably.
const CHUNK_SLOTS: u64 = 4_096;

struct Slot {
    state: AtomicU64,
    /// Time at which the event was due, in microseconds from the origin of the ledger.
    scheduled_us: AtomicU64,
}

impl Slot {
    /// Changes the state in one atomic step and returns the previous one.
    fn change(&self, transition: impl Fn(EventState) -> EventState) -> EventState {
        let mut current = self.state.load(Ordering::Acquire);
        loop {
            let next = transition(EventState(current)).0;
            match self.state.compare_exchange_weak(current, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(before) => return EventState(before),
                Err(changed) => current = changed,
            }
        }
    }
}

/// Counters of the sending side. Aligned, so that the two sides do not share a cache line.
#[derive(Default)]
#[repr(align(128))]
struct SenderCounts {
    requests: AtomicU64,
    sent: AtomicU64,
    accepted: AtomicU64,
    no_answer: AtomicU64,
    refusals: AtomicU64,
}

/// Counters of the sink.
#[derive(Default)]
#[repr(align(128))]
struct SinkCounts {
    delivered: AtomicU64,
    duplicates: AtomicU64,
    failed_on_purpose: AtomicU64,
    out_of_range: AtomicU64,
}

/// How a delivery is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryKind {
    /// The first of its number, this long after the event was due.
    First(Duration),
    /// Another one of a number that was delivered before.
    Again,
    /// A delivery of a number that has not been sent.
    Phantom,
}

/// The result of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The target answered with this status code.
    Status(u16),
    /// No answer: the connection broke or the deadline passed.
    None,
}

impl Answer {
    /// Whether it is a 2xx: the target is now responsible for the event.
    pub(crate) fn is_acceptance(self) -> bool {
        matches!(self, Answer::Status(200..=299))
    }

    /// Whether providers send the event again: there was no answer, 429, or an error of the target.
    pub(crate) fn is_worth_a_resend(self) -> bool {
        matches!(self, Answer::None | Answer::Status(429 | 500..))
    }
}

/// The live counters of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Requests that left, including resends.
    pub requests: u64,
    /// Numbers for which at least one request left.
    pub sent: u64,
    /// Numbers that the target accepted (202, or 200 for a duplicate).
    pub accepted: u64,
    /// Numbers that were delivered at least once.
    pub delivered: u64,
    /// Deliveries of a number after its first.
    pub duplicate_deliveries: u64,
    /// Deliveries that the sink refused on purpose.
    pub failed_on_purpose: u64,
    /// Numbers that were accepted and not delivered yet.
    pub outstanding: u64,
    /// Requests that were refused or got no answer.
    pub errors: u64,
}

/// The state of every number of one run.
pub(crate) struct Ledger {
    origin: Instant,
    limit: u64,
    chunks: Box<[OnceLock<Box<[Slot]>>]>,
    sender: SenderCounts,
    sink: SinkCounts,
    /// Numbers that are both accepted and delivered. Both sides write it; each number is added once.
    fulfilled: AtomicU64,
    /// Answers by status code, including those to resends.
    answers: Box<[AtomicU64]>,
}

impl Ledger {
    /// Returns an empty ledger for the numbers below `limit` (at most [`MAX_NUMBERS`]).
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
                .map(|_| Slot { state: AtomicU64::new(0), scheduled_us: AtomicU64::new(0) })
                .collect()
        });
        chunk.get(usize::try_from(number % CHUNK_SLOTS).ok()?)
    }

    /// Records that a request for `number` is about to leave, before its first byte does. Returns the previous state, which
    /// [`Ledger::undo_begin`] needs if the request does not leave. `None`: the number is not part of this run.
    pub(crate) fn begin(&self, number: u64, scheduled: Instant) -> Option<EventState> {
        let slot = self.slot(number)?;
        if EventState(slot.state.load(Ordering::Acquire)).phase() == Phase::NotSent {
            let scheduled_us = scheduled.saturating_duration_since(self.origin).as_micros();
            slot.scheduled_us.store(u64::try_from(scheduled_us).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        let before = slot.change(EventState::after_begin);
        self.sender.requests.fetch_add(1, Ordering::Relaxed);
        if before.phase() == Phase::NotSent {
            self.sender.sent.fetch_add(1, Ordering::Relaxed);
        }
        Some(before)
    }

    /// Undoes [`Ledger::begin`]: no byte of the request has left.
    pub(crate) fn undo_begin(&self, number: u64, before: EventState) {
        let Some(slot) = self.slot(number) else { return };
        slot.change(|state| state.after_undo(before));
        self.sender.requests.fetch_sub(1, Ordering::Relaxed);
        if before.phase() == Phase::NotSent {
            self.sender.sent.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Records how the request for `number` ended.
    pub(crate) fn record_answer(&self, number: u64, answer: Answer) {
        let Some(slot) = self.slot(number) else { return };
        let before = slot.change(|state| state.after_answer(answer));
        match answer {
            Answer::Status(code) => {
                if let Some(count) = self.answers.get(usize::from(code)) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                if !answer.is_acceptance() {
                    self.sender.refusals.fetch_add(1, Ordering::Relaxed);
                }
            }
            Answer::None => {
                self.sender.no_answer.fetch_add(1, Ordering::Relaxed);
            }
        }
        if answer.is_acceptance() && !before.is_accepted() {
            self.sender.accepted.fetch_add(1, Ordering::AcqRel);
            if before.deliveries() > 0 {
                self.fulfilled.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// Returns true once for each number that was sent and not yet delivered: the sink then refuses this delivery on
    /// purpose.
    pub(crate) fn refuse_once(&self, number: u64) -> bool {
        let Some(slot) = self.slot(number) else { return false };
        let before = slot.change(EventState::after_refusal);
        let refused = before.may_be_refused();
        if refused {
            self.sink.failed_on_purpose.fetch_add(1, Ordering::Relaxed);
        }
        refused
    }

    /// Records a delivery of `number` that arrived at `arrived`.
    pub(crate) fn record_delivery(&self, number: u64, arrived: Instant) -> DeliveryKind {
        let Some(slot) = self.slot(number) else {
            self.sink.out_of_range.fetch_add(1, Ordering::Relaxed);
            return DeliveryKind::Phantom;
        };
        let before = slot.change(EventState::after_delivery);
        if before.deliveries() > 0 {
            self.sink.duplicates.fetch_add(1, Ordering::Relaxed);
            return DeliveryKind::Again;
        }
        self.sink.delivered.fetch_add(1, Ordering::Relaxed);
        if before.is_accepted() {
            self.fulfilled.fetch_add(1, Ordering::AcqRel);
        }
        if before.phase() == Phase::NotSent {
            return DeliveryKind::Phantom;
        }
        let scheduled = Duration::from_micros(slot.scheduled_us.load(Ordering::Relaxed));
        DeliveryKind::First(arrived.saturating_duration_since(self.origin).saturating_sub(scheduled))
    }

    /// Returns the counters of this moment. It is cheap enough to be called at any time.
    pub(crate) fn progress(&self) -> Progress {
        // `fulfilled` first: both only grow, so `outstanding` is never less than it was.
        let fulfilled = self.fulfilled.load(Ordering::Acquire);
        let accepted = self.sender.accepted.load(Ordering::Acquire);
        Progress {
            requests: self.sender.requests.load(Ordering::Relaxed),
            sent: self.sender.sent.load(Ordering::Relaxed),
            accepted,
            delivered: self.sink.delivered.load(Ordering::Relaxed),
            duplicate_deliveries: self.sink.duplicates.load(Ordering::Relaxed),
            failed_on_purpose: self.sink.failed_on_purpose.load(Ordering::Relaxed),
            outstanding: accepted.saturating_sub(fulfilled),
            errors: self.sender.refusals.load(Ordering::Relaxed)
                + self.sender.no_answer.load(Ordering::Relaxed),
        }
    }

    /// Counts every slot. The result is exact only when senders and sink have stopped.
    pub(crate) fn totals(&self) -> LedgerTotals {
        let mut totals = LedgerTotals {
            requests: self.sender.requests.load(Ordering::Acquire),
            attempts_without_answer: self.sender.no_answer.load(Ordering::Acquire),
            failed_on_purpose: self.sink.failed_on_purpose.load(Ordering::Acquire),
            phantom: self.sink.out_of_range.load(Ordering::Acquire),
            ..LedgerTotals::default()
        };
        for (code, count) in (0u16..).zip(&self.answers) {
            let count = count.load(Ordering::Acquire);
            if count > 0 {
                totals.answers.insert(code, count);
            }
        }
        for (chunk, first) in self.chunks.iter().zip((0u64..).step_by(CHUNK_SLOTS as usize)) {
            let slots = chunk.get().into_iter().flat_map(|slots| slots.iter());
            for (slot, number) in slots.zip(first..) {
                totals.add(number, EventState(slot.state.load(Ordering::Acquire)));
            }
        }
        totals
    }
}
