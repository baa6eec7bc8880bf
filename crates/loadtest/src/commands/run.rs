//! `grapnel probe`: numbered, signed webhooks out, their deliveries in, and an exact ledger of both.
//!
//! Every event has a number that is part of its id. The probe knows of each number whether it was sent, what was
//! answered, and how often it came back, so that it can say what was lost (promised with a 2xx and never delivered),
//! what came twice, and what came although it never should have. It is meant for use while parts of the system under
//! test are being killed: an event without an answer is *unknown*, and may then be delivered or not.
//!
//! Senders, sink and (for an open loop) the pacing of the schedule run on a thread each, apart from the caller's
//! runtime. `--json` prints [`Report`]; its fields are documented there.
//!
//! What the probe does not do: choose between several destinations (an event that is delivered to two routes of the
//! sink counts as delivered twice), speak HTTPS, or watch a run id that was used before.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ArgGroup;
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};

mod config;
mod plan;
mod template;
mod pattern;
mod imitation;
mod signature;
mod connection;
mod send;
mod sink;
mod word;
mod ledger;
mod tally;
mod run;
mod progress;
mod report;
#[cfg(test)]
mod tests;

pub use config::{Amount, Config, Pace, Provider, RunId, SinkConfig, Target};
pub use ledger::{MAX_NUMBERS, Progress};
pub use plan::StopReason;
pub use report::{ConfigEcho, Deliveries, Latencies, Percentiles, Rates, Report, Settled};
pub use run::{Handle, Run};
pub use signature::SigningKey;

/// The system under test was found at fault, or the probe could not run.
const EXIT_FAULT: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// Send numbered webhooks to a route, receive their deliveries, and print an exact ledger.
///
/// Exits with 0 only when something was accepted, nothing was lost, and nothing arrived that should not have. Ctrl-C
/// stops sending and waits for what is under way; a second one ends the waiting too.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("amount").required(true).args(["events", "duration_seconds"])))]
#[command(group(ArgGroup::new("provider_secret").required(true).args(["secret_file", "secret_env"])))]
pub struct ProbeArgs {
    /// The webhook route: http://HOST/api/v1/webhooks/ROUTE
    #[arg(long, value_name = "URL")]
    target: String,
    /// Whose webhooks to send: acme, globex or, with --no-sink, any preset that is signed with an HMAC
    #[arg(long)]
    provider: Provider,
    /// File with the provider's secret or token
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Environment variable with the provider's secret or token
    #[arg(long, value_name = "NAME")]
    secret_env: Option<String>,

    /// Send exactly so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_NUMBERS))]
    events: Option<u64>,
    /// Send for so long
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration_seconds: Option<u64>,
    /// Closed loop: so many clients, each sends when its last event is answered [default: 64]
    #[arg(long, value_name = "C", conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=4096))]
    concurrency: Option<u32>,
    /// Open loop: so many events a second on a fixed schedule; latencies count from when an event was due
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Open loop: the most requests that may wait for an answer
    #[arg(long, value_name = "M", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=4096))]
    max_in_flight: u32,
    /// Size of a request's body
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(512..=10_485_760))]
    body_bytes: u32,

    /// Where to receive deliveries; port 0 takes any free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    sink_addr: SocketAddr,
    /// Receive no deliveries and judge only what is accepted
    #[arg(long, conflicts_with_all = ["sink_addr", "sink_fail_percent", "sink_delay_ms", "signing_secret_file"])]
    no_sink: bool,
    /// Answer 500 to the first delivery of so many percent of the events
    #[arg(long, value_name = "P", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    sink_fail_percent: u8,
    /// Answer each delivery after so many milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    sink_delay_ms: u64,
    /// File with the secret (whsec_…) that deliveries are signed with; each signature is then verified
    #[arg(long, value_name = "FILE")]
    signing_secret_file: Option<PathBuf>,

    /// After the last answer, wait so long for what is missing
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    settle_seconds: u64,
    /// After everything has arrived, watch so long for duplicates and phantoms
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    linger_seconds: u64,
    /// Deadline of one request
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    request_timeout_seconds: u64,
    /// Give up when the target cannot be connected to for so long, or with --retry-unknown only fails for so long
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    unreachable_seconds: u64,
    /// Send an event again when no answer, 429 or a 5xx came, as providers do
    #[arg(long)]
    retry_unknown: bool,
    /// Part of each event's id; take a fresh one for each run [default: random]
    #[arg(long, value_name = "ID")]
    run_id: Option<String>,
    /// Print the ledger as JSON
    #[arg(long)]
    json: bool,
}

