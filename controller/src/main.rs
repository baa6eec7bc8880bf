//! The `grapnel-controller` binary.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use grapnel::config::Environment;
use grapnel::telemetry;
use grapnel_controller::config::RunArgs;
use grapnel_controller::explain::{self, ExplainArgs};
use grapnel_controller::run;
use grapnel_controller::uninstall::{UninstallArgs, uninstall};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The control plane of Grapnel.
#[derive(Debug, Parser)]
#[command(name = "grapnel-controller", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch Integrations and make them true
    Run(Box<RunArgs>),
    /// Print the definition of the custom resource
    Crds,
    /// Check Integrations in files, and say what they would come to
    Explain(ExplainArgs),
    /// Remove the workers and the finalizers of Integrations, before the controller is removed for good
    Uninstall(UninstallArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::start(environment());
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed before");
    }
    let outcome = match cli.command {
        Command::Run(args) => block_on(Box::pin(run::run(*args))),
        Command::Crds => {
            print!("{}", grapnel_crds::crd_yaml());
            Ok(ExitCode::SUCCESS)
        }
        Command::Explain(args) => explain::explain(&args),
        Command::Uninstall(args) => block_on(uninstall(args)),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("grapnel-controller: {}", telemetry::chain(&*error));
        ExitCode::FAILURE
    })
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)?;
    Ok(ExitCode::SUCCESS)
}

/// As the configuration will read it; a value that it refuses is refused there.
fn environment() -> Environment {
    match std::env::var("GRAPNEL_ENV").as_deref() {
        Ok("development") => Environment::Development,
        _ => Environment::Production,
    }
}
