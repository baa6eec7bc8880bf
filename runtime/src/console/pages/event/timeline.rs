//! The time from the receipt of an event to the end of each of its deliveries, to scale.
//!
//! A bar is where a delivery waits or an attempt runs. What is too short to be seen is drawn with a least width, so the drawing says what was when and
//! about how long; the table of attempts has the numbers.

use jiff::{SignedDuration, Timestamp};

/// The width of the drawing in its own units. The page stretches it to the width that there is.
pub(super) const WIDTH: f64 = 1_000.0;

/// The least width of an attempt.
const LEAST_WIDTH: f64 = 5.0;

/// Attempts of a delivery that are drawn: the latest. More would be a bar.
const MAX_ATTEMPTS: usize = 60;

/// Marks of the axis, its ends included.
const MARKS: usize = 5;

/// An event's deliveries, drawn.
#[derive(Debug)]
pub(super) struct Timeline {
    pub(super) rows: Vec<Row>,
    /// The times of the axis since the receipt, at equal distances.
    pub(super) marks: Vec<String>,
}

/// A delivery, drawn.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) destination: String,
    pub(super) bars: Vec<Bar>,
    /// What became of it, in words.
    pub(super) outcome: String,
    /// The style of its state.
    pub(super) class: &'static str,
}

#[derive(Debug)]
pub(super) struct Bar {
    pub(super) x: String,
    pub(super) width: String,
    pub(super) class: &'static str,
    pub(super) title: String,
}

/// A delivery to draw.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) destination: String,
    pub(super) outcome: String,
    pub(super) class: &'static str,
    /// `None`: it goes on.
    pub(super) finished_at: Option<Timestamp>,
    /// When the next attempt is to begin.
    pub(super) next_at: Option<Timestamp>,
    /// In the order in which they were made.
    pub(super) attempts: Vec<Attempt>,
}

/// An attempt to draw.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) number: i32,
    pub(super) started_at: Timestamp,
    /// `None`: it runs.
    pub(super) completed_at: Option<Timestamp>,
    pub(super) succeeded: bool,
}

impl Timeline {
    /// Draws deliveries of an event, up to now or to the time at which the last one ended.
    pub(super) fn new(received_at: Timestamp, now: Timestamp, deliveries: Vec<Delivery>) -> Self {
        let end_of = |delivery: &Delivery| {
            let attempts = delivery.attempts.iter().map(|attempt| attempt.completed_at.unwrap_or(now));
            let goes_on = delivery.finished_at.is_none().then_some(now);
            attempts.chain(delivery.finished_at).chain(delivery.next_at).chain(goes_on).max()
        };
        let end = deliveries.iter().filter_map(end_of).max().unwrap_or(received_at);
        let scale = Scale { start: received_at, end: end.max(received_at + SignedDuration::from_millis(1)) };
        let marks = (0..MARKS).map(|mark| scale.mark(mark)).collect();
        Self { rows: deliveries.into_iter().map(|delivery| Row::new(delivery, &scale, now)).collect(), marks }
    }
}

struct Scale {
    start: Timestamp,
    end: Timestamp,
}

impl Scale {
    fn x(&self, time: Timestamp) -> f64 {
        let part = |duration: SignedDuration| duration.as_secs_f64();
        let whole = part(self.end.duration_since(self.start));
        (part(time.duration_since(self.start)) / whole).clamp(0.0, 1.0) * WIDTH
    }

    fn mark(&self, mark: usize) -> String {
        let whole = self.end.duration_since(self.start);
        if mark == 0 {
            return "received".to_owned();
        }
        format!("+{}", duration_text(whole.mul_f64(mark as f64 / (MARKS - 1) as f64)))
    }

    fn bar(&self, from: Timestamp, to: Timestamp, class: &'static str, title: String) -> Bar {
        let x = self.x(from);
        let width = self.x(to) - x;
        let is_attempt = class != "wait-bar";
        let width = if is_attempt { width.max(LEAST_WIDTH) } else { width };
        // At the right edge it is drawn inside.
        let x = x.min(WIDTH - width);
        Bar { x: format!("{x:.1}"), width: format!("{width:.1}"), class, title }
    }
}

impl Row {
    fn new(delivery: Delivery, scale: &Scale, now: Timestamp) -> Self {
        let left_out = delivery.attempts.len().saturating_sub(MAX_ATTEMPTS);
        let end = delivery.finished_at.or(delivery.next_at).unwrap_or(now);
        let waited =
            scale.bar(scale.start, end, "wait-bar", "from the receipt to the end of the delivery".to_owned());
        let attempts = delivery.attempts.iter().skip(left_out).map(|attempt| {
            let end = attempt.completed_at.unwrap_or(now);
            let class = match attempt.completed_at {
                None => "run-bar",
                Some(_) if attempt.succeeded => "ok-bar",
                Some(_) => "bad-bar",
            };
            let after = attempt.started_at.duration_since(scale.start);
            let took = end.duration_since(attempt.started_at);
            let title = format!(
                "attempt {}, {} after the receipt, took {}",
                attempt.number,
                duration_text(after),
                duration_text(took)
            );
            scale.bar(attempt.started_at, end, class, title)
        });
        Self {
            bars: [waited].into_iter().chain(attempts).collect(),
            destination: delivery.destination,
            outcome: delivery.outcome,
            class: delivery.class,
        }
    }
}

