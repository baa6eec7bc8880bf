//! How fast a replay goes, and when it pauses itself.

use std::time::Duration;

/// The attempts that a replay judges its receivers by.
pub const RECENT_ATTEMPTS: u32 = 50;

/// What the credit of a replay is worth at most, in time: what it could not feed while it was held up is not made up for.
const LARGEST_CREDIT: Duration = Duration::from_millis(500);

/// The part of a destination's concurrency that replays may have, so that deliveries of new events keep the rest.
const WINDOW_PART: usize = 4;

/// Returns how many deliveries may be fed now: those that were left, and those of the time since then. At least one can be saved up, however low the
/// rate is.
pub fn credit(left: f64, since: Duration, rate_per_second: u32) -> f64 {
    let rate = f64::from(rate_per_second);
    let most = (rate * LARGEST_CREDIT.as_secs_f64()).max(1.0);
    (left + rate * since.as_secs_f64()).clamp(0.0, most)
}

/// Returns how many deliveries of replays may be under way to a destination, with so many workers that consume its queue.
pub fn window(max_concurrency: usize, lanes: usize) -> usize {
    (max_concurrency.saturating_mul(lanes) / WINDOW_PART).max(1)
}

/// The outcomes of the last attempts of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecentAttempts(u64);

impl RecentAttempts {
    /// Reads the stored form: a bit for each attempt, the newest in the lowest one.
    pub const fn from_stored(bits: i64) -> Self {
        Self(bits.cast_unsigned())
    }

    pub const fn stored(self) -> i64 {
        self.0.cast_signed()
    }

    pub const fn add(&mut self, has_failed: bool) {
        self.0 = (self.0 << 1 | has_failed as u64) & ((1 << RECENT_ATTEMPTS) - 1);
    }

    /// Returns how many of them failed.
    pub const fn failures(self) -> u32 {
        self.0.count_ones()
    }

    /// Returns whether so many failed that it is of no use to go on: over half of the attempts that it remembers.
    pub const fn are_mostly_failures(self) -> bool {
        self.failures() > RECENT_ATTEMPTS / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_grows_with_time_and_is_bounded() {
        let after = |left, milliseconds, rate| credit(left, Duration::from_millis(milliseconds), rate);
        let is = |one: f64, other: f64| (one - other).abs() < 1e-9;
        assert!(is(after(0.0, 100, 50), 5.0));
        assert!(is(after(2.0, 100, 50), 7.0));
        assert!(is(after(0.0, 60_000, 50), 25.0));
        assert!(is(after(0.0, 250, 1), 0.25));
        assert!(is(after(0.5, 60_000, 1), 1.0));
    }

    #[test]
    fn the_window_is_a_quarter_of_the_concurrency_of_all_lanes_and_at_least_one() {
        assert_eq!(window(32, 2), 16);
        assert_eq!(window(32, 0), 1);
        assert_eq!(window(1, 1), 1);
        assert_eq!(window(5, 1), 1);
    }

    #[test]
    fn over_half_of_the_last_fifty_attempts_are_too_many_failures() {
        let mut recent = RecentAttempts::default();
        (0..25).for_each(|_| recent.add(true));
        assert!(!recent.are_mostly_failures());
        recent.add(true);
        assert!(recent.are_mostly_failures());
        assert_eq!(RecentAttempts::from_stored(recent.stored()), recent);
        (0..24).for_each(|_| recent.add(false));
        assert!(recent.are_mostly_failures());
        // The first of them is the fifty-first by now.
        recent.add(false);
        assert_eq!(recent.failures(), 25);
        assert!(!recent.are_mostly_failures());
    }
}
