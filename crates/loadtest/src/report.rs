//! The ledger of a finished run, as text and as JSON.
//!
//! The JSON is this struct in camelCase: times in milliseconds where the name says so, rates per second, absent parts
//! null. `deliveries` is null without a sink. Secrets are not part of a report.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::config::{Amount, Config, Pace, Provider};
use super::plan::StopReason;

/// Everything that a run found out.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Part of each event id.
    pub run_id: String,
    /// What the run was told to do.
    pub config: ConfigEcho,
    /// When the run began and ended, RFC 3339.
    pub started_at: String,
    /// See `started_at`.
    pub ended_at: String,
    /// Why sending ended.
    pub stop_reason: StopReason,
    /// The verdict: see [`Report::faults`].
    pub ok: bool,
    /// What is wrong, in words. Empty when `ok`.
    pub faults: Vec<String>,

    /// Numbers of which at least one request left.
    pub sent: u64,
    /// Requests that left, every resend counted.
    pub requests: u64,
    /// Numbers that were due and never left.
    pub scheduled_not_sent: u64,
    /// Numbers answered 202 (or a 2xx other than 200).
    pub accepted: u64,
    /// Numbers whose last answer is 200: the target has them already.
    pub duplicates_answered: u64,
    /// Those of `duplicates_answered` of which no earlier request can have been accepted.
    pub duplicates_unexplained: u64,
    /// Numbers whose last answer is a refusal, by status code.
    pub refused: BTreeMap<u16, u64>,
    /// Numbers whose last request had no answer.
    pub unknown: u64,
    /// Every answer, resends included, by status code.
    pub answers: BTreeMap<u16, u64>,
    /// Requests without an answer, resends included.
    pub attempts_without_answer: u64,
    /// Failed attempts to connect. They use up no number.
    pub connect_failures: u64,

    /// What came back, when there is a sink.
    pub deliveries: Option<Deliveries>,
    /// Speeds.
    pub rates: Rates,
    /// Latencies in milliseconds.
    pub latency_ms: Latencies,
    /// CPU time of this process during the run, when the system tells.
    pub cpu_seconds: Option<f64>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deliveries {
    /// The address of the sink.
    pub sink_addr: String,
    /// Numbers that were delivered at least once.
    pub delivered: u64,
    /// Numbers that were delivered more than once.
    pub delivered_twice_or_more: u64,
    /// Deliveries beyond the first of a number.
    pub duplicate_deliveries: u64,
    /// Numbers that were answered 2xx and not delivered by the end of the run.
    pub lost: u64,
    /// The first of them.
    pub lost_numbers: Vec<u64>,
    /// Numbers delivered that were never sent, were delivered before they were sent, or had been refused with a 4xx.
    pub phantom: u64,
    /// The first of them.
    pub phantom_numbers: Vec<u64>,
    /// Numbers delivered of which we were never told that they were accepted, and which may well have been.
    pub unknown_delivered: u64,
    /// Deliveries whose signature is missing or wrong. Null when no signing secret was given.
    pub bad_signatures: Option<u64>,
    /// Deliveries whose data is not what was sent under that number.
    pub altered: u64,
    /// Deliveries whose data is equal as JSON, but not byte for byte.
    pub reencoded: u64,
    /// Deliveries of other runs.
    pub foreign: u64,
    /// Deliveries without an event id.
    pub unreadable: u64,
    /// Requests to the sink that are no deliveries.
    pub other_requests: u64,
    /// First deliveries that the sink answered 500 because it was told to.
    pub failed_on_purpose: u64,
    /// Whether everything that was accepted arrived, or what ended the waiting.
    pub settled: Settled,
    /// How long was waited after the last answer.
    pub settle_seconds: f64,
}

/// How the waiting for deliveries ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Settled {
    /// Everything that was accepted arrived.
    Complete,
    /// The time was up.
    TimedOut,
    /// Someone asked to end it.
    Cut,
}

/// Speeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rates {
    /// From the first request to the last promise.
    pub sending_seconds: f64,
    /// Promises over that time.
    pub accepted_per_second: f64,
    /// From the first delivery to the last first delivery of a number.
    pub delivering_seconds: Option<f64>,
    /// Numbers delivered over that time.
    pub delivered_per_second: Option<f64>,
    /// Accepted and not yet delivered when the last event was sent.
    pub backlog_at_end_of_sending: Option<u64>,
    /// Whether that backlog is no more than 5 % of what was accepted, or than what is under way anyway (one event of
    /// each client; in an open loop a tenth of a second's worth).
    pub kept_level: Option<bool>,
}

/// Latencies of both ways.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Latencies {
    /// From the time at which an event was due to its promise, resends included.
    pub accept: Percentiles,
    /// From the time at which an event was due to its first delivery.
    pub end_to_end: Option<Percentiles>,
}

