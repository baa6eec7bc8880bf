//! The report of an outage and its replay, as text and as JSON.
//!
//! The JSON is [`ReplayReport`] in camelCase. It contains no secrets.

use std::fmt;

use serde::Serialize;

use super::management::Counters;
use crate::decimal::grouped;
use crate::outage_ledger::KeptRate;

/// What has become of the deliveries that failed in an outage.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayReport {
    /// Part of each event id.
    pub run_id: String,
    /// The replay.
    pub replay_id: String,
    /// Its state at the end, and why it is in this state where nobody asked for it.
    pub state: String,
    /// See `state`.
    pub state_reason: Option<String>,
    /// Its counters at the end.
    pub counters: Counters,
    /// Deliveries that failed in the outage: events times destinations.
    pub expected: u64,
    /// Attempts that were answered 500 in the outage. 0 when it was before this run.
    pub refused: u64,
    /// Deliveries that arrived after it, each counted once.
    pub arrived: u64,
    /// Deliveries that did not.
    pub missing: u64,
    /// The first 20 of these: `DESTINATION/NUMBER`.
    pub missing_deliveries: Vec<String>,
    /// Deliveries that arrived more than once.
    pub arrived_twice_or_more: u64,
    /// Arrivals after the first of their delivery.
    pub repeats: u64,
    /// How many of these are allowed; null: any number.
    pub max_repeats: Option<u64>,
    /// Arrivals that do not name this replay.
    pub of_other_replays: u64,
    /// Deliveries to other destinations, or of numbers that are not part of this run.
    pub strangers: u64,
    /// Deliveries whose data differs from what was sent.
    pub altered: u64,
    /// Time from the end of the outage to the end of the replay.
    pub seconds: f64,
    /// Deliveries per second that were asked for.
    pub rate_per_second: u32,
    /// The slowest and the fastest ten seconds between the first and the last arrival; null when there were not ten.
    pub ten_seconds: Option<KeptRate>,
    /// Whether every ten seconds must be within 10 % of the rate.
    pub rate_must_be_kept: bool,
    /// Whether there are no faults.
    pub ok: bool,
    /// Description of each fault. Empty when `ok`.
    pub faults: Vec<String>,
}

impl ReplayReport {
    /// Sets `faults` and `ok`.
    pub(super) fn find_faults(&mut self) {
        let mut faults = Vec::new();
        if self.state != "Completed" {
            let reason = self.state_reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
            faults.push(format!("the replay is {}{reason}", self.state));
        }
        let Counters { matched, fed, succeeded, failed, skipped } = self.counters;
        let expected = self.expected;
        if (matched, fed, succeeded, failed, skipped.total) != (expected, expected, expected, 0, 0) {
            faults.push("the counters of the replay are not exact".to_owned());
        }
        for (count, what) in [
            (self.missing, "missing"),
            (self.of_other_replays, "of other replays"),
            (self.strangers, "that nobody expected"),
            (self.altered, "altered"),
        ] {
            if count > 0 {
                faults.push(format!("{} {what}", grouped(count)));
            }
        }
        if let Some(most) = self.max_repeats.filter(|most| self.repeats > *most) {
            faults.push(format!("{} repeated, and {} are allowed", grouped(self.repeats), grouped(most)));
        }
        if self.rate_must_be_kept {
            match self.ten_seconds {
                None => faults.push("less than ten seconds, so the rate is not known".to_owned()),
                Some(kept) if !kept.is_of(self.rate_per_second) => {
                    faults.push("the rate was not kept within 10 %".to_owned());
                }
                Some(_) => {}
            }
        }
        self.ok = faults.is_empty();
        self.faults = faults;
    }
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, text: String| writeln!(out, "  {name:<26} {text}");
        let counters = self.counters;
        line("replay", format!("{} is {} after {:.1} s", self.replay_id, self.state, self.seconds))?;
        line(
            "its counters",
            format!(
                "{} matched, {} fed, {} succeeded, {} failed, {} skipped",
                grouped(counters.matched),
                grouped(counters.fed),
                grouped(counters.succeeded),
                grouped(counters.failed),
                grouped(counters.skipped.total)
            ),
        )?;
        line("failed in the outage", grouped(self.expected))?;
        line("arrived after it", grouped(self.arrived))?;
        line("missing", format!("{}  {}", grouped(self.missing), self.missing_deliveries.join(" ")))?;
        line(
            "arrived again",
            format!("{} times, of {} deliveries", grouped(self.repeats), grouped(self.arrived_twice_or_more)),
        )?;
        if let Some(KeptRate { slowest, fastest }) = self.ten_seconds {
            let rate = self.rate_per_second;
            line(
                "deliveries per second",
                format!("{slowest:.1} to {fastest:.1} over 10 s, asked for {rate}"),
            )?;
        }
        writeln!(out)?;
        if self.ok { writeln!(out, "OK") } else { writeln!(out, "NOT OK: {}", self.faults.join(", ")) }
    }
}
