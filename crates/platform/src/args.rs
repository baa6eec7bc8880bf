//! The options that the processes share, parsed and validated before the first connection.
//!
//! Every option is also an environment variable, and an empty variable counts as not set. A secret may be given as
//! `NAME_FILE`, the path of a file that contains it (see `secret_file`); setting both is an error. Secrets are
//! [`SecretString`]s from here on, and no message repeats one.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, Command};
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use url::Url;

use crate::telemetry::Environment;
use crate::{queue, secret_file};
use grapnel_core::sealing::SealingKeys;

/// An invalid configuration; the message names the variable.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("{name} is required (or {name}_FILE, the path of a file that contains it)")]
    Missing { name: &'static str },
    #[error("{name} and {name}_FILE are both set: set only one")]
    Both { name: &'static str },
    #[error("{name}_FILE: cannot read {path}")]
    Unreadable {
        name: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{name}: {reason}")]
    Invalid { name: &'static str, reason: String },
}

/// Removes empty variables from the command: a template that leaves one empty means that it is not set.
pub fn without_empty_variables(command: Command) -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if arg.get_env().is_some_and(is_empty) { arg.env(Resettable::Reset) } else { arg })
        .mut_subcommands(without_empty_variables)
}

/// Returns the secret that is set as `NAME` or as `NAME_FILE`.
pub fn secret(
    name: &'static str,
    value: Option<&SecretString>,
    file: Option<&Path>,
) -> Result<Option<SecretString>, ConfigError> {
    let value = value.filter(|text| !text.expose_secret().is_empty());
    let file = file.filter(|path| !path.as_os_str().is_empty());
    match (value, file) {
        (Some(_), Some(_)) => Err(ConfigError::Both { name }),
        (Some(text), None) => Ok(Some(text.clone())),
        (None, Some(path)) => {
            let text = secret_file::read_text(path);
            let unreadable = |source| ConfigError::Unreadable { name, path: path.to_owned(), source };
            let text = text.map_err(unreadable)?;
            Ok(Some(text).filter(|text| !text.expose_secret().is_empty()))
        }
        (None, None) => Ok(None),
    }
}

/// Networks as comma-separated CIDRs; an empty text is an empty list.
#[derive(Debug, Clone, Default)]
pub struct Networks(pub Vec<IpNet>);

impl FromStr for Networks {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

pub fn required(name: &'static str, secret: Option<SecretString>) -> Result<SecretString, ConfigError> {
    secret.ok_or(ConfigError::Missing { name })
}

/// Returns a required URL after its library has parsed it. The library's error is dropped, since it may repeat the URL.
pub fn secret_url(
    name: &'static str,
    system: &'static str,
    secret: Option<SecretString>,
    is_url: fn(&str) -> bool,
) -> Result<SecretString, ConfigError> {
    let url = required(name, secret)?;
    if is_url(url.expose_secret()) {
        return Ok(url);
    }
    Err(ConfigError::Invalid { name, reason: format!("not a {system} URL") })
}

/// Returns whether the text is a PostgreSQL URL. The library would accept any scheme.
fn is_postgres_url(text: &str) -> bool {
    let has_scheme = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
    has_scheme && Url::parse(text).is_ok()
}

#[derive(Debug, Args)]
pub struct DatabaseArgs {
    /// PostgreSQL, for example `postgres://user:password@host/grapnel`
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<SecretString>,
    #[arg(long, env = "DATABASE_URL_FILE", hide = true)]
    database_url_file: Option<PathBuf>,
}

impl DatabaseArgs {
    pub fn database_url(&self) -> Result<SecretString, ConfigError> {
        let name = "DATABASE_URL";
        let given = secret(name, self.database_url.as_ref(), self.database_url_file.as_deref())?;
        secret_url(name, "PostgreSQL", given, is_postgres_url)
    }
}

#[derive(Debug, Args)]
pub struct QueueArgs {
    /// RabbitMQ, for example `amqp://user:password@host:5672/%2f`
    #[arg(long, env = "RABBITMQ_URL", hide_env_values = true)]
    rabbitmq_url: Option<SecretString>,
    #[arg(long, env = "RABBITMQ_URL_FILE", hide = true)]
    rabbitmq_url_file: Option<PathBuf>,
    #[command(flatten)]
    prefix: QueuePrefixArgs,
}

#[derive(Debug, Args)]
pub struct QueuePrefixArgs {
    /// Prefix of every queue name, so that several installations can share a RabbitMQ vhost
    #[arg(long, env = "GRAPNEL_QUEUE_PREFIX", default_value = "")]
    queue_prefix: String,
}

impl QueueArgs {
    pub fn rabbitmq_url(&self) -> Result<SecretString, ConfigError> {
        let name = "RABBITMQ_URL";
        let given = secret(name, self.rabbitmq_url.as_ref(), self.rabbitmq_url_file.as_deref())?;
        secret_url(name, "RabbitMQ", given, queue::is_url)
    }

    pub fn queue_prefix(&self) -> Result<String, ConfigError> {
        self.prefix.queue_prefix()
    }
}

impl QueuePrefixArgs {
    pub fn queue_prefix(&self) -> Result<String, ConfigError> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.queue_prefix.len() > 64 || !self.queue_prefix.bytes().all(valid) {
            return Err(ConfigError::Invalid {
                name: "GRAPNEL_QUEUE_PREFIX",
                reason: "at most 64 of the characters A-Z a-z 0-9 - _ . are allowed".to_owned(),
            });
        }
        Ok(self.queue_prefix.clone())
    }
}

#[derive(Debug, Args)]
pub struct QueueManagementArgs {
    /// The management API of RabbitMQ, for example `http://user:password@host:15672`; without credentials, those of
    /// RABBITMQ_URL are used
    #[arg(long, env = "RABBITMQ_MANAGEMENT_URL", hide_env_values = true)]
    rabbitmq_management_url: Option<SecretString>,
    #[arg(long, env = "RABBITMQ_MANAGEMENT_URL_FILE", hide = true)]
    rabbitmq_management_url_file: Option<PathBuf>,
}

impl QueueManagementArgs {
    pub fn management_url(&self) -> Result<SecretString, ConfigError> {
        let (value, file) =
            (self.rabbitmq_management_url.as_ref(), self.rabbitmq_management_url_file.as_deref());
        required("RABBITMQ_MANAGEMENT_URL", secret("RABBITMQ_MANAGEMENT_URL", value, file)?)
    }
}

#[derive(Debug, Args)]
pub struct SealingArgs {
    /// Keys that seal secrets in the database: `id:base64 of 32 bytes`, comma-separated; the first seals, all open.
    /// Required in production
    #[arg(long, env = "GRAPNEL_SEALING_KEYS", hide_env_values = true)]
    sealing_keys: Option<SecretString>,
    #[arg(long, env = "GRAPNEL_SEALING_KEYS_FILE", hide = true)]
    sealing_keys_file: Option<PathBuf>,
}

/// The key for development when none is set. It protects nothing; production requires a key.
const DEVELOPMENT_SEALING_KEYS: &str = "development:Z3JhcG5lbCBkZXZlbG9wbWVudCBzZWFsaW5nIGtleSE=";

impl SealingArgs {
    pub fn sealing_keys(&self, environment: Environment) -> Result<SealingKeys, ConfigError> {
        let name = "GRAPNEL_SEALING_KEYS";
        let given = secret(name, self.sealing_keys.as_ref(), self.sealing_keys_file.as_deref())?;
        let keys = match (&given, environment) {
            (Some(keys), _) => keys.expose_secret(),
            (None, Environment::Development) => DEVELOPMENT_SEALING_KEYS,
            (None, Environment::Production) => return Err(ConfigError::Missing { name }),
        };
        SealingKeys::parse(keys).map_err(|error| ConfigError::Invalid { name, reason: error.to_string() })
    }
}

#[derive(Debug, Args)]
pub struct CommonArgs {
    #[arg(long, env = "GRAPNEL_ENV", value_enum, default_value = "production")]
    pub environment: Environment,
    /// Operations port: /livez, /readyz, /metrics
    #[arg(long, env = "GRAPNEL_OPS_ADDR", default_value = "0.0.0.0:9090")]
    pub ops_addr: SocketAddr,
    /// How long a stopping process may take to finish work in flight
    #[arg(long, env = "GRAPNEL_SHUTDOWN_SECONDS", default_value = "25", value_parser = clap::value_parser!(u64).range(1..=600))]
    shutdown_seconds: u64,
}

impl CommonArgs {
    pub fn shutdown_deadline(&self) -> Duration {
        Duration::from_secs(self.shutdown_seconds)
    }
}
