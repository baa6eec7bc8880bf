//! `grapnel-loadtest replay`: an outage of the receiver, and the replay after it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::ArgGroup;

use super::run::{secret_from, usage_error};
use super::{EXIT_FAULT, print_report};
use crate::config::{Amount, Config, Pace, Provider, RunId, SinkConfig, Target};
use crate::ledger::MAX_NUMBERS;
use crate::replay::{FailedEvents, ReplayConfig, ReplayLimits, ReplayRun};

#[cfg(test)]
mod tests;

/// Let every delivery fail for a while, replay them through the API, and prove that each arrived.
///
/// Sends events, answers their deliveries 500 until all have failed for good, starts a replay of them, and follows it to its end. The
/// destinations must deliver to this receiver, and should give up soon (`retry: {maxAttempts: 1}`).
///
/// Exits with 0 only if the replay completed, its counters are exact, and every delivery that had failed arrived. Ctrl-C does not cancel
/// the replay.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("management_key").required(true).args(["key_file", "key_env"])))]
#[command(group(ArgGroup::new("provider_secret").args(["secret_file", "secret_env"])))]
pub struct ReplayArgs {
    /// The management API: http://HOST/api/v1
    #[arg(long, value_name = "URL")]
    api: String,
    /// File with the management key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Environment variable with the management key
    #[arg(long, value_name = "NAME")]
    key_env: Option<String>,
    /// The Integration whose deliveries fail: its id, or NAMESPACE/NAME
    #[arg(long, value_name = "INTEGRATION")]
    integration: String,
    /// A destination of it, whose URL ends with its name (repeatable) [default: it has one, with any URL]
    #[arg(long = "destination", value_name = "NAME")]
    destinations: Vec<String>,

    /// Number of events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_NUMBERS))]
    events: u64,
    /// The webhook route: http://HOST/api/v1/webhooks/ROUTE
    #[arg(long, value_name = "URL", required_unless_present = "present", requires = "provider_secret")]
    target: Option<String>,
    /// Provider of the webhooks: acme or globex
    #[arg(long, default_value = "acme")]
    provider: Provider,
    /// File with the provider's secret or token
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Environment variable with the provider's secret or token
    #[arg(long, value_name = "NAME")]
    secret_env: Option<String>,
    /// Number of clients that send
    #[arg(long, value_name = "C", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    concurrency: u32,
    /// Size of an event
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(512..=10_485_760))]
    body_bytes: u32,
    /// Part of each event id; must differ between runs [default: random]
    #[arg(long, value_name = "ID")]
    run_id: Option<String>,
    /// Send nothing: events with the external ids RUN-0, RUN-1, … are there, and their deliveries have failed
    #[arg(long, requires = "run_id", conflicts_with_all = ["target", "provider_secret", "provider", "concurrency", "body_bytes"])]
    present: bool,

    /// Deliveries per second of the replay
    #[arg(long, value_name = "R", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// It is a fault when any ten seconds differ by more than 10 % from the rate
    #[arg(long)]
    keeps_rate: bool,
    /// It is a fault when deliveries arrive again more often than this
    #[arg(long, value_name = "N")]
    max_repeats: Option<u64>,

    /// Address to receive deliveries on; port 0 takes any free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    sink_addr: SocketAddr,
    /// Delay before each answer to a delivery, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    sink_delay_ms: u64,

    /// How long the deliveries may take to fail, in seconds
    #[arg(long, value_name = "S", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    outage_seconds: u64,
    /// How long the replay may take, in seconds
    #[arg(long, value_name = "S", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    replay_seconds: u64,
    /// Give up after so many seconds in which the API was away
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    unreachable_seconds: u64,
    /// How long to watch for further deliveries after the end of the replay, in seconds
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    linger_seconds: u64,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl ReplayArgs {
    fn into_config(self) -> anyhow::Result<ReplayConfig> {
        let run_id = self.run_id.as_deref().map_or_else(|| Ok(RunId::random()), RunId::parse)?;
        let events = if self.present {
            FailedEvents::Present { events: self.events, run_id }
        } else {
            let target = self.target.as_deref().context("--target is required")?;
            let secret = secret_from(self.secret_file.as_deref(), self.secret_env.as_deref())?
                .context("--secret-file or --secret-env is required")?;
            FailedEvents::Sent(Box::new(Config {
                pace: Pace::Closed { clients: self.concurrency },
                body_bytes: self.body_bytes as usize,
                unreachable_limit: Duration::from_secs(self.unreachable_seconds),
                run_id,
                ..Config::new(Target::parse(target)?, self.provider, secret, Amount::Events(self.events))
            }))
        };
        Ok(ReplayConfig {
            events,
            api: Target::parse(&self.api).context("use --api")?,
            key: secret_from(self.key_file.as_deref(), self.key_env.as_deref())?
                .context("--key-file or --key-env is required")?,
            integration: self.integration,
            destinations: self.destinations,
            rate_per_second: self.rate,
            sink: SinkConfig {
                addr: self.sink_addr,
                delay: Duration::from_millis(self.sink_delay_ms),
                ..SinkConfig::default()
            },
            limits: ReplayLimits {
                outage: Duration::from_secs(self.outage_seconds),
                replay: Duration::from_secs(self.replay_seconds),
                unreachable: Duration::from_secs(self.unreachable_seconds),
                linger: Duration::from_secs(self.linger_seconds),
            },
            max_repeats: self.max_repeats,
            rate_must_be_kept: self.keeps_rate,
        })
    }
}

/// Runs the outage and the replay, and prints the report on standard output; the steps are on standard error.
///
/// # Errors
/// When a step fails. Invalid arguments are reported here, with exit code 2.
pub async fn execute(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let json = args.json;
    let started = args.into_config().and_then(ReplayRun::start);
    let run = match started {
        Ok(run) => run,
        Err(error) => return Ok(usage_error(&error)),
    };
    eprintln!("receiving deliveries on http://{}", run.sink_addr());
    let report = run.finish(|step| eprintln!("{step}")).await?;
    print_report(&report, json)?;
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAULT) })
}