/// A distribution in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentiles {
    /// Values counted.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// Largest.
    pub max: f64,
}

/// The settings of a run, without secrets.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields are those of Config")]
pub struct ConfigEcho {
    pub target: String,
    pub provider: Provider,
    pub events: Option<u64>,
    pub duration_seconds: Option<u64>,
    pub concurrency: Option<u32>,
    pub rate_per_second: Option<u32>,
    pub max_in_flight: Option<u32>,
    pub body_bytes: usize,
    pub sink_fail_percent: u8,
    pub sink_delay_ms: u64,
    pub settle_seconds: u64,
    pub linger_seconds: u64,
    pub request_timeout_seconds: u64,
    pub retry_unknown: bool,
    pub signatures_verified: bool,
}

impl ConfigEcho {
    pub(crate) fn of(config: &Config) -> ConfigEcho {
        let (events, duration_seconds) = match config.amount {
            Amount::Events(events) => (Some(events), None),
            Amount::Time(time) => (None, Some(time.as_secs())),
        };
        let (concurrency, rate_per_second, max_in_flight) = match config.pace {
            Pace::Closed { clients } => (Some(clients), None, None),
            Pace::Open { rate_per_second, max_in_flight } => {
                (None, Some(rate_per_second), Some(max_in_flight))
            }
        };
        let sink = config.sink.as_ref();
        ConfigEcho {
            target: config.target.to_string(),
            provider: config.provider,
            events,
            duration_seconds,
            concurrency,
            rate_per_second,
            max_in_flight,
            body_bytes: config.body_bytes,
            sink_fail_percent: sink.map_or(0, |sink| sink.fail_percent),
            sink_delay_ms: sink.map_or(0, |sink| u64::try_from(sink.delay.as_millis()).unwrap_or(u64::MAX)),
            settle_seconds: config.settle.as_secs(),
            linger_seconds: config.linger.as_secs(),
            request_timeout_seconds: config.request_timeout.as_secs(),
            retry_unknown: config.retry_unknown,
            signatures_verified: sink.is_some_and(|sink| sink.signing_key.is_some()),
        }
    }
}

impl Report {
    /// Fills in `faults` and `ok`. A run is good when something was accepted, nothing was lost, nothing came that
    /// should not have come, and the target stayed reachable.
    pub(crate) fn judge(&mut self) {
        let mut faults = Vec::new();
        if self.accepted + self.duplicates_answered == 0 {
            faults.push("nothing was accepted".to_owned());
        }
        if self.stop_reason == StopReason::Unreachable {
            faults.push("the target could not be reached for too long".to_owned());
        }
        if let Some(deliveries) = &self.deliveries {
            for (count, what) in [
                (deliveries.lost, "lost"),
                (deliveries.phantom, "phantom"),
                (deliveries.bad_signatures.unwrap_or(0), "with a bad signature"),
                (deliveries.altered, "altered"),
                (deliveries.unreadable, "unreadable"),
            ] {
                if count > 0 {
                    faults.push(format!("{} {what}", grouped(count)));
                }
            }
        }
        self.ok = faults.is_empty();
        self.faults = faults;
    }
}

/// A histogram of microseconds up to an hour, to three digits.
pub(crate) fn latency_histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).context("make a histogram")
}

impl Percentiles {
    pub(crate) fn of(latency_us: &Histogram<u64>) -> Percentiles {
        let ms = |quantile| latency_us.value_at_quantile(quantile) as f64 / 1000.0;
        Percentiles {
            count: latency_us.len(),
            p50: ms(0.5),
            p90: ms(0.9),
            p99: ms(0.99),
            p999: ms(0.999),
            max: latency_us.max() as f64 / 1000.0,
        }
    }
}

/// `None` for a rate over no time at all.
pub(crate) fn per_second(count: u64, time: Duration) -> Option<f64> {
    (count > 1 && !time.is_zero()).then(|| count as f64 / time.as_secs_f64())
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.config;
        write!(
            out,
            "run {} to {}: {} bytes, ",
            self.run_id,
            config.target,
            grouped(config.body_bytes as u64)
        )?;
        match (config.concurrency, config.rate_per_second) {
            (Some(clients), _) => writeln!(out, "{clients} clients")?,
            (None, rate) => writeln!(out, "{}/s", grouped(u64::from(rate.unwrap_or(0))))?,
        }
        writeln!(out)?;
        line(out, "sent", self.sent, &format!("in {:.2} s", self.rates.sending_seconds))?;
        line(out, "accepted", self.accepted, &format!("{}/s", rate(self.rates.accepted_per_second)))?;
        line(out, "duplicates answered", self.duplicates_answered, "")?;
        for (code, count) in &self.refused {
            line(out, &format!("refused {code}"), *count, "")?;
        }
        line(out, "unknown (no answer)", self.unknown, "")?;
        some_line(out, "scheduled, not sent", self.scheduled_not_sent)?;
        some_line(out, "resends", self.requests.saturating_sub(self.sent))?;
        some_line(out, "failed to connect", self.connect_failures)?;
        if let Some(deliveries) = &self.deliveries {
            writeln!(out)?;
            deliveries.fmt_ledger(out, &self.rates)?;
        }
        writeln!(out)?;
        writeln!(
            out,
            "  {:<20} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "latency in ms", "p50", "p90", "p99", "p99.9", "max"
        )?;
        let rows = [("accept", Some(self.latency_ms.accept)), ("end to end", self.latency_ms.end_to_end)];
        for (name, row) in rows {
            let Some(Percentiles { count: 1.., p50, p90, p99, p999, max }) = row else { continue };
            writeln!(out, "  {name:<20} {p50:>9.2} {p90:>9.2} {p99:>9.2} {p999:>9.2} {max:>9.2}")?;
        }
        writeln!(out)?;
        if self.ok { writeln!(out, "OK") } else { writeln!(out, "NOT OK: {}", self.faults.join(", ")) }
    }
}

