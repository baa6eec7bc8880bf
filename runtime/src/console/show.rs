//! Values as people read them: numbers, times, sizes, and text that anybody may have written.

use jiff::{SignedDuration, Timestamp};

use crate::management::model::{
    AttemptStatusView, DeliveryStatusView, EventStatusView, IntegrationStateView, ReplayStatusView,
    Rfc3339Millis,
};

/// A state as a shape, a word and a colour. `tone` is the class: `ok`, `wait`, `bad` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Badge {
    pub(super) tone: &'static str,
    pub(super) word: &'static str,
}

impl Badge {
    pub(super) const fn new(tone: &'static str, word: &'static str) -> Self {
        Self { tone, word }
    }
}

impl<T: Copy> From<&T> for Badge
where
    Self: From<T>,
{
    fn from(state: &T) -> Self {
        Self::from(*state)
    }
}

impl From<EventStatusView> for Badge {
    fn from(status: EventStatusView) -> Self {
        match status {
            EventStatusView::Pending => Self::new("wait", "pending"),
            EventStatusView::Processing => Self::new("wait", "processing"),
            EventStatusView::Retrying => Self::new("wait", "retrying"),
            EventStatusView::Processed => Self::new("ok", "processed"),
            EventStatusView::Failed => Self::new("bad", "failed"),
        }
    }
}

impl From<DeliveryStatusView> for Badge {
    fn from(status: DeliveryStatusView) -> Self {
        match status {
            DeliveryStatusView::Pending => Self::new("wait", "pending"),
            DeliveryStatusView::Processing => Self::new("wait", "processing"),
            DeliveryStatusView::Retrying => Self::new("wait", "retrying"),
            DeliveryStatusView::Succeeded => Self::new("ok", "succeeded"),
            DeliveryStatusView::Failed => Self::new("bad", "failed"),
            DeliveryStatusView::Filtered => Self::new("off", "filtered"),
        }
    }
}

impl From<ReplayStatusView> for Badge {
    fn from(status: ReplayStatusView) -> Self {
        match status {
            ReplayStatusView::Queued => Self::new("wait", "queued"),
            ReplayStatusView::Dispatched => Self::new("wait", "dispatched"),
            ReplayStatusView::Completed => Self::new("ok", "completed"),
            ReplayStatusView::Failed => Self::new("bad", "failed"),
        }
    }
}

impl From<AttemptStatusView> for Badge {
    fn from(status: AttemptStatusView) -> Self {
        match status {
            AttemptStatusView::Success => Self::new("ok", "success"),
            AttemptStatusView::Failed => Self::new("bad", "failed"),
        }
    }
}

impl From<IntegrationStateView> for Badge {
    fn from(state: IntegrationStateView) -> Self {
        match state {
            IntegrationStateView::Active => Self::new("ok", "active"),
            IntegrationStateView::DeliveryPaused => Self::new("off", "delivery paused"),
            IntegrationStateView::Disabled => Self::new("off", "disabled"),
            IntegrationStateView::Draining => Self::new("wait", "draining"),
        }
    }
}

/// A whole number of any type, as the fields of the API have it.
pub(super) trait Whole {
    fn whole(&self) -> i64;
}

macro_rules! whole {
    ($($number:ty),*) => {
        $(impl Whole for $number {
            fn whole(&self) -> i64 {
                i64::try_from(*self).unwrap_or(i64::MAX)
            }
        })*
    };
}
whole!(i16, i32, i64, u16, u32, u64, usize);

impl<T: Whole + ?Sized> Whole for &T {
    fn whole(&self) -> i64 {
        (**self).whole()
    }
}

/// A number that need not be whole.
pub(super) trait Real {
    fn real(&self) -> f64;
}

impl Real for f64 {
    fn real(&self) -> f64 {
        *self
    }
}

impl<T: Real + ?Sized> Real for &T {
    fn real(&self) -> f64 {
        (**self).real()
    }
}

/// A whole number with separators: `1,234,567`.
pub(super) fn number(number: impl Whole) -> String {
    let number = number.whole();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        text.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number in at most four digits and a unit: `14.9 M`. Below 10,000 it is exact.
pub(super) fn short(value: impl Whole) -> String {
    let value = value.whole();
    if value < 10_000 {
        return number(value);
    }
    let mut scaled = value as f64;
    for unit in ["k", "M", "G"] {
        scaled /= 1000.0;
        if scaled < 999.5 {
            return if scaled < 99.95 {
                format!("{scaled:.1} {unit}")
            } else {
                format!("{scaled:.0} {unit}")
            };
        }
    }
    format!("{:.0} T", scaled / 1000.0)
}

/// A rate of events: `12/s`, or by the minute where it is slower than one in a second.
pub(super) fn rate(count: impl Whole, over: SignedDuration) -> String {
    let count = count.whole();
    let seconds = over.as_secs_f64().max(1.0);
    let per_second = count as f64 / seconds;
    if count == 0 {
        "0".to_owned()
    } else if per_second >= 10.0 {
        format!("{}/s", short(per_second.round() as i64))
    } else if per_second >= 1.0 {
        format!("{per_second:.1}/s")
    } else if per_second * 60.0 >= 1.0 {
        format!("{:.0}/min", per_second * 60.0)
    } else {
        format!("{:.0}/h", (per_second * 3600.0).max(1.0))
    }
}

/// A part of a whole: `99.98 %`. It is 100 only if nothing is missing, and 0 only if there is nothing.
pub(super) fn percent(part: i64, whole: i64) -> String {
    if whole <= 0 {
        return "–".to_owned();
    }
    if part >= whole {
        return "100 %".to_owned();
    }
    if part <= 0 {
        return "0 %".to_owned();
    }
    let hundredths = (part as f64 / whole as f64 * 10_000.0).round().clamp(1.0, 9_999.0);
    format!("{:.2} %", hundredths / 100.0)
}

/// A duration of an attempt: `84 ms`, `1.2 s`.
pub(super) fn milliseconds(duration: impl Real) -> String {
    let duration = duration.real();
    if duration < 1.0 {
        format!("{duration:.1} ms")
    } else if duration < 1_000.0 {
        format!("{duration:.0} ms")
    } else if duration < 60_000.0 {
        format!("{:.1} s", duration / 1_000.0)
    } else {
        span(SignedDuration::from_millis(duration as i64))
    }
}

/// A span of time in its one or two largest units: `2 min 5 s`.
pub(super) fn span(span: SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let two = |large: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {small_unit}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => two(minutes, "min", seconds % 60, "s"),
        3_600..86_400 => two(hours, "h", minutes, "min"),
        _ => two(days, "d", hours, "h"),
    }
}

