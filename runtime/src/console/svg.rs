//! Charts as SVG, drawn by the server: numbers become points, and nothing else is in them but escaped text.

use std::fmt::{self, Write as _};

use askama::filters::HtmlSafe;
use jiff::{SignedDuration, Timestamp};

use super::show;

/// Escapes text for an attribute or an element.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A small line in a row of a table, with bars for what failed.
pub(super) struct Sparkline {
    pub(super) label: String,
    pub(super) values: Vec<i64>,
    pub(super) failures: Vec<i64>,
}

const SPARK_WIDTH: f64 = 132.0;
const SPARK_HEIGHT: f64 = 26.0;

impl HtmlSafe for Sparkline {}

impl fmt::Display for Sparkline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = (SPARK_WIDTH, SPARK_HEIGHT);
        write!(
            f,
            r#"<svg class="spark" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-label="{}">"#,
            Escaped(&self.label)
        )?;
        let most = self.values.iter().copied().max().unwrap_or(0).max(1) as f64;
        let step = width / (self.values.len().max(2) - 1) as f64;
        let worst = self.failures.iter().copied().max().unwrap_or(0).max(1) as f64;
        for (index, failed) in self.failures.iter().enumerate().filter(|(_, failed)| **failed > 0) {
            let bar = (2.0 + *failed as f64 / worst * (height * 0.5)).min(height);
            let x = (index as f64 * step - 1.0).clamp(0.0, width - 2.0);
            write!(f, r#"<rect class="f" x="{x:.1}" y="{:.1}" width="2" height="{bar:.1}"/>"#, height - bar)?;
        }
        f.write_str(r#"<polyline class="a" points=""#)?;
        for (index, value) in self.values.iter().enumerate() {
            let y = height - 1.5 - *value as f64 / most * (height - 4.0);
            write!(f, "{:.1},{y:.1} ", index as f64 * step)?;
        }
        f.write_str(r#""/></svg>"#)
    }
}

/// A line of a chart. `class` is 1 to 3: its colour, and how it is dashed.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) class: u8,
    /// By part of the window; where there is none, the line is interrupted.
    pub(super) values: Vec<Option<f64>>,
}

/// Lines over time, with axes.
pub(super) struct Chart {
    pub(super) from: Timestamp,
    /// The length of a part.
    pub(super) part: SignedDuration,
    /// What follows a number.
    pub(super) unit: &'static str,
    pub(super) lines: Vec<Line>,
}

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 160.0;
/// What is around the lines: left, top, right, bottom.
const MARGINS: (f64, f64, f64, f64) = (46.0, 8.0, 6.0, 22.0);

impl Chart {
    /// Whether there is nothing to draw.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.iter().flat_map(|line| &line.values).all(|value| value.is_none_or(|value| value == 0.0))
    }

    fn most(&self) -> f64 {
        let values = self.lines.iter().flat_map(|line| line.values.iter().flatten().copied());
        rounded_up(values.fold(0.0, f64::max))
    }

    /// The chart in words: the largest value of each line.
    pub(super) fn description(&self) -> String {
        let parts = self.lines.iter().map(|line| {
            let most = line.values.iter().flatten().copied().fold(0.0, f64::max);
            format!("{}: at most {}", line.name, self.value_text(most))
        });
        parts.collect::<Vec<_>>().join("; ")
    }

    fn value_text(&self, value: f64) -> String {
        if self.unit == "ms" { show::milliseconds(value) } else { show::short(value.round() as i64) }
    }

    fn x(&self, index: usize, count: usize) -> f64 {
        let (left, _, right, _) = MARGINS;
        left + index as f64 / (count.max(2) - 1) as f64 * (WIDTH - left - right)
    }
}

/// Returns a round number that is not less.
fn rounded_up(value: f64) -> f64 {
    if value <= 1.0 {
        return 1.0;
    }
    let scale = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * scale).find(|step| *step >= value).unwrap_or(value)
}

impl HtmlSafe for Chart {}