impl Deliveries {
    fn fmt_ledger(&self, out: &mut fmt::Formatter<'_>, rates: &Rates) -> fmt::Result {
        let speed = rates
            .delivered_per_second
            .map(|per_second| format!("{}/s", rate(per_second)))
            .unwrap_or_default();
        line(out, "delivered", self.delivered, &speed)?;
        let repeated = match self.delivered_twice_or_more {
            0 => String::new(),
            numbers => format!("of {} events", grouped(numbers)),
        };
        line(out, "duplicate deliveries", self.duplicate_deliveries, &repeated)?;
        line(out, "lost", self.lost, &named(&self.lost_numbers, self.lost))?;
        line(out, "phantom", self.phantom, &named(&self.phantom_numbers, self.phantom))?;
        if let Some(bad) = self.bad_signatures {
            line(out, "bad signatures", bad, "")?;
        }
        some_line(out, "unknown, delivered", self.unknown_delivered)?;
        some_line(out, "failed on purpose", self.failed_on_purpose)?;
        some_line(out, "altered", self.altered)?;
        some_line(out, "re-encoded", self.reencoded)?;
        some_line(out, "foreign", self.foreign)?;
        some_line(out, "unreadable", self.unreadable)?;
        some_line(out, "other requests", self.other_requests)?;
        if let Some(backlog) = rates.backlog_at_end_of_sending {
            let level =
                if rates.kept_level == Some(true) { "level with accepting" } else { "behind accepting" };
            line(out, "backlog after sending", backlog, level)?;
        }
        match self.settled {
            Settled::Complete => Ok(()),
            Settled::TimedOut => writeln!(out, "  still missing after {:.0} s", self.settle_seconds),
            Settled::Cut => {
                writeln!(out, "  waiting for the rest was cut after {:.0} s", self.settle_seconds)
            }
        }
    }
}

fn line(out: &mut fmt::Formatter<'_>, name: &str, count: u64, note: &str) -> fmt::Result {
    let text = format!("  {name:<22} {:>13}    {note}", grouped(count));
    writeln!(out, "{}", text.trim_end())
}

/// A line for what is worth one only when it happened.
fn some_line(out: &mut fmt::Formatter<'_>, name: &str, count: u64) -> fmt::Result {
    if count > 0 { line(out, name, count, "") } else { Ok(()) }
}

fn named(numbers: &[u64], of: u64) -> String {
    let mut names: Vec<String> = numbers.iter().map(u64::to_string).collect();
    if of > numbers.len() as u64 && !names.is_empty() {
        names.push("…".to_owned());
    }
    names.join(" ")
}

/// A rate without digits that mean nothing.
fn rate(per_second: f64) -> String {
    if per_second < 100.0 { format!("{per_second:.1}") } else { grouped(per_second.round() as u64) }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (50_000_000, "50,000,000")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn percentiles_are_in_milliseconds() {
        let mut latency_us = latency_histogram().expect("a histogram");
        for value in 1..=1000 {
            latency_us.saturating_record(value * 1000);
        }
        latency_us.saturating_record(u64::MAX);
        let percentiles = Percentiles::of(&latency_us);
        assert_eq!(percentiles.count, 1001);
        assert!((percentiles.p50 - 501.0).abs() < 1.0, "{percentiles:?}");
        assert!((percentiles.p99 - 991.0).abs() < 1.0, "{percentiles:?}");
        assert!(percentiles.max >= 3_600_000.0, "{percentiles:?}");
    }

    #[test]
    fn a_rate_needs_time_and_more_than_one_event() {
        assert_eq!(per_second(1, Duration::from_secs(1)), None);
        assert_eq!(per_second(10, Duration::ZERO), None);
        assert_eq!(per_second(10, Duration::from_secs(2)), Some(5.0));
    }
}
