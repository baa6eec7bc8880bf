//! The numbers of each minute: what is read several times in a minute becomes its most, and a row only if it says something new. Pure.

use std::collections::HashMap;

use grapnel_core::ids::IntegrationId;
use grapnel_store::worker_minutes::{LONGEST_GAP, WorkerMinute};
use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};

/// What is read of an Integration; absent: it could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    pub backlog: Option<i64>,
    pub desired: Option<i32>,
    pub ready: Option<i32>,
}

impl Numbers {
    fn most(self, other: Self) -> Self {
        Self {
            backlog: self.backlog.max(other.backlog),
            desired: self.desired.max(other.desired),
            ready: self.ready.max(other.ready),
        }
    }
}

/// The minute that goes on, and the last row of each Integration.
#[derive(Debug, Default)]
pub struct Minutes {
    minute: Timestamp,
    current: HashMap<IntegrationId, Numbers>,
    last: HashMap<IntegrationId, (Timestamp, Numbers)>,
}

impl Minutes {
    /// Adds a reading. Returns the rows of the minute before, once it is over.
    pub fn read(
        &mut self,
        now: Timestamp,
        numbers: impl Iterator<Item = (IntegrationId, Numbers)>,
    ) -> Vec<WorkerMinute> {
        let minute = TimestampRound::new().smallest(Unit::Minute).mode(RoundMode::Floor);
        let minute = now.round(minute).unwrap_or(now);
        let mut over = Vec::new();
        if minute != self.minute {
            over = self.end();
            self.minute = minute;
        }
        for (id, numbers) in numbers {
            self.current.entry(id).and_modify(|most| *most = most.most(numbers)).or_insert(numbers);
        }
        over
    }

    /// Forgets which rows there are: the next ones may not have been written.
    pub fn forget(&mut self) {
        self.last.clear();
    }

    fn end(&mut self) -> Vec<WorkerMinute> {
        let current = std::mem::take(&mut self.current);
        self.last.retain(|id, _| current.contains_key(id));
        let longest = SignedDuration::try_from(LONGEST_GAP).unwrap_or(SignedDuration::ZERO);
        let mut rows = Vec::new();
        for (id, numbers) in current {
            let says_nothing_new = self
                .last
                .get(&id)
                .is_some_and(|(at, last)| *last == numbers && self.minute.duration_since(*at) < longest);
            if !says_nothing_new {
                self.last.insert(id, (self.minute, numbers));
                let Numbers { backlog, desired, ready } = numbers;
                rows.push(WorkerMinute { id, minute: self.minute, backlog, desired, ready });
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_a_row_if_it_differs_or_after_a_while() {
        let mut minutes = Minutes::default();
        let id = IntegrationId::new(uuid::Uuid::now_v7());
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let mut read = |seconds, backlog| {
            let numbers = Numbers { backlog, desired: Some(1), ready: Some(1) };
            let rows = minutes.read(at(seconds), std::iter::once((id, numbers)));
            rows.iter().map(|row| (row.minute.as_second() - 1_800_000_000, row.backlog)).collect::<Vec<_>>()
        };
        assert_eq!(read(5, Some(1)), []);
        assert_eq!(read(30, Some(9)), []);
        assert_eq!(read(55, None), []);
        assert_eq!(read(61, Some(9)), [(0, Some(9))], "the most of the minute that is over");
        for minute in 2..16 {
            assert_eq!(read(minute * 60, Some(9)), [], "minute {minute}");
        }
        assert_eq!(read(16 * 60, Some(3)), [(15 * 60, Some(9))], "as long as a row holds");
        assert_eq!(read(17 * 60, Some(3)), [(16 * 60, Some(3))]);
    }
}
