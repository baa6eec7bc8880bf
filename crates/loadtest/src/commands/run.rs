//! `grapnel-loadtest run`: one run, with its report on standard output.

use std::convert::Infallible;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ArgGroup;
use grapnel_crds::without_line_end;
use secrecy::{ExposeSecret, SecretString};
use tokio::signal::unix::{SignalKind, signal};

use super::{EXIT_FAULT, EXIT_USAGE, print_report};
use crate::config::{Amount, Config, Pace, Provider, RunId, SinkConfig, Target};
use crate::ledger::MAX_NUMBERS;
use crate::progress_bar;
use crate::report::Report;
use crate::run::{Handle, Run};
use crate::signing_key::VerificationKey;

#[cfg(test)]
mod tests;

/// Send numbered webhooks to a route, receive their deliveries, and print an exact ledger.
///
/// Exits with 0 only if something was accepted, nothing was lost, and nothing was delivered that should not have been. Ctrl-C
/// stops sending and waits for the rest; a second Ctrl-C ends the wait.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("amount").required(true).args(["events", "duration_seconds"])))]
#[command(group(ArgGroup::new("provider_secret").required(true).args(["secret_file", "secret_env"])))]
pub struct LoadArgs {
    /// The webhook route: http://HOST/api/v1/webhooks/ROUTE
    #[arg(long, value_name = "URL")]
    target: String,
    /// Provider of the webhooks: acme, globex or, with --no-sink, any preset that is signed with an HMAC
    #[arg(long)]
    provider: Provider,
    /// File with the provider's secret or token
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Environment variable with the provider's secret or token
    #[arg(long, value_name = "NAME")]
    secret_env: Option<String>,

