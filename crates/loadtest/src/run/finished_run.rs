//! The report of a finished run, from the totals of its ledger and the figures of its sender and sink.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use crate::config::{Config, Pace};
use crate::latency::Percentiles;
use crate::ledger::LedgerTotals;
use crate::report::{ConfigEcho, Deliveries, Latencies, Rates, Report, SettleOutcome, per_second};
use crate::sender::SenderState;
use crate::sink::SinkState;

/// The results of a run after everything has stopped.
pub(super) struct FinishedRun {
    pub(super) started_at: Timestamp,
    pub(super) cpu: Option<Duration>,
    pub(super) backlog: u64,
    pub(super) settled: SettleOutcome,
    pub(super) settle_time: Duration,
    pub(super) totals: LedgerTotals,
}

impl FinishedRun {
    pub(super) fn report(
        self,
        config: &Config,
        sender: &SenderState,
        sink: Option<(&SinkState, SocketAddr)>,
    ) -> Report {
        let rates = self.rates(config, sender, sink.map(|(state, _)| state));
        let accept = Percentiles::of(&sender.acceptances().latency_us);
        let end_to_end = sink.map(|(state, _)| Percentiles::of(&state.arrivals().latency_us));
        let deliveries = sink.map(|(state, addr)| self.deliveries(config, state, addr));
        let totals = self.totals;
        Report {
            run_id: config.run_id.as_str().to_owned(),
            config: ConfigEcho::of(config),
            started_at: format!("{:.3}", self.started_at),
            ended_at: format!("{:.3}", Timestamp::now()),
            stop_reason: sender.schedule.stop_reason(),
            ok: false,
            faults: Vec::new(),
            sent: totals.sent,
            requests: totals.requests,
            scheduled_not_sent: sender.schedule.scheduled().saturating_sub(totals.sent),
            accepted: totals.accepted,
            duplicates_answered: totals.duplicates_answered,
            duplicates_unexplained: totals.duplicates_unexplained,
            refused: totals.refused,
            unknown: totals.unknown,
            answers: totals.answers,
            attempts_without_answer: totals.attempts_without_answer,
            connect_failures: sender.connect_failures.load(Ordering::Acquire),
            deliveries,
            rates,
            latency_ms: Latencies { accept, end_to_end },
            cpu_seconds: self.cpu.map(|time| time.as_secs_f64()),
        }
    }

    fn rates(&self, config: &Config, sender: &SenderState, sink: Option<&SinkState>) -> Rates {
        let accepted = self.totals.accepted + self.totals.duplicates_answered;
        let sending_time = match (sender.first_sent.get(), sender.acceptances().last) {
            (Some(first), Some(last)) => last.saturating_duration_since(*first),
            _ => Duration::ZERO,
        };
        let delivering_time = sink.and_then(|state| {
            let arrivals = state.arrivals();
            Some(arrivals.last?.saturating_duration_since(arrivals.first?))
        });
        // Events that are always in flight are not a backlog: one per client, or those of a tenth of a second.
        let in_flight = match config.pace {
            Pace::Closed { clients } => clients,
            Pace::Open { rate_per_second, .. } => rate_per_second / 10,
        };
        Rates {
            sending_seconds: sending_time.as_secs_f64(),
            accepted_per_second: per_second(accepted, sending_time).unwrap_or(0.0),
            delivering_seconds: delivering_time.map(|time| time.as_secs_f64()),
            delivered_per_second: delivering_time.and_then(|time| per_second(self.totals.delivered, time)),
            backlog_at_end_of_sending: sink.map(|_| self.backlog),
            kept_level: sink.map(|_| self.backlog <= (accepted / 20).max(u64::from(in_flight))),
        }
    }

    fn deliveries(&self, config: &Config, state: &SinkState, addr: SocketAddr) -> Deliveries {
        let (totals, counts) = (&self.totals, &state.counts);
        let verified = config.sink.as_ref().is_some_and(|sink| sink.signing_key.is_some());
        let count = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        Deliveries {
            sink_addr: addr.to_string(),
            delivered: totals.delivered,
            delivered_twice_or_more: totals.delivered_twice_or_more,
            duplicate_deliveries: totals.duplicate_deliveries,
            lost: totals.lost,
            lost_numbers: totals.lost_numbers.clone(),
            phantom: totals.phantom,
            phantom_numbers: totals.phantom_numbers.clone(),
            unknown_delivered: totals.unknown_delivered,
            bad_signatures: verified.then(|| count(&counts.bad_signatures)),
            altered: count(&counts.altered),
            reencoded: count(&counts.reencoded),
            foreign: count(&counts.foreign),
            unreadable: count(&counts.unreadable),
            other_requests: count(&counts.other_requests),
            failed_on_purpose: totals.failed_on_purpose,
            settled: self.settled,
            settle_seconds: self.settle_time.as_secs_f64(),
        }
    }
}
