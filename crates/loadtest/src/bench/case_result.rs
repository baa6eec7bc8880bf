//! The result of one measurement, as it is written to the file of results.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::process_costs::{Costs, PerProcess};
use super::statistics::rounded;
use crate::report::{Deliveries, Report};

/// One of the two builds in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Build {
    Before,
    After,
}

/// The result of one measurement of a case. Values are rounded where more digits would be meaningless. In the file, `probe` is
/// the load generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CaseResult {
    pub(crate) case: String,
    pub(crate) round: u32,
    /// Only in a comparison of two builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) build: Option<Build>,
    pub(crate) ok: bool,
    pub(crate) faults: Vec<String>,
    pub(crate) accepted: AcceptedEvents,
    /// `None` if the deliveries of the case are not received.
    pub(crate) delivered: Option<DeliveredEvents>,
    pub(crate) refused: BTreeMap<u16, u64>,
    pub(crate) unknown: u64,
    /// `None` if nothing was accepted.
    pub(crate) cpu_ms_per_event: Option<CpuPerEvent>,
    /// Processor time of the system ÷ that of the load generator. `None` if the latter is unknown.
    #[serde(rename = "systemOverProbe")]
    pub(crate) system_over_load: Option<f64>,
    /// Share of the machine that other processes used.
    pub(crate) others_percent: Option<u64>,
    pub(crate) memory_mb: PerProcess<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AcceptedEvents {
    pub(crate) count: u64,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeliveredEvents {
    pub(crate) count: u64,
    pub(crate) per_second: Option<f64>,
    pub(crate) kept_level: Option<bool>,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) phantom: u64,
}

/// Processor milliseconds for each accepted event.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct CpuPerEvent {
    #[serde(flatten)]
    pub(crate) system: PerProcess<f64>,
    #[serde(rename = "probe")]
    pub(crate) load_generator: f64,
}

impl CaseResult {
    pub(crate) fn new(
        case: &str,
        round: u32,
        build: Option<Build>,
        report: &Report,
        costs: &Costs,
    ) -> CaseResult {
        let events = report.accepted;
        let cpu_ms = costs.cpu.map(|time| time.as_secs_f64() * 1000.0);
        let system_ms: f64 = cpu_ms.values().into_iter().sum();
        let load_ms = report.cpu_seconds.unwrap_or(0.0) * 1000.0;
        let others_ms = (costs.machine_busy.as_secs_f64() * 1000.0 - system_ms - load_ms).max(0.0);
        let machine_ms = costs.machine_total.as_secs_f64() * 1000.0;
        let per_event = |ms: f64| rounded(ms / events as f64, 3);
        let accept = &report.latency_ms.accept;
        CaseResult {
            case: case.to_owned(),
            round,
            build,
            ok: report.ok,
            faults: report.faults.clone(),
            accepted: AcceptedEvents {
                count: events,
                per_second: rounded(report.rates.accepted_per_second, 2),
                p50_ms: rounded(accept.p50, 2),
                p99_ms: rounded(accept.p99, 2),
            },
            delivered: report.deliveries.as_ref().map(|deliveries| DeliveredEvents::new(deliveries, report)),
            refused: report.refused.clone(),
            unknown: report.unknown,
            cpu_ms_per_event: (events > 0)
                .then(|| CpuPerEvent { system: cpu_ms.map(per_event), load_generator: per_event(load_ms) }),
            system_over_load: (load_ms > 0.0).then(|| rounded(system_ms / load_ms, 2)),
            others_percent: (machine_ms > 0.0).then(|| (others_ms / machine_ms * 100.0).round() as u64),
            memory_mb: costs.memory_mb,
        }
    }
}

impl DeliveredEvents {
    fn new(deliveries: &Deliveries, report: &Report) -> DeliveredEvents {
        let latency = report.latency_ms.end_to_end.as_ref();
        DeliveredEvents {
            count: deliveries.delivered,
            per_second: report.rates.delivered_per_second.map(|rate| rounded(rate, 2)),
            kept_level: report.rates.kept_level,
            p50_ms: latency.map(|percentiles| rounded(percentiles.p50, 2)),
            p99_ms: latency.map(|percentiles| rounded(percentiles.p99, 2)),
            lost: deliveries.lost,
            duplicates: deliveries.duplicate_deliveries,
            phantom: deliveries.phantom,
        }
    }
}

