//! The `grapnel` binary: one program, several roles.

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use grapnel::commands::{api, dev, manage, worker};
use grapnel::commands::{apply, filter, providers, verify};
use grapnel_core::error_chain::chain;
use grapnel_platform::args::{DatabaseArgs, without_empty_variables};
use grapnel_platform::telemetry::{self, Environment};
use grapnel_store::{Database, migrate};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Webhooks in, deliveries out, nothing lost.
#[derive(Debug, Parser)]
#[command(name = "grapnel", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Accept webhooks, and serve the management routes as well where there is a management key
    Api(Box<api::ApiCommand>),
    /// Serve the management routes
    Manage(Box<manage::ManageCommand>),
    /// Deliver accepted events
    Worker(Box<worker::WorkerCommand>),
    /// Bring the database schema up to date
    Migrate(MigrateCommand),
    /// Run everything in one process, with Integrations from files
    Dev(Box<dev::DevCommand>),
    /// Write the Integrations from files to the database once
    Apply(Box<apply::ApplyArgs>),
    /// List the providers that have a preset, or show a preset
    Providers(providers::ProvidersArgs),
    /// Report whether a captured request verifies and, if not, at which step it fails
    Verify(Box<verify::VerifyArgs>),
    /// Say what each destination of an Integration would do with an event
    Filter(filter::FilterArgs),
}

#[derive(Debug, clap::Args)]
struct MigrateCommand {
    /// Only report the current version; fails if it is too old for this program
    #[arg(long)]
    check: bool,
    /// How long to wait until the database answers
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3600))]
    wait_seconds: u64,
    #[command(flatten)]
    database: DatabaseArgs,
}

fn main() -> ExitCode {
    let cli = parse();
    telemetry::start(Environment::from_variable());
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider is already installed");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("grapnel: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.role)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("grapnel: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Parses the command line. Ends the process if it or a variable is invalid, or if it asks for help.
fn parse() -> Cli {
    let mut command = without_empty_variables(Cli::command());
    let mut matches = command.get_matches_mut();
    Cli::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.format(&mut command).exit())
}

async fn run(role: Role) -> anyhow::Result<ExitCode> {
    match role {
        Role::Api(command) => api::run(*command).await?,
        Role::Manage(command) => manage::run(*command).await?,
        Role::Worker(command) => worker::run(*command).await?,
        Role::Dev(command) => dev::run(*command).await?,
        Role::Apply(args) => apply::run(*args).await?,
        Role::Providers(args) => providers::run(&args)?,
        Role::Verify(args) => return verify::run(&args),
        Role::Filter(args) => return filter::run(&args),
        Role::Migrate(command) => return migrate(command).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn migrate(command: MigrateCommand) -> anyhow::Result<ExitCode> {
    let db = Database::new(&command.database.database_url()?, "migrate", 2)?;
    migrate::wait_for_answer(&db, Duration::from_secs(command.wait_seconds)).await?;
    let required = migrate::REQUIRED_VERSION;
    let version =
        if command.check { migrate::current_version(&db).await? } else { migrate::run(&db).await? };
    println!("schema version {version}, this program needs {required}");
    Ok(if version >= required { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
