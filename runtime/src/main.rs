//! The `grapnel` command.

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "grapnel", version)]
enum Command {
    Probe(grapnel::probe::ProbeArgs),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Command::parse() {
        Command::Probe(args) => grapnel::probe::run(args).await,
    }
}
