//! Logs: JSON lines in production, text for people in development.
//!
//! Never a body, a secret or an address of a sender in a log line, at any level. Libraries that log what they send are
//! kept at `warn`, whatever the filter says for our own code.

use std::error::Error;

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::Environment;

/// Libraries that would log URLs, frames or statements with their values.
const QUIET: [&str; 8] = [
    "sqlx=warn",
    "lapin=off",
    "redis=warn",
    "hyper=warn",
    "hyper_util=warn",
    "reqwest=warn",
    "rustls=warn",
    "h2=warn",
];

/// Starts logging to standard error. `RUST_LOG` sets the level of our own code; the default is `info`.
pub fn start(environment: Environment) {
    let mut filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    for directive in QUIET {
        match directive.parse() {
            Ok(directive) => filter = filter.add_directive(directive),
            Err(error) => eprintln!("log directive {directive}: {error}"),
        }
    }
    let lines = match environment {
        Environment::Production => fmt::layer().json().with_writer(std::io::stderr).boxed(),
        Environment::Development => fmt::layer().with_target(false).with_writer(std::io::stderr).boxed(),
    };
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_err() {
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
