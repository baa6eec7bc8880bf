//! The report of a finished run, as text and as JSON.
//!
//! The JSON is [`Report`] in camelCase: times in milliseconds where the name says so, rates per second, absent parts null.
//! `deliveries` is null without a sink. A report contains no secrets.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::config::{Amount, Config, Pace, Provider};
use crate::decimal::grouped;
use crate::latency::Percentiles;
use crate::schedule::StopReason;

mod text;

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Part of each event id.
    pub run_id: String,
    /// The configuration of the run.
    pub config: ConfigEcho,
    /// Start of the run, RFC 3339.
    pub started_at: String,
    /// End of the run, RFC 3339.
    pub ended_at: String,
    /// Reason why sending ended.
    pub stop_reason: StopReason,
    /// Whether there are no faults.
    pub ok: bool,
    /// Description of each fault. Empty when `ok`.
    pub faults: Vec<String>,

    /// Numbers for which at least one request left.
    pub sent: u64,
    /// Requests that left, including resends.
    pub requests: u64,
    /// Numbers that were due and never left.
    pub scheduled_not_sent: u64,
    /// Numbers answered 202 (or a 2xx other than 200).
    pub accepted: u64,
    /// Numbers whose last answer is 200: the target had them already.
    pub duplicates_answered: u64,
    /// The part of `duplicates_answered` for which no earlier request can have been accepted.
    pub duplicates_unexplained: u64,
    /// Numbers whose last answer is a refusal, by status code.
    pub refused: BTreeMap<u16, u64>,
    /// Numbers whose last request had no answer.
    pub unknown: u64,
    /// All answers, including those to resends, by status code.
    pub answers: BTreeMap<u16, u64>,
    /// Requests without an answer, including resends.
    pub attempts_without_answer: u64,
    /// Failed attempts to connect, which use no number.
    pub connect_failures: u64,

    /// The deliveries, if there is a sink.
    pub deliveries: Option<Deliveries>,
    /// Rates of both directions.
    pub rates: Rates,
    /// Latencies in milliseconds.
    pub latency_ms: Latencies,
    /// CPU time of this process during the run, if the system provides it.
    pub cpu_seconds: Option<f64>,
}

/// The deliveries of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deliveries {
    /// Address of the sink.
    pub sink_addr: String,
    /// Numbers that were delivered at least once.
    pub delivered: u64,
    /// Numbers that were delivered more than once.
    pub delivered_twice_or_more: u64,
    /// Deliveries of a number after its first.
    pub duplicate_deliveries: u64,
    /// Numbers that were accepted and not delivered by the end of the run.
    pub lost: u64,
    /// The first of them.
    pub lost_numbers: Vec<u64>,
    /// Numbers that were delivered although they were never sent, not sent yet, or refused with a 4xx.
    pub phantom: u64,
    /// The first of them.
    pub phantom_numbers: Vec<u64>,
    /// Numbers that were delivered and may have been accepted, but without an answer that confirms it.
    pub unknown_delivered: u64,
    /// Deliveries whose signature is missing or does not match. Null without a signing secret.
    pub bad_signatures: Option<u64>,
    /// Deliveries whose data is not the data that was sent under that number.
    pub altered: u64,
    /// Deliveries whose data is equal as JSON, but not byte for byte.
    pub reencoded: u64,
    /// Deliveries of other runs.
    pub foreign: u64,
    /// Deliveries without an event id.
    pub unreadable: u64,
    /// Requests to the sink that are not deliveries.
    pub other_requests: u64,
    /// First deliveries that the sink answered 500 on purpose.
    pub failed_on_purpose: u64,
    /// How the wait for deliveries ended.
    pub settled: SettleOutcome,
    /// Duration of the wait after the last answer.
    pub settle_seconds: f64,
}

/// How the wait for deliveries ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SettleOutcome {
    /// Everything that was accepted arrived.
    Complete,
    /// The time was up.
    TimedOut,
    /// It was ended from outside.
    Cut,
}

/// Rates of both directions.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rates {
    /// Time from the first request to the last acceptance.
    pub sending_seconds: f64,
    /// Acceptances over that time.
    pub accepted_per_second: f64,
    /// Time from the first delivery to the last one that is not a duplicate.
    pub delivering_seconds: Option<f64>,
    /// Numbers delivered over that time.
    pub delivered_per_second: Option<f64>,
    /// Numbers that were accepted and not yet delivered when the last event was sent.
    pub backlog_at_end_of_sending: Option<u64>,
    /// Whether that backlog is at most 5 % of the accepted numbers, or at most what is always in flight (one event per
    /// client; in an open loop the events of a tenth of a second).
    pub kept_level: Option<bool>,
}

/// Latencies of both directions.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Latencies {
    /// Time from when an event was due until it was accepted, including resends.
    pub accept: Percentiles,
    /// Time from when an event was due until its first delivery.
    pub end_to_end: Option<Percentiles>,
}

/// The configuration of a run, without secrets.
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
    pub elements: u32,
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
            elements: config.elements,
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
    /// Sets `faults` and `ok`. A run is ok when something was accepted, nothing was lost, nothing was delivered that should
    /// not have been, and the target stayed reachable.
    pub(crate) fn find_faults(&mut self) {
        let mut faults = Vec::new();
        if self.accepted + self.duplicates_answered == 0 {
            faults.push("nothing was accepted".to_owned());
        }
        if self.stop_reason == StopReason::Unreachable {
            faults.push("the target was unreachable for too long".to_owned());
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

/// Returns a rate; `None` if there is no time to measure it over.
pub(crate) fn per_second(count: u64, time: Duration) -> Option<f64> {
    (count > 1 && !time.is_zero()).then(|| count as f64 / time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_time_and_more_than_one_event() {
        assert_eq!(per_second(1, Duration::from_secs(1)), None);
        assert_eq!(per_second(10, Duration::ZERO), None);
        assert_eq!(per_second(10, Duration::from_secs(2)), Some(5.0));
    }
}
