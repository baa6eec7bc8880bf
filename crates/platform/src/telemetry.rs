//! Logs: JSON lines in production, text for people in development.
//!
//! Never a body, a secret or an address of a sender in a log line, at any level. Libraries that log what they send are
//! kept at `warn`, whatever the filter says for our own code.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Where the process runs. Production is the default, so that leniency is always a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Environment {
    Production,
    Development,
}

/// Libraries that would log URLs, frames or statements with their values, and what they may say. A target stands for all
/// that begin with it.
const QUIET: [(&str, LevelFilter); 7] = [
    ("sqlx", LevelFilter::WARN),
    ("lapin", LevelFilter::OFF),
    ("redis", LevelFilter::WARN),
    ("hyper", LevelFilter::WARN),
    ("reqwest", LevelFilter::WARN),
    ("rustls", LevelFilter::WARN),
    ("h2", LevelFilter::WARN),
];

/// Starts logging to standard error. `RUST_LOG` sets the level of our own code; the default is `info`.
pub fn start(environment: Environment) {
    let chosen = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let bounds = Targets::new().with_default(LevelFilter::TRACE).with_targets(QUIET);
    let lines = match environment {
        Environment::Production => fmt::layer().json().with_writer(std::io::stderr).boxed(),
        Environment::Development => fmt::layer()
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .boxed(),
    };
    // Both for all layers: a filter of one layer loses lines after a library has asked whether a line would be written.
    if tracing_subscriber::registry().with(chosen).with(bounds).with(lines).try_init().is_err() {
        tracing::debug!("logging was started before");
    }
}