impl CpuPerEvent {
    pub(crate) fn system_total(&self) -> f64 {
        rounded(self.system.values().into_iter().sum(), 3)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use secrecy::SecretString;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::{Amount, Config, Provider, Target};
    use crate::latency::Percentiles;
    use crate::report::{ConfigEcho, Latencies, Rates, SettleOutcome};
    use crate::schedule::StopReason;

    /// A result of a case in which only the given values matter.
    pub(crate) fn result(case: &str, round: u32, build: Option<Build>, ratio: f64, rate: f64) -> CaseResult {
        let mut report = report_of(1000);
        report.rates.accepted_per_second = rate;
        let result = CaseResult::new(case, round, build, &report, &costs());
        CaseResult { system_over_load: Some(ratio), ..result }
    }

    fn costs() -> Costs {
        let ms = Duration::from_millis;
        Costs {
            cpu: PerProcess {
                api: ms(50),
                worker: ms(60),
                postgres: ms(100),
                rabbitmq: ms(40),
                redis: ms(0),
            },
            memory_mb: PerProcess { api: 56, worker: 46, postgres: 200, rabbitmq: 150, redis: 9 },
            machine_busy: ms(400),
            machine_total: ms(1000),
        }
    }

    fn report_of(accepted: u64) -> Report {
        let target = Target::parse("http://127.0.0.1:1/").expect("a URL");
        let config = Config::new(target, Provider::Acme, SecretString::from("s"), Amount::Events(1));
        let percentiles = Percentiles { count: 1000, p50: 1.2345, p90: 2.0, p99: 6.789, p999: 8.0, max: 9.0 };
        Report {
            run_id: "run".to_owned(),
            config: ConfigEcho::of(&config),
            started_at: String::new(),
            ended_at: String::new(),
            stop_reason: StopReason::Completed,
            ok: true,
            faults: Vec::new(),
            sent: 1000,
            requests: 1000,
            scheduled_not_sent: 0,
            accepted,
            duplicates_answered: 0,
            duplicates_unexplained: 0,
            refused: BTreeMap::from([(429, 2)]),
            unknown: 0,
            answers: BTreeMap::new(),
            attempts_without_answer: 0,
            connect_failures: 0,
            deliveries: Some(Deliveries {
                sink_addr: String::new(),
                delivered: 999,
                delivered_twice_or_more: 1,
                duplicate_deliveries: 2,
                lost: 1,
                lost_numbers: vec![7],
                phantom: 0,
                phantom_numbers: Vec::new(),
                unknown_delivered: 0,
                bad_signatures: None,
                altered: 0,
                reencoded: 0,
                foreign: 0,
                unreadable: 0,
                other_requests: 0,
                failed_on_purpose: 0,
                settled: SettleOutcome::Complete,
                settle_seconds: 0.0,
            }),
            rates: Rates {
                sending_seconds: 1.0,
                accepted_per_second: 1000.126,
                delivering_seconds: Some(1.0),
                delivered_per_second: Some(998.5),
                backlog_at_end_of_sending: Some(0),
                kept_level: Some(true),
            },
            latency_ms: Latencies { accept: percentiles, end_to_end: Some(percentiles) },
            cpu_seconds: Some(0.03),
        }
    }

    #[test]
    fn the_json_has_all_figures() {
        let result = CaseResult::new("end-to-end-64", 1, None, &report_of(1000), &costs());
        let json = serde_json::to_value(&result).expect("it is JSON");
        let expected = json!({
            "case": "end-to-end-64", "round": 1, "ok": true, "faults": [],
            "accepted": {"count": 1000, "perSecond": 1000.13, "p50Ms": 1.23, "p99Ms": 6.79},
            "delivered": {"count": 999, "perSecond": 998.5, "keptLevel": true, "p50Ms": 1.23, "p99Ms": 6.79,
                "lost": 1, "duplicates": 2, "phantom": 0},
            "refused": {"429": 2}, "unknown": 0,
            "cpuMsPerEvent": {"api": 0.05, "worker": 0.06, "postgres": 0.1, "rabbitmq": 0.04, "redis": 0.0, "probe": 0.03},
            "systemOverProbe": 8.33,
            "othersPercent": 12,
            "memoryMb": {"api": 56, "worker": 46, "postgres": 200, "rabbitmq": 150, "redis": 9},
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<CaseResult>(json).expect("it is a result"), result);
        assert_eq!(result.cpu_ms_per_event.map(|cpu| cpu.system_total()), Some(0.25));
    }

    #[test]
    fn absent_values_are_null() {
        let mut report = report_of(0);
        (report.cpu_seconds, report.deliveries) = (None, None);
        let result = CaseResult::new("accept-64", 2, Some(Build::Before), &report, &Costs::default());
        let json = serde_json::to_value(&result).expect("it is JSON");
        for absent in ["delivered", "cpuMsPerEvent", "systemOverProbe", "othersPercent"] {
            assert_eq!(json[absent], Value::Null, "{absent}");
        }
        assert_eq!(json["build"], "before");
    }
}