impl ProbeArgs {
    fn into_config(self) -> anyhow::Result<Config> {
        let secret = match (&self.secret_file, &self.secret_env) {
            (Some(file), _) => read_secret(file)?,
            (None, Some(name)) => SecretString::from(
                std::env::var(name).with_context(|| format!("read the secret from {name}"))?,
            ),
            (None, None) => anyhow::bail!("one of --secret-file and --secret-env is needed"),
        };
        let signing_key = match &self.signing_secret_file {
            Some(file) => Some(
                SigningKey::parse(&read_secret(file)?).with_context(|| format!("use {}", file.display()))?,
            ),
            None => None,
        };
        let amount = match (self.events, self.duration_seconds) {
            (Some(events), _) => Amount::Events(events),
            (None, Some(seconds)) => Amount::Time(Duration::from_secs(seconds)),
            (None, None) => anyhow::bail!("one of --events and --duration-seconds is needed"),
        };
        let pace = match self.rate {
            Some(rate_per_second) => Pace::Open { rate_per_second, max_in_flight: self.max_in_flight },
            None => Pace::Closed { clients: self.concurrency.unwrap_or(64) },
        };
        let sink = SinkConfig {
            addr: self.sink_addr,
            fail_percent: self.sink_fail_percent,
            delay: Duration::from_millis(self.sink_delay_ms),
            signing_key,
        };
        Ok(Config {
            pace,
            body_bytes: self.body_bytes as usize,
            sink: (!self.no_sink).then_some(sink),
            settle: Duration::from_secs(self.settle_seconds),
            linger: Duration::from_secs(self.linger_seconds),
            request_timeout: Duration::from_secs(self.request_timeout_seconds),
            unreachable_limit: Duration::from_secs(self.unreachable_seconds),
            retry_unknown: self.retry_unknown,
            run_id: self.run_id.as_deref().map_or_else(|| Ok(RunId::random()), RunId::parse)?,
            ..Config::new(Target::parse(&self.target)?, self.provider, secret, amount)
        })
    }
}

fn read_secret(file: &Path) -> anyhow::Result<SecretString> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    // Editors put one line end after the secret.
    let secret = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
    ensure!(!secret.is_empty(), "{} is empty", file.display());
    Ok(SecretString::from(secret))
}

/// Runs the probe and prints its ledger on standard output.
///
/// # Errors
/// When the run cannot begin or a part of the probe fails. Wrong usage is reported here and becomes exit code 2.
pub async fn run(args: ProbeArgs) -> anyhow::Result<ExitCode> {
    let json = args.json;
    let config = match args.into_config() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error:#}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let amount = config.amount;
    let run = Run::start(config)?;
    if let Some(addr) = run.sink_addr() {
        eprintln!("receiving deliveries on http://{addr}");
    }
    let handle = run.handle();
    let report = {
        let finish = run.finish();
        let steer = steer(handle.clone());
        let show = async {
            if std::io::stderr().is_terminal() {
                progress::show(handle, amount).await
            } else {
                std::future::pending().await
            }
        };
        tokio::select! {
            report = finish => report?,
            outcome = steer => return outcome,
            outcome = show => return outcome.map(|()| ExitCode::from(EXIT_FAULT)),
        }
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&report).context("write the report")?);
    } else {
        print!("{report}");
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAULT) })
}

/// Turns signals into the end of a run. Never returns, but for an error.
async fn steer(handle: Handle) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut asked_before = false;
    loop {
        tokio::select! {
            received = interrupt.recv() => received,
            received = terminate.recv() => received,
        }
        .context("signals are not delivered any more")?;
        if asked_before || handle.is_sending_over() {
            handle.cut();
        } else {
            eprintln!("stopping: waiting for what is under way (again to end that too)");
            handle.stop();
        }
        asked_before = true;
    }
}
