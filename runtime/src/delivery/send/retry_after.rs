//! Parses the `Retry-After` header (RFC 9110 section 10.2.3): seconds, or a date. Pure.

use std::time::Duration;

use jiff::Timestamp;

/// Returns the wait that the receiver requests, counted from `now`; `None` if it cannot be parsed. A date in the past means
/// no wait. Receivers also send fractions of a second, which the RFC does not define; they are rounded up, so that the
/// wait is never shorter than requested. The value is not bounded here.
pub(super) fn parse(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    seconds(value).or_else(|| until_date(value, now))
}

fn seconds(value: &str) -> Option<Duration> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    // Digits that do not fit become the longest wait, which the policy then bounds.
    let whole: u64 = whole.parse().unwrap_or(u64::MAX);
    let partial = u64::from(fraction.bytes().any(|byte| byte != b'0'));
    Some(Duration::from_secs(whole.saturating_add(partial)))
}

fn until_date(value: &str, now: Timestamp) -> Option<Duration> {
    let date = Timestamp::try_from(httpdate::parse_http_date(value).ok()?).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse_at_noon(value: &str) -> Option<Duration> {
        parse(value, "2026-11-24T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn seconds_are_read() {
        for (value, seconds) in [
            ("0", 0),
            ("120", 120),
            (" 7 ", 7),
            ("007", 7),
            ("1.0", 1),
            ("1.001", 2),
            ("0.5", 1),
            ("18446744073709551615", u64::MAX),
            ("18446744073709551615.5", u64::MAX),
            ("99999999999999999999999", u64::MAX),
        ] {
            assert_eq!(parse_at_noon(value), Some(Duration::from_secs(seconds)), "{value}");
        }
    }

    #[test]
    fn dates_are_counted_from_now() {
        for (value, seconds) in [
            ("Tue, 24 Nov 2026 12:01:30 GMT", 90),
            ("Tuesday, 24-Nov-26 12:01:30 GMT", 90),
            ("Tue Nov 24 12:01:30 2026", 90),
            ("Tue, 24 Nov 2026 12:00:00 GMT", 0),
            ("Tue, 24 Nov 2026 11:59:59 GMT", 0),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ] {
            assert_eq!(parse_at_noon(value), Some(Duration::from_secs(seconds)), "{value}");
        }
    }

    #[test]
    fn anything_else_is_ignored() {
        for value in
            ["", " ", "soon", "-5", "+5", "1e3", "5s", ".5", "5.", "1.2.3", "1,5", "2026-11-24T12:00:00Z"]
        {
            assert_eq!(parse_at_noon(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_value_and_no_time_panics(value: String, seconds in -377_705_023_201_i64..=253_402_207_200) {
            parse(&value, Timestamp::from_second(seconds).unwrap());
        }

        #[test]
        fn every_date_is_read_at_every_time(
            date in 0_i64..=253_402_207_200,
            seconds in -377_705_023_201_i64..=253_402_207_200,
        ) {
            let now = Timestamp::from_second(seconds).unwrap();
            let value = httpdate::fmt_http_date(Timestamp::from_second(date).unwrap().into());
            let wait = u64::try_from(date - seconds).unwrap_or(0);
            prop_assert_eq!(parse(&value, now), Some(Duration::from_secs(wait)));
        }
    }
}