/// Returns a duration with two digits or three: `9 ms`, `1.4 s`, `12 min`, `3.5 h`.
pub(in crate::console) fn duration_text(duration: SignedDuration) -> String {
    let seconds = duration.as_secs_f64().max(0.0);
    let rounded = |value: f64, unit: &str| {
        if value < 9.95 && value.fract() > 0.05 {
            format!("{value:.1} {unit}")
        } else {
            format!("{value:.0} {unit}")
        }
    };
    match seconds {
        _ if seconds < 0.9995 => format!("{:.0} ms", seconds * 1_000.0),
        _ if seconds < 119.5 => rounded(seconds, "s"),
        _ if seconds < 119.5 * 60.0 => rounded(seconds / 60.0, "min"),
        _ if seconds < 47.5 * 3_600.0 => rounded(seconds / 3_600.0, "h"),
        _ => rounded(seconds / 86_400.0, "days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_769_850_000_000 + milliseconds).expect("a time")
    }

    fn delivery(finished_at: Option<i64>, next_at: Option<i64>, attempts: &[(i64, Option<i64>)]) -> Delivery {
        let attempt = |(index, (started, completed)): (usize, &(i64, Option<i64>))| Attempt {
            number: index as i32 + 1,
            started_at: at(*started),
            completed_at: completed.map(at),
            succeeded: false,
        };
        Delivery {
            destination: "warehouse".to_owned(),
            outcome: "failed".to_owned(),
            class: "bad",
            finished_at: finished_at.map(at),
            next_at: next_at.map(at),
            attempts: attempts.iter().enumerate().map(attempt).collect(),
        }
    }

    fn drawn(timeline: &Timeline) -> String {
        let bar = |bar: &Bar| format!("{} {}+{} {}\n", bar.class, bar.x, bar.width, bar.title);
        let rows: String = timeline.rows.iter().flat_map(|row| &row.bars).map(bar).collect();
        rows + &timeline.marks.join(" | ")
    }

    #[test]
    fn attempts_are_drawn_to_scale_and_never_too_small_to_see() {
        let finished =
            delivery(Some(10_000), None, &[(10, Some(30)), (5_000, Some(7_500)), (9_999, Some(10_000))]);
        insta::assert_snapshot!(drawn(&Timeline::new(at(0), at(99_000_000), vec![finished])), @r"
        wait-bar 0.0+1000.0 from the receipt to the end of the delivery
        bad-bar 1.0+5.0 attempt 1, 10 ms after the receipt, took 20 ms
        bad-bar 500.0+250.0 attempt 2, 5 s after the receipt, took 2.5 s
        bad-bar 995.0+5.0 attempt 3, 10 s after the receipt, took 1 ms
        received | +2.5 s | +5 s | +7.5 s | +10 s
        ");
    }

    #[test]
    fn what_goes_on_ends_now_or_with_the_next_attempt() {
        let waiting = delivery(None, Some(40_000), &[(0, Some(10))]);
        let running = delivery(None, None, &[(0, None)]);
        insta::assert_snapshot!(drawn(&Timeline::new(at(0), at(20_000), vec![waiting, running])), @r"
        wait-bar 0.0+1000.0 from the receipt to the end of the delivery
        bad-bar 0.0+5.0 attempt 1, 0 ms after the receipt, took 10 ms
        wait-bar 0.0+500.0 from the receipt to the end of the delivery
        run-bar 0.0+500.0 attempt 1, 0 ms after the receipt, took 20 s
        received | +10 s | +20 s | +30 s | +40 s
        ");
    }

    #[test]
    fn nothing_and_clocks_that_differ_are_drawn_too() {
        assert_eq!(
            drawn(&Timeline::new(at(0), at(0), Vec::new())),
            "received | +0 ms | +0 ms | +1 ms | +1 ms"
        );
        let before = delivery(Some(-5), None, &[(-10, Some(-5))]);
        let drawn = drawn(&Timeline::new(at(0), at(0), vec![before]));
        assert!(drawn.contains("bad-bar 0.0+5.0"), "{drawn}");
        let many: Vec<_> = (0..500).map(|n| (n, Some(n))).collect();
        let timeline = Timeline::new(at(0), at(0), vec![delivery(Some(500), None, &many)]);
        assert_eq!(timeline.rows[0].bars.len(), 1 + MAX_ATTEMPTS);
    }

    #[test]
    fn durations_have_two_digits_or_three() {
        let texts = [
            0,
            9,
            999,
            1_000,
            1_449,
            12_000,
            119_000,
            125_000,
            3_600_000,
            9_000_000,
            90_000_000,
            900_000_000,
        ]
        .map(|milliseconds| duration_text(SignedDuration::from_millis(milliseconds)));
        assert_eq!(
            texts.join(", "),
            "0 ms, 9 ms, 999 ms, 1 s, 1.4 s, 12 s, 119 s, 2.1 min, 60 min, 2.5 h, 25 h, 10 days"
        );
    }
}
