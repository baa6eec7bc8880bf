//! The state of one number, packed into 64 bits, and its transitions as pure functions.
//!
//! ```text
//! bits  0..3   phase            bits 13..17  marks
//!       3..13  status code           17..33  deliveries, saturating
//! ```
//!
//! A promise (any 2xx) is final. An attempt that may have been accepted although we were not told so leaves a mark
//! that no later answer removes: after it, a delivery can never be called a phantom.

const PHASE: u64 = 0b111;
const CODE_SHIFT: u32 = 3;
const CODE: u64 = 0x3ff << CODE_SHIFT;
/// An attempt had no answer, or one that does not exclude that the event was accepted.
const UNCERTAIN: u64 = 1 << 13;
/// Delivered while it had never been sent.
const EARLY: u64 = 1 << 14;
/// The sink refused one delivery on purpose.
const REFUSED_ONCE: u64 = 1 << 15;
const DELIVERIES_SHIFT: u32 = 17;
const DELIVERIES: u64 = 0xffff << DELIVERIES_SHIFT;

/// How one request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The target answered with this status code.
    Status(u16),
    /// The connection broke or the deadline passed.
    None,
}

impl Answer {
    /// A 2xx: the target took responsibility for the event.
    pub(crate) fn is_promise(self) -> bool {
        matches!(self, Answer::Status(200..=299))
    }

    /// No answer, "later", or a fault of the target's: what providers send again.
    pub(crate) fn is_worth_a_resend(self) -> bool {
        matches!(self, Answer::None | Answer::Status(429 | 500..))
    }
}

/// Where a number stands with the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    NotSent,
    /// A request has left or is leaving.
    InFlight,
    /// 202, or another 2xx that is not 200.
    Accepted,
    /// 200: the target says that it has the event already.
    Duplicate,
    Refused(u16),
    NoAnswer,
}

/// One number's state. The default is "not sent".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Word(pub(crate) u64);

impl Word {
    pub(crate) fn phase(self) -> Phase {
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

    fn with_phase(self, phase: Phase) -> Word {
        let bits = match phase {
            Phase::NotSent => 0,
            Phase::InFlight => 1,
            Phase::Accepted => 2,
            Phase::Duplicate => 3,
            Phase::Refused(code) => 4 | (u64::from(code) << CODE_SHIFT & CODE),
            Phase::NoAnswer => 5,
        };
        Word(self.0 & !(PHASE | CODE) | bits)
    }

    pub(crate) fn is_promised(self) -> bool {
        matches!(self.phase(), Phase::Accepted | Phase::Duplicate)
    }

    pub(crate) fn is_uncertain(self) -> bool {
        self.0 & UNCERTAIN != 0
    }

    pub(crate) fn deliveries(self) -> u32 {
        ((self.0 & DELIVERIES) >> DELIVERIES_SHIFT) as u32
    }

    /// Whether a delivery of this number has no explanation.
    pub(crate) fn is_phantom(self) -> bool {
        let excluded = match self.phase() {
            Phase::NotSent => true,
            Phase::Refused(_) => !self.is_uncertain(),
            Phase::InFlight | Phase::Accepted | Phase::Duplicate | Phase::NoAnswer => false,
        };
        excluded || self.0 & EARLY != 0
    }

    pub(crate) fn begun(self) -> Word {
        if self.is_promised() { self } else { self.with_phase(Phase::InFlight) }
    }

    pub(crate) fn taken_back(self, before: Word) -> Word {
        self.with_phase(before.phase())
    }

    pub(crate) fn answered(self, answer: Answer) -> Word {
        if self.is_promised() {
            return self;
        }
        match answer {
            Answer::Status(200) => self.with_phase(Phase::Duplicate),
            Answer::Status(201..=299) => self.with_phase(Phase::Accepted),
            Answer::Status(code @ 400..=499) => self.with_phase(Phase::Refused(code)),
            // A fault may strike after the commit, so a 5xx (or a code that makes no sense here) excludes nothing.
            Answer::Status(code) => Word(self.with_phase(Phase::Refused(code)).0 | UNCERTAIN),
            Answer::None => Word(self.with_phase(Phase::NoAnswer).0 | UNCERTAIN),
        }
    }

    pub(crate) fn may_be_refused(self) -> bool {
        self.0 & REFUSED_ONCE == 0 && self.deliveries() == 0 && self.phase() != Phase::NotSent
    }

    pub(crate) fn refused_once(self) -> Word {
        if self.may_be_refused() { Word(self.0 | REFUSED_ONCE) } else { self }
    }

    pub(crate) fn delivered(self) -> Word {
        let early = if self.phase() == Phase::NotSent { EARLY } else { 0 };
        let more = if self.0 & DELIVERIES == DELIVERIES { 0 } else { 1 << DELIVERIES_SHIFT };
        Word((self.0 | early) + more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_survives_the_packing() {
        for phase in [
            Phase::NotSent,
            Phase::InFlight,
            Phase::Accepted,
            Phase::Duplicate,
            Phase::Refused(100),
            Phase::Refused(999),
            Phase::NoAnswer,
        ] {
            let busy = Word(UNCERTAIN | EARLY | REFUSED_ONCE | DELIVERIES);
            assert_eq!(busy.with_phase(phase).phase(), phase);
            assert_eq!(busy.with_phase(phase).deliveries(), 0xffff);
        }
    }

    #[test]
    fn a_promise_is_final() {
        let accepted = Word::default().begun().answered(Answer::Status(202));
        assert_eq!(accepted.begun(), accepted);
        assert_eq!(accepted.answered(Answer::None), accepted);
        assert_eq!(accepted.answered(Answer::Status(401)), accepted);
    }

    #[test]
    fn deliveries_saturate() {
        let mut word = Word::default().begun();
        for _ in 0..70_000 {
            word = word.delivered();
        }
        assert_eq!(word.deliveries(), 0xffff);
        assert_eq!(word.phase(), Phase::InFlight);
    }

    #[test]
    fn only_an_answer_that_settles_nothing_is_worth_a_resend() {
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
