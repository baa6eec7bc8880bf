//! When each number of an open loop is due.

use std::time::Duration;

use crate::config::Amount;
use crate::ledger::MAX_NUMBERS;

/// The times at which the numbers of an open loop are due.
#[derive(Debug, Clone, Copy)]
pub(super) struct DueTimes {
    rate_per_second: u64,
    total: u64,
}

impl DueTimes {
    pub(super) fn new(rate_per_second: u32, amount: Amount) -> DueTimes {
        let rate_per_second = u64::from(rate_per_second.max(1));
        let total = match amount {
            Amount::Events(events) => events,
            Amount::Time(time) => time.as_secs().saturating_mul(rate_per_second),
        };
        DueTimes { rate_per_second, total: total.min(MAX_NUMBERS) }
    }

    pub(super) fn total(self) -> u64 {
        self.total
    }

    /// Returns when `number` is due, counted from the start.
    pub(super) fn of(self, number: u64) -> Duration {
        let (seconds, rest) = (number / self.rate_per_second, number % self.rate_per_second);
        // The rest is less than the rate, a u32, so the product fits.
        Duration::new(seconds, 0)
            + Duration::from_nanos((rest * 1_000_000_000).div_ceil(self.rate_per_second))
    }

    /// Returns how many numbers are due after `elapsed`.
    pub(super) fn count(self, elapsed: Duration) -> u64 {
        let whole = elapsed.as_secs().saturating_mul(self.rate_per_second);
        let part = u64::from(elapsed.subsec_nanos()) * self.rate_per_second / 1_000_000_000;
        whole.saturating_add(part).saturating_add(1).min(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_even_and_both_directions_agree() {
        for rate in [1, 3, 7, 200, 1_000, 12_345, 1_000_000] {
            let times = DueTimes::new(rate, Amount::Events(MAX_NUMBERS));
            for number in [0, 1, 2, 99, 12_344, 12_345, 1_000_001] {
                let due = times.of(number);
                assert_eq!(times.count(due), number + 1, "rate {rate}, number {number}");
                if let Some(before) = due.checked_sub(Duration::from_nanos(1)) {
                    assert_eq!(times.count(before), number, "rate {rate}, number {number}");
                }
            }
        }
    }
}