    /// Number of events to send
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_NUMBERS))]
    events: Option<u64>,
    /// Time to send for, in seconds
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration_seconds: Option<u64>,
    /// Closed loop: number of clients; each sends its next event when the previous one is answered [default: 64]
    #[arg(long, value_name = "C", conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=4096))]
    concurrency: Option<u32>,
    /// Open loop: events per second on a fixed schedule; latencies count from when an event was due
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Open loop: maximum number of requests that wait for an answer
    #[arg(long, value_name = "M", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=4096))]
    max_in_flight: u32,
    /// Closed loop: events in each request, as a list that the route must split at /*; each counts as a request
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=5000))]
    elements: u32,
    /// Size of an event: that of the body, unless a request has several
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(512..=10_485_760))]
    body_bytes: u32,

    /// Address to receive deliveries on; port 0 takes any free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    sink_addr: SocketAddr,
    /// Receive no deliveries, and report only what is accepted
    #[arg(long, conflicts_with_all = ["sink_addr", "sink_fail_percent", "sink_delay_ms", "signing_secret_file"])]
    no_sink: bool,
    /// Percentage of events whose first delivery is answered 500
    #[arg(long, value_name = "P", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    sink_fail_percent: u8,
    /// Delay before each answer to a delivery, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    sink_delay_ms: u64,
    /// File with the secret (whsec_…) that deliveries are signed with; each signature is verified with it
    #[arg(long, value_name = "FILE")]
    signing_secret_file: Option<PathBuf>,

    /// How long to wait for missing deliveries after the last answer, in seconds
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    settle_seconds: u64,
    /// How long to watch for duplicates and phantoms after everything has arrived, in seconds
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    linger_seconds: u64,
    /// Deadline of a request, in seconds
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    request_timeout_seconds: u64,
    /// Give up after so many seconds in which connecting to the target or, with --retry-unknown, every request has failed
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    unreachable_seconds: u64,
    /// Send an event again after no answer, 429 or a 5xx, as providers do
    #[arg(long)]
    retry_unknown: bool,
    /// Part of each event id; must differ between runs [default: random]
    #[arg(long, value_name = "ID")]
    run_id: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl LoadArgs {
    pub(super) fn into_config(self) -> anyhow::Result<Config> {
        let secret = secret_from(self.secret_file.as_deref(), self.secret_env.as_deref())?
            .context("--secret-file or --secret-env is required")?;
        let signing_key = match &self.signing_secret_file {
            Some(file) => Some(
                VerificationKey::parse(&read_secret(file)?)
                    .with_context(|| format!("use {}", file.display()))?,
            ),
            None => None,
        };
        let amount = match (self.events, self.duration_seconds) {
            (Some(events), _) => Amount::Events(events),
            (None, Some(seconds)) => Amount::Time(Duration::from_secs(seconds)),
            (None, None) => anyhow::bail!("--events or --duration-seconds is required"),
        };
        let of_one_request = u64::from(self.elements);
        if let Amount::Events(events) = amount {
            ensure!(events % of_one_request == 0, "--events must be a multiple of --elements");
        }
        ensure!(
            self.elements == 1 || !matches!(self.provider, Provider::Preset(_)),
            "--elements needs the provider acme or globex"
        );
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
            elements: self.elements,
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

/// Reads a secret from a file or from an environment variable; `None` when neither is named.
pub(super) fn secret_from(file: Option<&Path>, name: Option<&str>) -> anyhow::Result<Option<SecretString>> {
    match (file, name) {
        (Some(file), _) => read_secret(file).map(Some),
        (None, Some(name)) => {
            Ok(Some(secret_in(&std::env::var(name).with_context(|| format!("read the secret from {name}"))?)))
        }
        (None, None) => Ok(None),
    }
}

fn read_secret(file: &Path) -> anyhow::Result<SecretString> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let secret = secret_in(&text);
    ensure!(!secret.expose_secret().is_empty(), "{} is empty", file.display());
    Ok(secret)
}

fn secret_in(text: &str) -> SecretString {
    let secret = without_line_end(text.as_bytes());
    SecretString::from(std::str::from_utf8(secret).expect("a text without its line end is a text"))
}

/// Runs the load test and prints its report on standard output.
///
/// # Errors
/// When the run cannot start or a part of the load test fails. Invalid arguments are reported here, with exit code 2.
pub async fn execute(args: LoadArgs) -> anyhow::Result<ExitCode> {
    let json = args.json;
    let config = match args.into_config() {
        Ok(config) => config,
        Err(error) => return Ok(usage_error(&error)),
    };
    let report = run_to_report(config).await?;
    print_report(&report, json)?;
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAULT) })
}

/// Reports an invalid configuration.
pub(super) fn usage_error(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(EXIT_USAGE)
}

/// Runs the load test, with a progress bar on a terminal, until it is finished or ended by signals.
pub(super) async fn run_to_report(config: Config) -> anyhow::Result<Report> {
    let amount = config.amount;
    let run = Run::start(config)?;
    if let Some(addr) = run.sink_addr() {
        eprintln!("receiving deliveries on http://{addr}");
    }
    let handle = run.handle();
    let signals = end_on_signals(handle.clone());
    let progress = async {
        if std::io::stderr().is_terminal() {
            progress_bar::show(handle, amount).await
        } else {
            std::future::pending().await
        }
    };
    tokio::select! {
        report = run.finish() => report,
        Err(error) = signals => Err(error),
        Err(error) = progress => Err(error),
    }
}

/// Ends the run at the first signal, and its wait at the second. Returns only on an error.
async fn end_on_signals(handle: Handle) -> anyhow::Result<Infallible> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut is_stopping = false;
    loop {
        tokio::select! {
            received = interrupt.recv() => received,
            received = terminate.recv() => received,
        }
        .context("receive signals")?;
        if is_stopping || handle.is_sending_over() {
            handle.cut();
        } else {
            eprintln!("stopping: waiting for answers and deliveries (again to end the wait)");
            handle.stop();
        }
        is_stopping = true;
    }
}
