//! Logs: JSON lines in production, text for people in development.
//!
//! No log line contains a body, a secret or a sender's address, at any level. Libraries that log what they send are kept
//! at `warn`, whatever the filter is for our own code.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// The environment of a process. Production is the default, so that leniency is always a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Environment {
    Production,
    Development,
}

impl Environment {
    /// Reads `GRAPNEL_ENV` as the options will, for logs that start before they are parsed; an invalid value is rejected
    /// there.
    pub fn from_variable() -> Self {
        match std::env::var("GRAPNEL_ENV").as_deref() {
            Ok("development") => Self::Development,
            _ => Self::Production,
        }
    }
}

/// Libraries that would log URLs, frames or statements with their values, and their highest level. A target includes all
/// targets that begin with it.
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
    // Both apply to all layers: a filter of one layer loses lines after a library has asked whether a line is enabled.
    if tracing_subscriber::registry().with(chosen).with(bounds).with(lines).try_init().is_err() {
        tracing::debug!("logging is already started");
    }
}
