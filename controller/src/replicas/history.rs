//! The scaling history of one Integration: the numbers that its backlog needed, and the changes that were made.
//!
//! It lives in memory. After a restart, a change of leader or a gap in the readings it counts as incomplete, and
//! nothing is scaled down until it spans the window again. Its size is bounded: it keeps only the readings that can
//! still be the highest of a window.

use std::collections::VecDeque;
use std::time::Duration;

/// A longer gap between two readings means that the backlog was unknown in between: the history starts over.
const LONGEST_GAP: Duration = Duration::from_secs(60);

/// The period of the scale-up limit.
pub const UP_PERIOD: Duration = Duration::from_secs(60);

/// The longest stabilization window that the schema allows.
const LONGEST_WINDOW: Duration = Duration::from_secs(3600);

/// Times are durations since the process started: a clock that neither jumps nor runs backwards.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    known_since: Option<Duration>,
    last_read: Duration,
    empty_since: Option<Duration>,
    /// Recommendations in falling order: each is the highest since its time.
    peaks: VecDeque<(Duration, i32)>,
    /// Workers that were added within the last [`UP_PERIOD`].
    raised: VecDeque<(Duration, i32)>,
}

impl History {
    /// Records a reading: the number of workers that it needs, and whether the backlog was empty.
    pub fn observe(&mut self, now: Duration, recommended: i32, empty: bool) {
        if self.known_since.is_none() || now.saturating_sub(self.last_read) > LONGEST_GAP {
            self.known_since = Some(now);
            self.empty_since = None;
            self.peaks.clear();
        }
        self.last_read = now;
        self.empty_since = if empty { self.empty_since.or(Some(now)) } else { None };
        while self.peaks.back().is_some_and(|(_, number)| *number <= recommended) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((now, recommended));
        while self.peaks.front().is_some_and(|(time, _)| now.saturating_sub(*time) > LONGEST_WINDOW) {
            self.peaks.pop_front();
        }
    }

    /// Records a change of the number of workers.
    pub fn record_change(&mut self, now: Duration, from: i32, to: i32) {
        while self.raised.front().is_some_and(|(time, _)| now.saturating_sub(*time) >= UP_PERIOD) {
            self.raised.pop_front();
        }
        if to > from {
            self.raised.push_back((now, to.saturating_sub(from)));
        }
    }

    /// Returns the highest number that was needed within the window that ends now; `None` while the history is shorter.
    pub fn highest_within(&self, window: Duration, now: Duration) -> Option<i32> {
        let since = self.known_since?;
        if now.saturating_sub(since) < window {
            return None;
        }
        let recent = self.peaks.iter().find(|(time, _)| now.saturating_sub(*time) <= window);
        recent.map(|(_, number)| *number)
    }

    /// Returns how long every reading has found the backlog empty; `None` if the last one did not.
    pub fn empty_for(&self, now: Duration) -> Option<Duration> {
        self.empty_since.map(|since| now.saturating_sub(since))
    }

    /// Returns how many workers were added within the last [`UP_PERIOD`].
    pub fn raised_recently(&self, now: Duration) -> i32 {
        let recent = self.raised.iter().filter(|(time, _)| now.saturating_sub(*time) < UP_PERIOD);
        recent.fold(0, |sum, (_, added)| sum.saturating_add(*added))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_highest_of_a_window_is_known_once_the_history_spans_it() {
        let mut history = History::default();
        for (second, number) in [(0, 9), (5, 3), (10, 4), (15, 2)] {
            history.observe(at(second), number, false);
        }
        assert_eq!(history.highest_within(at(20), at(15)), None, "not spanned yet");
        assert_eq!(history.highest_within(at(15), at(15)), Some(9));
        assert_eq!(history.highest_within(at(10), at(15)), Some(4));
        assert_eq!(history.highest_within(at(0), at(15)), Some(2));
    }

    #[test]
    fn a_gap_in_the_readings_starts_the_history_over() {
        let mut history = History::default();
        history.observe(at(0), 0, true);
        history.observe(at(50), 0, true);
        assert_eq!(history.empty_for(at(50)), Some(at(50)));
        history.observe(at(200), 0, true);
        assert_eq!(history.empty_for(at(200)), Some(at(0)));
        assert_eq!(history.highest_within(at(60), at(200)), None);
    }

    #[test]
    fn added_workers_count_for_a_minute() {
        let mut history = History::default();
        history.record_change(at(0), 1, 4);
        history.record_change(at(30), 4, 6);
        history.record_change(at(40), 6, 5);
        assert_eq!(history.raised_recently(at(45)), 5);
        assert_eq!(history.raised_recently(at(70)), 2);
        assert_eq!(history.raised_recently(at(90)), 0);
    }

    #[test]
    fn the_history_is_bounded() {
        let mut history = History::default();
        for second in 0..20_000 {
            history.observe(at(second), i32::try_from(20_000 - second).unwrap(), false);
            history.record_change(at(second), 0, 1);
        }
        assert!(history.peaks.len() <= 3602, "{}", history.peaks.len());
        assert!(history.raised.len() <= 61, "{}", history.raised.len());
    }
}
