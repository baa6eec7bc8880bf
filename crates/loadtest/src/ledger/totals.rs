//! The totals of a finished run: how the final state of each number is counted.

use std::collections::BTreeMap;

use super::event_state::{EventState, Phase};

/// How many numbers the report lists for each kind of failure, so that they can be looked up.
const MAX_LISTED_NUMBERS: usize = 20;

/// The totals over all slots of a ledger.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LedgerTotals {
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

impl LedgerTotals {
    /// Counts the final state of one number. Nothing else decides what it means.
    pub(super) fn add(&mut self, number: u64, state: EventState) {
        let deliveries = state.deliveries();
        match state.phase() {
            Phase::NotSent => {}
            Phase::Accepted => self.accepted += 1,
            Phase::Duplicate => {
                self.duplicates_answered += 1;
                // No earlier request of this run can have been accepted.
                self.duplicates_unexplained += u64::from(!state.is_uncertain());
            }
            Phase::Refused(code) => *self.refused.entry(code).or_default() += 1,
            Phase::InFlight | Phase::NoAnswer => self.unknown += 1,
        }
        self.sent += u64::from(state.phase() != Phase::NotSent);
        self.delivered += u64::from(deliveries > 0);
        self.delivered_twice_or_more += u64::from(deliveries > 1);
        self.duplicate_deliveries += u64::from(deliveries.saturating_sub(1));

        if deliveries == 0 && state.is_accepted() {
            self.lost += 1;
            list(&mut self.lost_numbers, number);
        }
        if deliveries > 0 && state.is_phantom() {
            self.phantom += 1;
            list(&mut self.phantom_numbers, number);
        } else if deliveries > 0 && !state.is_accepted() {
            self.unknown_delivered += 1;
        }
    }
}

fn list(numbers: &mut Vec<u64>, number: u64) {
    if numbers.len() < MAX_LISTED_NUMBERS {
        numbers.push(number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::super::{Answer, Ledger};

    /// One step in the history of a number.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Step {
        Begin,
        Undo,
        Answer(Answer),
        Deliver,
    }

    /// Steps in a possible order: an answer or an undo ends a request that was begun.
    fn histories() -> impl Strategy<Value = Vec<Step>> {
        let end = prop_oneof![
            Just(Step::Undo),
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
            // The run ends while a request is in flight.
            steps.extend(cut_short.then_some(Step::Begin));
            // An acceptance ends the sending of a number.
            if let Some(acceptance) =
                steps.iter().position(|step| matches!(step, Step::Answer(answer) if answer.is_acceptance()))
            {
                let late = steps.split_off(acceptance + 1);
                steps.extend(late.into_iter().filter(|step| *step == Step::Deliver));
            }
            steps
        })
    }

    proptest! {
        #[test]
        fn the_totals_follow_from_the_history(history in histories()) {
            let ledger = Ledger::new(1);
            let mut begun = Vec::new();
            for step in &history {
                match *step {
                    Step::Begin => begun.push(ledger.begin(0, Instant::now()).expect("in range")),
                    Step::Undo => ledger.undo_begin(0, begun.pop().expect("it was begun")),
                    Step::Answer(answer) => ledger.record_answer(0, answer),
                    Step::Deliver => { ledger.record_delivery(0, Instant::now()); }
                }
            }
            // The same, by the documentation of the report.
            let mut left: Vec<Step> = Vec::new();
            let mut early = false;
            for step in &history {
                match step {
                    Step::Undo => { left.pop(); }
                    Step::Deliver => early |= left.is_empty(),
                    Step::Begin | Step::Answer(_) => left.push(*step),
                }
            }
            let deliveries = history.iter().filter(|step| **step == Step::Deliver).count() as u64;
            let answer_is = |wanted: fn(Answer) -> bool| left.iter().any(|step| matches!(step, Step::Answer(answer) if wanted(*answer)));
            let accepted = answer_is(Answer::is_acceptance);
            let only_refused = matches!(left.last(), Some(Step::Answer(_)))
                && !answer_is(|answer| !matches!(answer, Answer::Status(400..=499)));
            let phantom = deliveries > 0 && (early || left.is_empty() || only_refused);
            let totals = ledger.totals();
            prop_assert_eq!(totals.sent, u64::from(!left.is_empty()));
            prop_assert_eq!(totals.requests, left.iter().filter(|step| **step == Step::Begin).count() as u64);
            prop_assert_eq!(totals.lost, u64::from(accepted && deliveries == 0));
            prop_assert_eq!(totals.phantom, u64::from(phantom));
            prop_assert_eq!(totals.unknown_delivered, u64::from(deliveries > 0 && !phantom && !accepted));
            prop_assert_eq!(totals.duplicate_deliveries, deliveries.saturating_sub(1));
            let kinds = totals.accepted + totals.duplicates_answered + totals.unknown + totals.refused.values().sum::<u64>();
            prop_assert_eq!(kinds, totals.sent);
            prop_assert_eq!(ledger.progress().outstanding, totals.lost);
        }
    }
}
