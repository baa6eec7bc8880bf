//! The verdict over a finished run: what each number's last state means.

use std::collections::BTreeMap;

use super::word::{Phase, Word};

/// So many numbers are named in the report for each kind of failure, so that one can look them up.
const NAMED_NUMBERS: usize = 20;

/// The slots of a finished run, counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) attempts_without_answer: u64,
    pub(crate) answers: BTreeMap<u16, u64>,
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    pub(crate) duplicates_answered: u64,
    pub(crate) duplicates_unexplained: u64,
    pub(crate) refused: BTreeMap<u16, u64>,
    pub(crate) unknown: u64,
    pub(crate) delivered: u64,
    pub(crate) delivered_twice_or_more: u64,
    pub(crate) duplicate_deliveries: u64,
    pub(crate) failed_on_purpose: u64,
    pub(crate) lost: u64,
    pub(crate) lost_numbers: Vec<u64>,
    pub(crate) phantom: u64,
    pub(crate) phantom_numbers: Vec<u64>,
    pub(crate) unknown_delivered: u64,
}

impl Tally {
    /// Decides what the state of one number means for the report; nothing else does.
    pub(crate) fn add(&mut self, number: u64, word: Word) {
        let deliveries = word.deliveries();
        match word.phase() {
            Phase::NotSent => {}
            Phase::Accepted => self.accepted += 1,
            Phase::Duplicate => {
                self.duplicates_answered += 1;
                // No earlier request of ours can have been the first one.
                self.duplicates_unexplained += u64::from(!word.is_uncertain());
            }
            Phase::Refused(code) => *self.refused.entry(code).or_default() += 1,
            Phase::InFlight | Phase::NoAnswer => self.unknown += 1,
        }
        self.sent += u64::from(word.phase() != Phase::NotSent);
        self.delivered += u64::from(deliveries > 0);
        self.delivered_twice_or_more += u64::from(deliveries > 1);
        self.duplicate_deliveries += u64::from(deliveries.saturating_sub(1));

        if deliveries == 0 && word.is_promised() {
            self.lost += 1;
            name(&mut self.lost_numbers, number);
        }
        if deliveries > 0 && word.is_phantom() {
            self.phantom += 1;
            name(&mut self.phantom_numbers, number);
        } else if deliveries > 0 && !word.is_promised() {
            self.unknown_delivered += 1;
        }
    }
}

fn name(numbers: &mut Vec<u64>, number: u64) {
    if numbers.len() < NAMED_NUMBERS {
        numbers.push(number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::super::ledger::Ledger;
    use super::super::word::Answer;

    /// What happened to one number, told step by step.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Step {
        Begin,
        TakeBack,
        Answer(Answer),
        Deliver,
    }

    /// Steps that can follow each other: an answer or a taking back ends a request that was begun.
    fn histories() -> impl Strategy<Value = Vec<Step>> {
        let end = prop_oneof![
            Just(Step::TakeBack),
            Just(Step::Answer(Answer::None)),
            proptest::sample::select(vec![200, 202, 302, 401, 429, 500, 503])
                .prop_map(|c| Step::Answer(Answer::Status(c))),
        ];
        let request = (0..3usize, end).prop_map(|(overtaking, end)| {
            let mut steps = vec![Step::Begin];
            steps.extend(std::iter::repeat_n(Step::Deliver, overtaking / 2));
            steps.push(end);
            steps
        });
        let pieces =
            proptest::collection::vec(prop_oneof![3 => request, 1 => Just(vec![Step::Deliver])], 0..5);
        (pieces, any::<bool>()).prop_map(|(pieces, cut_short)| {
            let mut steps = pieces.concat();
            // The run ends while a request is under way.
            steps.extend(cut_short.then_some(Step::Begin));
            // A promise ends the sending of a number.
            if let Some(promise) =
                steps.iter().position(|step| matches!(step, Step::Answer(answer) if answer.is_promise()))
            {
                let late = steps.split_off(promise + 1);
                steps.extend(late.into_iter().filter(|step| *step == Step::Deliver));
            }
            steps
        })
    }

    proptest! {
        #[test]
        fn the_verdict_follows_from_the_history(history in histories()) {
            let ledger = Ledger::new(1);
            let mut begun = Vec::new();
            for step in &history {
                match *step {
                    Step::Begin => begun.push(ledger.begin(0, Instant::now()).expect("in range")),
                    Step::TakeBack => ledger.take_back(0, begun.pop().expect("it was begun")),
                    Step::Answer(answer) => ledger.answered(0, answer),
                    Step::Deliver => { ledger.delivered(0, Instant::now()); }
                }
            }
            // The same, by the words of the report's documentation.
            let mut left: Vec<Step> = Vec::new();
            let mut early = false;
            for step in &history {
                match step {
                    Step::TakeBack => { left.pop(); }
                    Step::Deliver => early |= left.is_empty(),
                    Step::Begin | Step::Answer(_) => left.push(*step),
                }
            }
            let deliveries = history.iter().filter(|step| **step == Step::Deliver).count() as u64;
            let answer_is = |wanted: fn(Answer) -> bool| left.iter().any(|step| matches!(step, Step::Answer(answer) if wanted(*answer)));
            let promised = answer_is(Answer::is_promise);
            let only_refused = matches!(left.last(), Some(Step::Answer(_)))
                && !answer_is(|answer| !matches!(answer, Answer::Status(400..=499)));
            let phantom = deliveries > 0 && (early || left.is_empty() || only_refused);
            let tally = ledger.tally();
            prop_assert_eq!(tally.sent, u64::from(!left.is_empty()));
            prop_assert_eq!(tally.requests, left.iter().filter(|step| **step == Step::Begin).count() as u64);
            prop_assert_eq!(tally.lost, u64::from(promised && deliveries == 0));
            prop_assert_eq!(tally.phantom, u64::from(phantom));
            prop_assert_eq!(tally.unknown_delivered, u64::from(deliveries > 0 && !phantom && !promised));
            prop_assert_eq!(tally.duplicate_deliveries, deliveries.saturating_sub(1));
            let kinds = tally.accepted + tally.duplicates_answered + tally.unknown + tally.refused.values().sum::<u64>();
            prop_assert_eq!(kinds, tally.sent);
            prop_assert_eq!(ledger.progress().outstanding, tally.lost);
        }
    }
}
