//! The `grapnel-loadtest` binary.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use grapnel_loadtest::commands::{bench, replay, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A load generator for Grapnel with an exact ledger.
#[derive(Debug, Parser)]
#[command(name = "grapnel-loadtest", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send numbered webhooks, receive their deliveries, and print an exact ledger
    Run(Box<run::LoadArgs>),
    /// Let every delivery fail for a while, replay them through the API, and prove that each arrived
    Replay(Box<replay::ReplayArgs>),
    /// Measure one case of a benchmark, or report on all of them; for scripts/bench
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("grapnel-loadtest: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = match cli.command {
        Command::Run(args) => runtime.block_on(run::execute(*args)),
        Command::Replay(args) => runtime.block_on(replay::execute(*args)),
        Command::Bench(command) => runtime.block_on(bench::execute(command)),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("grapnel-loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}
