//! An outage of a receiver, and the replay after it.
//!
//! Events are sent, the receiver answers every delivery 500 until all of them have failed for good, and then a replay that is started through
//! the management API delivers them again. The ledger knows for each delivery, an event and a destination, how often it arrived after the
//! outage. With events that have failed before, only the second half is run.
//!
//! Every wait is bounded ([`ReplayLimits`]). Processes of the system under test may be killed while the replay runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::time::sleep;

use self::management::ManagementApi;
pub use self::management::{Counters, Skipped};
pub use self::report::ReplayReport;
use crate::config::{Amount, Config, Provider, RunId, SinkConfig, Target};
use crate::event_body::EventBody;
use crate::ledger::MAX_NUMBERS;
use crate::outage_ledger::OutageLedger;
use crate::run::Run;
use crate::sink::{Recorder, Sink};

mod management;
mod report;

/// So many deliveries a dry run counts exactly.
const MOST_COUNTED: u64 = 100_000;
/// How much the clock of the target may be behind.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

/// The events whose deliveries fail.
#[derive(Debug, Clone)]
pub enum FailedEvents {
    /// They are sent by this run, as the configuration says; its sink is not used.
    Sent(Box<Config>),
    /// They are there, with the external ids `RUN-0`, `RUN-1`, …, and all their deliveries have failed.
    Present {
        /// Their number.
        events: u64,
        /// `RUN`.
        run_id: RunId,
    },
}

/// The configuration of an outage and its replay.
#[derive(Debug, Clone)]
pub struct ReplayConfig {
    /// The events.
    pub events: FailedEvents,
    /// The management API: `http://HOST/api/v1`.
    pub api: Target,
    /// Its key.
    pub key: SecretString,
    /// The Integration: its id, or `namespace/name`. Nothing else should have failed there.
    pub integration: String,
    /// The names of its destinations, each of which delivers to a path that ends with the name. Empty: it has one, with any path.
    pub destinations: Vec<String>,
    /// The rate of the replay.
    pub rate_per_second: u32,
    /// The receiver. Its `fail_percent` is not used.
    pub sink: SinkConfig,
    /// How long things may take.
    pub limits: ReplayLimits,
    /// How often deliveries may arrive again; `None`: any number of times.
    pub max_repeats: Option<u64>,
    /// Whether it is a fault when ten seconds differ by more than 10 % from the rate.
    pub rate_must_be_kept: bool,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct ReplayLimits {
    /// From the last event until all deliveries have failed.
    pub outage: Duration,
    /// The replay.
    pub replay: Duration,
    /// How long the API may be away meanwhile.
    pub unreachable: Duration,
    /// How long to watch for further deliveries at the end.
    pub linger: Duration,
}

impl FailedEvents {
    fn run_id(&self) -> &RunId {
        match self {
            FailedEvents::Sent(config) => &config.run_id,
            FailedEvents::Present { run_id, .. } => run_id,
        }
    }

    fn count(&self) -> anyhow::Result<u64> {
        match self {
            FailedEvents::Present { events, .. } => Ok(*events),
            FailedEvents::Sent(config) => match config.amount {
                Amount::Events(events) => Ok(events),
                Amount::Time(_) => anyhow::bail!("the number of events must be known"),
            },
        }
    }
}

/// An outage whose receiver listens, and refuses.
pub struct ReplayRun {
    config: ReplayConfig,
    ledger: Arc<OutageLedger>,
    sink: Sink,
}

impl ReplayRun {
    /// Starts the receiver.
    ///
    /// # Errors
    /// When the configuration cannot be used, or the receiver cannot listen.
    pub fn start(config: ReplayConfig) -> anyhow::Result<ReplayRun> {
        let events = config.events.count()?;
        let deliveries = events.saturating_mul(config.destinations.len().max(1) as u64);
        let (provider, body_bytes, most) = match &config.events {
            FailedEvents::Sent(run) => (run.provider, run.body_bytes, MOST_COUNTED),
            // Only the ids of their events are read.
            FailedEvents::Present { .. } => (Provider::Acme, 1024 * 1024, MAX_NUMBERS),
        };
        ensure!((1..=most).contains(&deliveries), "{deliveries} deliveries: there may be 1 to {most}");
        let knows_bodies = matches!(config.events, FailedEvents::Sent(_));
        let ledger = Arc::new(OutageLedger::new(events, config.destinations.clone(), knows_bodies));
        let body = EventBody::new(provider, config.events.run_id(), body_bytes)?;
        let sink = Sink::start(config.sink.clone(), body, body_bytes, Recorder::Outage(Arc::clone(&ledger)))?;
        Ok(ReplayRun { config, ledger, sink })
    }