/// How long ago a time is, in its largest unit: `3 min ago`.
pub(super) fn ago(time: &Rfc3339Millis) -> String {
    let since = Timestamp::now().duration_since(time.0);
    let seconds = since.as_secs();
    match seconds {
        i64::MIN..-1 => format!("in {}", coarse(-seconds)),
        -1..2 => "now".to_owned(),
        _ => format!("{} ago", coarse(seconds)),
    }
}

/// How long a time is past, in its largest unit: `3 min`.
pub(super) fn age(time: &Rfc3339Millis) -> String {
    coarse(Timestamp::now().duration_since(time.0).as_secs().max(0))
}

fn coarse(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A size: `12 B`, `1.2 KiB`.
pub(super) fn bytes(size: usize) -> String {
    let mut scaled = size as f64;
    if size < 1024 {
        return format!("{size} B");
    }
    for unit in ["KiB", "MiB"] {
        scaled /= 1024.0;
        if scaled < 1024.0 {
            return format!("{scaled:.1} {unit}");
        }
    }
    format!("{:.1} GiB", scaled / 1024.0)
}

/// Text on one line, of at most `max` characters.
pub(super) fn text(text: &str, max: usize) -> String {
    visible(text, max, false)
}

/// Text with its lines and tabs, of at most `max` characters.
pub(super) fn lines(text: &str, max: usize) -> String {
    visible(text, max, true)
}

/// Shows what cannot be seen, or would reorder what is around it, as its code.
fn visible(text: &str, max: usize, keeps_lines: bool) -> String {
    let mut shown = String::with_capacity(text.len().min(max));
    for (count, character) in text.chars().enumerate() {
        if count == max {
            shown.push('…');
            break;
        }
        match character {
            '\n' | '\t' if keeps_lines => shown.push(character),
            '\n' => shown.push('⏎'),
            '\t' => shown.push(' '),
            character if is_invisible(character) => {
                shown.push_str(&format!("[U+{:04X}]", u32::from(character)))
            }
            character => shown.push(character),
        }
    }
    shown
}

/// Controls, marks of direction, and what has no width.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            [0i64, 999, 1_000, 1_234_567, -1_234].map(number),
            ["0", "999", "1,000", "1,234,567", "-1,234"]
        );
        assert_eq!(
            [9_999i64, 10_000, 99_960, 999_600, 14_900_000, 2_000_000_000].map(short),
            ["9,999", "10.0 k", "100 k", "1.0 M", "14.9 M", "2.0 G"]
        );
        let hour = SignedDuration::from_hours(1);
        assert_eq!(
            [0i64, 3, 300, 7_200, 360_000].map(|count| rate(count, hour)),
            ["0", "3/h", "5/min", "2.0/s", "100/s"]
        );
    }

    #[test]
    fn a_percentage_rounds_to_none_of_the_ends() {
        assert_eq!(percent(1, 0), "–");
        assert_eq!(percent(1_000_000, 1_000_000), "100 %");
        assert_eq!(percent(999_999, 1_000_000), "99.99 %");
        assert_eq!(percent(1, 1_000_000), "0.01 %");
        assert_eq!(percent(0, 7), "0 %");
    }

    #[test]
    fn durations_and_sizes_have_a_unit() {
        assert_eq!(
            [0.25, 84.4, 1_234.0, 125_000.0].map(milliseconds),
            ["0.2 ms", "84 ms", "1.2 s", "2 min 5 s"]
        );
        let seconds = |seconds| span(SignedDuration::from_secs(seconds));
        assert_eq!(
            [5, 120, 125, 3_600, 90_000].map(seconds),
            ["5 s", "2 min", "2 min 5 s", "1 h", "1 d 1 h"]
        );
        assert_eq!([12, 1_536, 5 << 20].map(bytes), ["12 B", "1.5 KiB", "5.0 MiB"]);
    }

    #[test]
    fn text_cannot_move_what_is_around_it() {
        assert_eq!(text("a\u{202e}b\u{200b}c\n\td\0", 100), "a[U+202E]b[U+200B]c⏎ d[U+0000]");
        assert_eq!(lines("a\n\tb\r", 100), "a\n\tb[U+000D]");
        assert_eq!(text("abc", 3), "abc");
        assert_eq!(text("abcd", 3), "abc…");
        assert_eq!(text("שלום é 日本", 100), "שלום é 日本");
    }
}
