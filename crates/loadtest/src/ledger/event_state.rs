//! The state of one number, packed into 64 bits, and its transitions as pure functions.
//!
//! ```text
//! bits  0..3   phase            bits 13..17  marks
//!       3..13  status code           17..33  deliveries, saturating
//! ```
//!
//! An acceptance (any 2xx) is final. An attempt that may have been accepted without an answer that confirms it leaves a
//! mark that no later answer removes: from then on, a delivery is never a phantom.

use super::Answer;

const PHASE: u64 = 0b111;
const CODE_SHIFT: u32 = 3;
const CODE: u64 = 0x3ff << CODE_SHIFT;
/// An attempt may have been accepted: it had no answer, or one that does not exclude it.
const UNCERTAIN: u64 = 1 << 13;
/// It was delivered before it was sent.
const EARLY: u64 = 1 << 14;
/// The sink has refused one delivery on purpose.
const REFUSED_ONCE: u64 = 1 << 15;
const DELIVERIES_SHIFT: u32 = 17;
const DELIVERIES: u64 = 0xffff << DELIVERIES_SHIFT;

/// The state of a number at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    NotSent,
    /// A request has left or is leaving.
    InFlight,
    /// 202, or another 2xx that is not 200.
    Accepted,
    /// 200: the target has the event already.
    Duplicate,
    Refused(u16),
    NoAnswer,
}

/// The state of one number. The default is "not sent".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct EventState(pub(super) u64);

impl EventState {
    pub(super) fn phase(self) -> Phase {
        match self.0 & PHASE {
            0 => Phase::NotSent,
            1 => Phase::InFlight,
            2 => Phase::Accepted,
            3 => Phase::Duplicate,
            // The mask leaves ten bits.
            4 => Phase::Refused(((self.0 & CODE) >> CODE_SHIFT) as u16),
            _ => Phase::NoAnswer,
        }
    }

    fn with_phase(self, phase: Phase) -> EventState {
        let bits = match phase {
            Phase::NotSent => 0,
            Phase::InFlight => 1,
            Phase::Accepted => 2,
            Phase::Duplicate => 3,
            Phase::Refused(code) => 4 | (u64::from(code) << CODE_SHIFT & CODE),
            Phase::NoAnswer => 5,
        };
        EventState(self.0 & !(PHASE | CODE) | bits)
    }

    pub(super) fn is_accepted(self) -> bool {
        matches!(self.phase(), Phase::Accepted | Phase::Duplicate)
    }

    pub(super) fn is_uncertain(self) -> bool {
        self.0 & UNCERTAIN != 0
    }

    pub(super) fn deliveries(self) -> u32 {
        ((self.0 & DELIVERIES) >> DELIVERIES_SHIFT) as u32
    }

    /// Whether nothing explains a delivery of this number.
    pub(super) fn is_phantom(self) -> bool {
        let excluded = match self.phase() {
            Phase::NotSent => true,
            Phase::Refused(_) => !self.is_uncertain(),
            Phase::InFlight | Phase::Accepted | Phase::Duplicate | Phase::NoAnswer => false,
        };
        excluded || self.0 & EARLY != 0
    }

    pub(super) fn after_begin(self) -> EventState {
        if self.is_accepted() { self } else { self.with_phase(Phase::InFlight) }
    }

    pub(super) fn after_undo(self, before: EventState) -> EventState {
        self.with_phase(before.phase())
    }

    pub(super) fn after_answer(self, answer: Answer) -> EventState {
        if self.is_accepted() {
            return self;
        }
        match answer {
            Answer::Status(200) => self.with_phase(Phase::Duplicate),
            Answer::Status(201..=299) => self.with_phase(Phase::Accepted),
            Answer::Status(code @ 400..=499) => self.with_phase(Phase::Refused(code)),
            // A failure may happen after the commit, so a 5xx (or a code that is meaningless here) excludes nothing.
            Answer::Status(code) => EventState(self.with_phase(Phase::Refused(code)).0 | UNCERTAIN),
            Answer::None => EventState(self.with_phase(Phase::NoAnswer).0 | UNCERTAIN),
        }
    }

    pub(super) fn may_be_refused(self) -> bool {
        self.0 & REFUSED_ONCE == 0 && self.deliveries() == 0 && self.phase() != Phase::NotSent
    }

    pub(super) fn after_refusal(self) -> EventState {
        if self.may_be_refused() { EventState(self.0 | REFUSED_ONCE) } else { self }
    }

    pub(super) fn after_delivery(self) -> EventState {
        let early = if self.phase() == Phase::NotSent { EARLY } else { 0 };
        let more = if self.0 & DELIVERIES == DELIVERIES { 0 } else { 1 << DELIVERIES_SHIFT };
        EventState((self.0 | early) + more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_is_unpacked_as_it_was_packed() {
        for phase in [
            Phase::NotSent,
            Phase::InFlight,
            Phase::Accepted,
            Phase::Duplicate,
            Phase::Refused(100),
            Phase::Refused(999),
            Phase::NoAnswer,
        ] {
            let busy = EventState(UNCERTAIN | EARLY | REFUSED_ONCE | DELIVERIES);
            assert_eq!(busy.with_phase(phase).phase(), phase);
            assert_eq!(busy.with_phase(phase).deliveries(), 0xffff);
        }
    }

    #[test]
    fn an_acceptance_is_final() {
        let accepted = EventState::default().after_begin().after_answer(Answer::Status(202));
        assert_eq!(accepted.after_begin(), accepted);
        assert_eq!(accepted.after_answer(Answer::None), accepted);
        assert_eq!(accepted.after_answer(Answer::Status(401)), accepted);
    }

    #[test]
    fn deliveries_saturate() {
        let mut state = EventState::default().after_begin();
        for _ in 0..70_000 {
            state = state.after_delivery();
        }
        assert_eq!(state.deliveries(), 0xffff);
        assert_eq!(state.phase(), Phase::InFlight);
    }

    #[test]
    fn only_an_inconclusive_answer_is_worth_a_resend() {
        for (answer, resend) in [
            (Answer::None, true),
            (Answer::Status(429), true),
            (Answer::Status(503), true),
            (Answer::Status(202), false),
            (Answer::Status(200), false),
            (Answer::Status(401), false),
            (Answer::Status(302), false),
        ] {
            assert_eq!(answer.is_worth_a_resend(), resend, "{answer:?}");
        }
    }
}
