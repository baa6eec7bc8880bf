//! The `grapnel-controller` binary.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use grapnel_controller::commands::explain::{ExplainArgs, explain};
use grapnel_controller::commands::uninstall::{UninstallArgs, uninstall};
use grapnel_controller::config::RunArgs;
use grapnel_controller::run::run;
use grapnel_core::error_chain::chain;
use grapnel_platform::telemetry::{self, Environment};

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
    /// Watch Integrations and bring them to their desired state
    Run(Box<RunArgs>),
    /// Print the definitions of the custom resources
    Crds,
    /// Validate Integrations in files and describe their effect
    Explain(ExplainArgs),
    /// Remove the workers and the finalizers of Integrations before the controller is removed permanently
    Uninstall(UninstallArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::start(Environment::from_variable());
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider is already installed");
    }
    let outcome = match cli.command {
        Command::Run(args) => block_on(Box::pin(run(*args))),
        Command::Crds => {
            let definitions = grapnel_crds::definitions();
            print!(
                "{}",
                definitions.map(|definition| grapnel_crds::definition_yaml(&definition)).join("---\n")
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::Explain(args) => explain(&args),
        Command::Uninstall(args) => block_on(uninstall(args)),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("grapnel-controller: {}", chain(&*error));
        ExitCode::FAILURE
    })
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)?;
    Ok(ExitCode::SUCCESS)
}
