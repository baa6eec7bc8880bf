//! Bounds of time. Times are shown in milliseconds, so bounds are compared in milliseconds: what is listed is within a bound that is copied from
//! its own answer.

use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};

use super::query::Query;
use crate::http::envelope::ApiError;

/// Reads the earliest time of a window.
pub(super) fn from(query: &Query<'_>, name: &str) -> Result<Option<Timestamp>, ApiError> {
    Ok(query.time(name)?.map(whole_milliseconds))
}

/// Reads the latest time of a window, as its end, exclusive.
pub(super) fn until(query: &Query<'_>, name: &str) -> Result<Option<Timestamp>, ApiError> {
    Ok(query.time(name)?.map(end_of_millisecond))
}

fn whole_milliseconds(time: Timestamp) -> Timestamp {
    let floor = TimestampRound::new().smallest(Unit::Millisecond).mode(RoundMode::Floor);
    time.round(floor).unwrap_or(time)
}

fn end_of_millisecond(time: Timestamp) -> Timestamp {
    whole_milliseconds(time).checked_add(SignedDuration::from_millis(1)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_whole_milliseconds() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let shown = time("2026-01-31T09:30:00.123Z");
        let stored = time("2026-01-31T09:30:00.123456Z");
        assert!(whole_milliseconds(shown) <= stored && stored < end_of_millisecond(shown));
        assert_eq!(whole_milliseconds(stored), shown);
        assert!(end_of_millisecond(stored) > stored);
        let old = time("1960-01-31T09:30:00.1234Z");
        assert_eq!(whole_milliseconds(old), time("1960-01-31T09:30:00.123Z"));
        assert_eq!(end_of_millisecond(Timestamp::MAX), Timestamp::MAX);
        assert_eq!(whole_milliseconds(Timestamp::MIN), Timestamp::MIN);
    }
}
