//! The report as text.

use std::fmt;

use super::{Deliveries, Rates, Report, SettleOutcome};
use crate::decimal::grouped;
use crate::latency::Percentiles;

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
        line(out, "lost", self.lost, &listed(&self.lost_numbers, self.lost))?;
        line(out, "phantom", self.phantom, &listed(&self.phantom_numbers, self.phantom))?;
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
            SettleOutcome::Complete => Ok(()),
            SettleOutcome::TimedOut => writeln!(out, "  still missing after {:.0} s", self.settle_seconds),
            SettleOutcome::Cut => {
                writeln!(out, "  waiting for the rest was cut after {:.0} s", self.settle_seconds)
            }
        }
    }
}

fn line(out: &mut fmt::Formatter<'_>, name: &str, count: u64, note: &str) -> fmt::Result {
    let text = format!("  {name:<22} {:>13}    {note}", grouped(count));
    writeln!(out, "{}", text.trim_end())
}

/// Writes a line only if the count is not zero.
fn some_line(out: &mut fmt::Formatter<'_>, name: &str, count: u64) -> fmt::Result {
    if count > 0 { line(out, name, count, "") } else { Ok(()) }
}

fn listed(numbers: &[u64], of: u64) -> String {
    let mut names: Vec<String> = numbers.iter().map(u64::to_string).collect();
    if of > numbers.len() as u64 && !names.is_empty() {
        names.push("…".to_owned());
    }
    names.join(" ")
}

/// Formats a rate without meaningless digits.
fn rate(per_second: f64) -> String {
    if per_second < 100.0 { format!("{per_second:.1}") } else { grouped(per_second.round() as u64) }
}
