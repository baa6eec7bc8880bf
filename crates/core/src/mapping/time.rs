//! The time at which an event occurred, in the formats of providers.

use grapnel_crds::TimeFormat;
use jiff::Timestamp;

/// 0000-01-01T00:00:00Z.
const YEAR_ZERO: i64 = -62_167_219_200;

/// Parses a time. RFC 3339 has no years before 0000: the parser accepts them, but PostgreSQL cannot store all of them.
pub(super) fn read(text: &str, format: TimeFormat) -> Option<Timestamp> {
    let time = match format {
        TimeFormat::Rfc3339 => text.parse().ok(),
        TimeFormat::Unix => unix(text),
        TimeFormat::UnixMilliseconds => Timestamp::from_millisecond(text.parse().ok()?).ok(),
        TimeFormat::HttpDate => {
            let time = httpdate::parse_http_date(text).ok()?;
            Timestamp::try_from(time).ok()
        }
    };
    time.filter(|time| time.as_second() >= YEAR_ZERO)
}

/// Parses seconds. Decimals after the ninth are ignored.
fn unix(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) {
        return None;
    }
    let nanoseconds: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    Timestamp::new(seconds.parse().ok()?, nanoseconds.parse().ok()?).ok()
}