impl fmt::Display for Chart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (left, top, right, bottom) = MARGINS;
        let (base, most) = (HEIGHT - bottom, self.most());
        let y = |value: f64| base - value / most * (base - top);
        write!(
            f,
            r#"<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#,
            Escaped(&self.description())
        )?;
        for value in [0.0, most / 2.0, most] {
            let y = y(value);
            write!(f, r#"<line class="axis" x1="{left}" x2="{}" y1="{y:.1}" y2="{y:.1}"/>"#, WIDTH - right)?;
            // Half of a small whole number is no number of events.
            if value == most / 2.0 && most < 10.0 && self.unit.is_empty() {
                continue;
            }
            let text = self.value_text(value);
            write!(
                f,
                r#"<text x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
                left - 6.0,
                y + 4.0,
                Escaped(&text)
            )?;
        }
        let count = self.lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
        let format = if self.part.as_mins() >= 60 { "%d %b" } else { "%H:%M" };
        for third in 0..=3 {
            let index = (count.saturating_sub(1)) * third / 3;
            let offset = self.part * i32::try_from(index).unwrap_or(0);
            let time = self.from.checked_add(offset).unwrap_or(self.from);
            let anchor = ["start", "middle", "middle", "end"][third];
            let text = time.strftime(format).to_string();
            let x = self.x(index, count);
            write!(
                f,
                r#"<text x="{x:.1}" y="{}" text-anchor="{anchor}">{}</text>"#,
                HEIGHT - 6.0,
                Escaped(&text)
            )?;
        }
        for line in &self.lines {
            let point = |index: usize, value: f64| (self.x(index, count), y(value));
            for run in runs(&line.values) {
                if let [(index, value)] = run[..] {
                    let (x, y) = point(index, value);
                    write!(f, r#"<circle class="f{}" cx="{x:.1}" cy="{y:.1}" r="2"/>"#, line.class)?;
                    continue;
                }
                write!(f, r#"<polyline class="line s{}" points=""#, line.class)?;
                for (index, value) in run {
                    let (x, y) = point(index, value);
                    write!(f, "{x:.1},{y:.1} ")?;
                }
                f.write_str(r#""/>"#)?;
            }
        }
        f.write_str("</svg>")
    }
}

/// Returns the uninterrupted runs of values, with their places.
fn runs(values: &[Option<f64>]) -> Vec<Vec<(usize, f64)>> {
    let mut runs: Vec<Vec<(usize, f64)>> = Vec::new();
    let mut is_open = false;
    for (index, value) in values.iter().enumerate() {
        match value {
            Some(value) if is_open => {
                if let Some(run) = runs.last_mut() {
                    run.push((index, *value));
                }
            }
            Some(value) => runs.push(vec![(index, *value)]),
            None => {}
        }
        is_open = value.is_some();
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_leave_its_attribute() {
        let spark = Sparkline { label: r#"<a>"b"&'c'"#.to_owned(), values: vec![0, 5], failures: vec![0, 1] };
        let drawn = spark.to_string();
        assert!(drawn.contains("aria-label=\"&lt;a&gt;&quot;b&quot;&amp;&#39;c&#39;\""), "{drawn}");
        assert!(drawn.contains("0.0,24.5 132.0,2.5"), "{drawn}");
        assert_eq!(drawn.matches("<rect").count(), 1);
    }

    #[test]
    fn a_line_is_interrupted_where_there_is_nothing() {
        let values = [Some(1.0), Some(2.0), None, Some(3.0), None];
        assert_eq!(runs(&values), [vec![(0, 1.0), (1, 2.0)], vec![(3, 3.0)]]);
        let chart = Chart {
            from: Timestamp::UNIX_EPOCH,
            part: SignedDuration::from_mins(1),
            unit: "ms",
            lines: vec![Line { name: "p50", class: 1, values: values.to_vec() }],
        };
        let drawn = chart.to_string();
        assert_eq!((drawn.matches("<polyline").count(), drawn.matches("<circle").count()), (1, 1), "{drawn}");
        assert!(drawn.contains(r#"aria-label="p50: at most 3 ms""#), "{drawn}");
        assert!(drawn.contains(">00:04</text>"), "{drawn}");
    }

    #[test]
    fn the_top_of_a_chart_is_a_round_number() {
        assert_eq!(
            [0.0, 1.0, 7.0, 12.0, 99.0, 1_234.0].map(rounded_up),
            [1.0, 1.0, 8.0, 15.0, 100.0, 1_500.0]
        );
    }
}