    /// Returns the address where deliveries are received.
    #[must_use]
    pub fn sink_addr(&self) -> SocketAddr {
        self.sink.addr()
    }

    /// Runs it to the end. `tell` gets a line at each step.
    ///
    /// # Errors
    /// When an event is not accepted, a delivery does not fail, the API refuses a request, or something takes too long.
    pub async fn finish(self, tell: impl Fn(&str)) -> anyhow::Result<ReplayReport> {
        let ReplayRun { config, ledger, sink } = self;
        let (api, expected) = (ManagementApi { base: &config.api, key: &config.key }, ledger.expected());
        let received_after = match &config.events {
            FailedEvents::Sent(run) => {
                let since = format!("{:.3}", Timestamp::now() - CLOCK_DIFFERENCE);
                send(run).await?;
                tell("sent all events; waiting until their deliveries have failed");
                api.wait_until_failed(&config, &since, expected, config.limits.outage).await?;
                since
            }
            FailedEvents::Present { .. } => "2000-01-01T00:00:00Z".to_owned(),
        };
        ledger.recover();
        let recovered = Instant::now();
        let id = api.start(&config, &received_after, expected).await.context("start the replay")?;
        tell(&format!("replaying {id} at {}/s", config.rate_per_second));
        let replay = api.follow(&id, &config.limits).await?;
        let took = recovered.elapsed();
        sleep(config.limits.linger).await;
        let state = sink.stop().await?;

        let totals = ledger.totals();
        let altered = state.counts.altered.load(std::sync::atomic::Ordering::Acquire);
        let of_this = totals.replay_id.as_ref().is_none_or(|seen| *seen == id);
        let arrivals = totals.arrived + totals.repeats;
        let mut report = ReplayReport {
            run_id: config.events.run_id().as_str().to_owned(),
            replay_id: id,
            state: replay.state,
            state_reason: replay.state_reason,
            counters: replay.counters,
            expected,
            refused: totals.refused,
            arrived: totals.arrived,
            missing: totals.missing,
            missing_deliveries: totals.listed,
            arrived_twice_or_more: totals.arrived_twice_or_more,
            repeats: totals.repeats,
            max_repeats: config.max_repeats,
            // What differs from the first one, unless that is not of this replay.
            of_other_replays: if of_this {
                totals.of_other_replays
            } else {
                arrivals - totals.of_other_replays
            },
            strangers: totals.strangers,
            altered,
            seconds: took.as_secs_f64(),
            rate_per_second: config.rate_per_second,
            ten_seconds: totals.kept_rate,
            rate_must_be_kept: config.rate_must_be_kept,
            ok: false,
            faults: Vec::new(),
        };
        report.find_faults();
        Ok(report)
    }
}

/// Sends all events; each must be accepted.
async fn send(config: &Config) -> anyhow::Result<()> {
    let run = Run::start(Config { sink: None, retry_unknown: true, ..config.clone() })?;
    let report = run.finish().await.context("send the events")?;
    let accepted = report.accepted + report.duplicates_answered;
    ensure!(report.ok && accepted == report.sent, "not every event was accepted\n{report}");
    Ok(())
}
