//! Logs: JSON lines in production, text for people in development.
//!
//! Never a body, a secret or an address of a sender in a log line, at any level. Libraries that log what they send are
//! kept at `warn`, whatever the filter says for our own code.

use std::error::Error;
use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::Environment;

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

/// An error with its causes, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Some libraries repeat the cause in their own message.
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
