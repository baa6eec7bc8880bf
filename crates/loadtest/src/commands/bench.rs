//! `grapnel-loadtest bench`: the measurements of scripts/bench, and the report on them.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::EXIT_FAULT;
use super::run::{LoadArgs, run_to_report, usage_error};
use crate::bench::results_file::{self, BenchSettings, BenchmarkResults, Machine, Versions};
use crate::bench::{Build, CaseResult, CostMeter, SystemProcesses, tables};

/// A step of a benchmark.
#[derive(Debug, clap::Subcommand)]
pub enum BenchCommand {
    /// Run the load of one case, and append its rates, latencies and costs to the results
    Measure(Box<MeasureArgs>),
    /// Write the file with all results, and print tables and comparisons
    Report(Box<ReportArgs>),
}

/// The measurement of one case.
#[derive(Debug, clap::Args)]
pub struct MeasureArgs {
    /// Name of the case
    #[arg(long, value_name = "NAME")]
    case: String,
    /// Round, or number of the pair in a comparison
    #[arg(long, value_name = "N")]
    round: u32,
    /// The build that is measured, in a comparison
    #[arg(long)]
    build: Option<Build>,
    /// File to append the result to, one JSON object per line
    #[arg(long, value_name = "FILE")]
    results: PathBuf,
    /// Process id of the api, if it runs
    #[arg(long, value_name = "PID")]
    api_pid: Option<u32>,
    /// Process id of the worker, if it runs
    #[arg(long, value_name = "PID")]
    worker_pid: Option<u32>,
    /// Process id of PostgreSQL
    #[arg(long, value_name = "PID")]
    postgres_pid: Option<u32>,
    /// Process id of RabbitMQ
    #[arg(long, value_name = "PID")]
    rabbitmq_pid: Option<u32>,
    /// Process id of Redis
    #[arg(long, value_name = "PID")]
    redis_pid: Option<u32>,
    #[command(flatten)]
    run: LoadArgs,
}

/// The report on all measurements.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// File that the results were appended to
    #[arg(long, value_name = "FILE")]
    results: PathBuf,
    /// File to write, as JSON
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Commit that was measured
    #[arg(long)]
    commit: String,
    /// Provider of the case costly-64
    #[arg(long, value_name = "NAME")]
    costly_provider: String,
    #[command(flatten)]
    versions: Versions,
    #[command(flatten)]
    settings: BenchSettings,
}

/// Runs a step of a benchmark.
///
/// # Errors
/// When the run cannot start, or a file cannot be read or written.
pub async fn execute(command: BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Measure(args) => measure(*args).await,
        BenchCommand::Report(args) => report(&args),
    }
}

/// Faults of the ledger are part of the result, and reported at the end.
async fn measure(args: MeasureArgs) -> anyhow::Result<ExitCode> {
    let config = match args.run.into_config() {
        Ok(config) => config,
        Err(error) => return Ok(usage_error(&error)),
    };
    let meter = CostMeter::start(SystemProcesses {
        api: args.api_pid,
        worker: args.worker_pid,
        postgres: args.postgres_pid,
        rabbitmq: args.rabbitmq_pid,
        redis: args.redis_pid,
    });
    let report = run_to_report(config).await?;
    let costs = meter.stop();
    let result = CaseResult::new(&args.case, args.round, args.build, &report, &costs);
    results_file::append(&args.results, &result)?;
    println!("{}", tables::summary_line(&result));
    Ok(ExitCode::SUCCESS)
}

fn report(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let results = results_file::read(&args.results)?;
    let content = BenchmarkResults {
        date: results_file::date(),
        commit: &args.commit,
        machine: Machine::this(),
        versions: &args.versions,
        settings: &args.settings,
        results: &results,
    };
    content.write(&args.output)?;
    let mut text = String::new();
    tables::write_tables(&mut text, &results, &args.costly_provider, prints_bold())
        .context("write the tables")?;
    print!("{text}");
    let faults = tables::faults(&results);
    if faults.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: ledgers that do not add up: {}", faults.join("\n"));
    Ok(ExitCode::from(EXIT_FAULT))
}

/// As in the scripts: not in a file or pipe, and not where NO_COLOR is set.
fn prints_bold() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
    std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb
}
