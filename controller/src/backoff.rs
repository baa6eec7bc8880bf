//! How long a failed object waits before its retry: longer with every failure, and never all objects at once.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
pub const LONGEST: Duration = Duration::from_secs(300);

/// The longest wait of an object that is being deleted: someone waits for it to be gone.
pub const LONGEST_OF_DELETIONS: Duration = Duration::from_secs(15);

/// Returns the wait after a number of consecutive failures (1 for the first), between half and all of an exponentially
/// growing time. `random` is in [0, 1).
pub fn delay(failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    whole.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

/// Returns a time around the given one, so that objects that start together drift apart.
pub fn jittered(around: Duration, random: f64) -> Duration {
    around.mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_five_minutes() {
        let whole = |failures| delay(failures, 1.0).as_secs();
        assert_eq!([1, 2, 3, 9, 10, 100].map(whole), [1, 2, 4, 256, 300, 300]);
        assert_eq!(delay(u32::MAX, 1.0), LONGEST);
    }

    #[test]
    fn waits_are_spread_over_half_of_their_length() {
        assert_eq!(delay(1, 0.0), Duration::from_millis(500));
        assert_eq!(delay(3, 0.5), Duration::from_secs(3));
        assert_eq!(jittered(Duration::from_secs(10), 0.0), Duration::from_secs(8));
        assert_eq!(jittered(Duration::from_secs(10), 1.0), Duration::from_secs(12));
    }
}
