//! Whether a rate was kept: the slowest and the fastest ten seconds, as a receiver saw them.

use std::time::Duration;

use serde::Serialize;

/// The slots in which arrivals are counted.
const SLOT: Duration = Duration::from_millis(100);
/// The slots of ten seconds.
const WINDOW: usize = 100;
/// A day. What arrives later is not part of any window.
const MAX_SLOTS: usize = 864_000;

/// Arrivals by time.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    slots: Vec<u32>,
}

/// The rates of the slowest and of the fastest ten seconds, in deliveries per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptRate {
    /// Of the slowest ten seconds.
    pub slowest: f64,
    /// Of the fastest.
    pub fastest: f64,
}

impl KeptRate {
    /// The part by which ten seconds may differ from the rate that was asked for.
    const TOLERATED: f64 = 0.1;

    pub(crate) fn is_of(self, rate: u32) -> bool {
        let rate = f64::from(rate);
        let allowed = rate * (1.0 - Self::TOLERATED)..=rate * (1.0 + Self::TOLERATED);
        allowed.contains(&self.slowest) && allowed.contains(&self.fastest)
    }
}

impl Arrivals {
    /// Counts an arrival, so long after the beginning.
    pub(crate) fn add(&mut self, after: Duration) {
        let slot = usize::try_from(after.as_millis() / SLOT.as_millis()).unwrap_or(usize::MAX);
        if slot >= MAX_SLOTS {
            return;
        }
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, 0);
        }
        self.slots[slot] = self.slots[slot].saturating_add(1);
    }

    /// Returns the rates between the first and the last arrival, whose own slots are not full; `None` when that is less than ten seconds.
    pub(crate) fn kept_rate(&self) -> Option<KeptRate> {
        let first = self.slots.iter().position(|count| *count > 0)?;
        let full = self.slots.get(first + 1..self.slots.len() - 1)?;
        let of_window = |window: &[u32]| window.iter().map(|count| u64::from(*count)).sum::<u64>();
        let sums = || full.windows(WINDOW).map(of_window);
        let per_second = |sum: u64| sum as f64 / (SLOT.as_secs_f64() * WINDOW as f64);
        Some(KeptRate { slowest: per_second(sums().min()?), fastest: per_second(sums().max()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(slots: impl IntoIterator<Item = u32>) -> Arrivals {
        let mut arrivals = Arrivals::default();
        for (slot, count) in (0u32..).zip(slots) {
            for _ in 0..count {
                arrivals.add(SLOT * slot);
            }
        }
        arrivals
    }

    #[test]
    fn the_rate_is_that_of_full_windows_between_the_first_and_the_last_arrival() {
        let steady = [0, 0, 1].into_iter().chain(std::iter::repeat_n(5, 150)).chain([1]);
        let kept = arrivals(steady).kept_rate().expect("more than ten seconds");
        assert_eq!((kept.slowest, kept.fastest), (50.0, 50.0));
        assert!(kept.is_of(50) && kept.is_of(46) && !kept.is_of(60) && !kept.is_of(40));
        let pause = std::iter::repeat_n(5, 120).chain(std::iter::repeat_n(0, 60)).chain([5, 5]);
        let kept = arrivals(pause).kept_rate().expect("more than ten seconds");
        assert_eq!((kept.slowest, kept.fastest), (20.0, 50.0));
    }

    #[test]
    fn less_than_ten_seconds_has_no_rate() {
        assert_eq!(arrivals([]).kept_rate(), None);
        assert_eq!(arrivals([7]).kept_rate(), None);
        assert_eq!(arrivals(std::iter::repeat_n(5, 101)).kept_rate(), None);
        assert!(arrivals(std::iter::repeat_n(5, 102)).kept_rate().is_some());
    }
}
