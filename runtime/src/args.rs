//! The options of the runtime's roles, in addition to those of every process.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use grapnel_platform::args::{ConfigError, Networks, required, secret, secret_url};
use grapnel_platform::clock::VerificationClock;
use grapnel_platform::http_server::{ConnectionDeadlines, ConnectionSlots, PortBounds};
use grapnel_platform::telemetry::Environment;
use ipnet::IpNet;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::rate_limit;

#[derive(Debug, Args)]
pub(crate) struct RedisArgs {
    /// Redis, for example `redis://:password@host:6379/0`
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    redis_url: Option<SecretString>,
    #[arg(long, env = "REDIS_URL_FILE", hide = true)]
    redis_url_file: Option<PathBuf>,
}

impl RedisArgs {
    pub(crate) fn redis_url(&self) -> Result<SecretString, ConfigError> {
        let name = "REDIS_URL";
        let given = secret(name, self.redis_url.as_ref(), self.redis_url_file.as_deref())?;
        secret_url(name, "Redis", given, rate_limit::is_url)
    }
}

#[derive(Debug, Args)]
pub(crate) struct ApiArgs {
    /// Public port: webhooks and management routes
    #[arg(long, env = "GRAPNEL_HTTP_ADDR", default_value = "0.0.0.0:8080")]
    pub http_addr: SocketAddr,
    /// Key of the management routes, at least 16 characters
    #[arg(long, env = "MANAGEMENT_API_KEY", hide_env_values = true)]
    management_api_key: Option<SecretString>,
    #[arg(long, env = "MANAGEMENT_API_KEY_FILE", hide = true)]
    management_api_key_file: Option<PathBuf>,
    /// A second key that is also valid during a rotation
    #[arg(long, env = "MANAGEMENT_API_KEY_PREVIOUS", hide_env_values = true)]
    management_api_key_previous: Option<SecretString>,
    #[arg(long, env = "MANAGEMENT_API_KEY_PREVIOUS_FILE", hide = true)]
    management_api_key_previous_file: Option<PathBuf>,
    /// Networks whose `x-forwarded-for` is trusted (comma-separated CIDRs)
    #[arg(long, env = "GRAPNEL_TRUSTED_PROXIES", default_value = "")]
    trusted_proxies: Networks,
    /// Webhooks per minute for each route and source address; 0 disables the limit
    #[arg(long, env = "GRAPNEL_RATE_LIMIT_PER_MINUTE", default_value = "6000")]
    pub rate_limit_per_minute: u32,
    /// The highest limit that an Integration may set, and the one that its 0 means; 0 sets no ceiling. Default: ten times the
    /// platform's limit
    #[arg(long, env = "GRAPNEL_MAX_RATE_LIMIT_PER_MINUTE")]
    max_rate_limit_per_minute: Option<u32>,
    /// Base of the URLs that providers call, such as `https://hooks.example.com`; some providers sign it
    #[arg(long, env = "GRAPNEL_PUBLIC_URL")]
    public_url: Option<Url>,
    /// Development only: webhooks are verified as if it were always this time, so that captured ones can be sent again
    #[arg(long, env = "GRAPNEL_VERIFICATION_CLOCK", hide = true)]
    verification_clock: Option<Timestamp>,
    /// A delivery whose message is lost is queued again within this many seconds
    #[arg(long, env = "GRAPNEL_REQUEUE_AFTER_SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=3600))]
    requeue_after_seconds: u64,
    /// Longest retention of events in days, whatever an Integration asks for
    #[arg(long, env = "GRAPNEL_MAX_RETENTION_DAYS", default_value = "3650", value_parser = clap::value_parser!(i32).range(1..=3650))]
    pub max_retention_days: i32,
    /// The messages that a destination's queue may have; further deliveries wait in PostgreSQL
    #[arg(long, env = "GRAPNEL_MAX_QUEUE_LENGTH", default_value = "100000", value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    max_queue_length: u32,
    #[command(flatten)]
    pub port: PortArgs,
}

/// The bounds of the public port. Tests lower them; nothing else needs to.
#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// Connections to the public port; one client gets at most a quarter
    #[arg(long, env = "GRAPNEL_HTTP_CONNECTIONS", default_value = "2048", hide = true)]
    http_connections: usize,
    /// Seconds within which a client must read some of an answer
    #[arg(long, env = "GRAPNEL_HTTP_UNREAD_SECONDS", default_value = "30", hide = true)]
    http_unread_seconds: u64,
    /// Seconds after which a connection without requests is closed
    #[arg(long, env = "GRAPNEL_HTTP_IDLE_SECONDS", default_value = "75", hide = true)]
    http_idle_seconds: u64,
}

impl PortArgs {
    /// Returns the bounds of a port behind these proxies, whose own connections are bounded only all together.
    pub(crate) fn bounds(&self, proxies: Arc<[IpNet]>) -> PortBounds {
        let deadlines = ConnectionDeadlines {
            unread_answer: Duration::from_secs(self.http_unread_seconds),
            idle: Duration::from_secs(self.http_idle_seconds),
            ..ConnectionDeadlines::default()
        };
        PortBounds { slots: ConnectionSlots::new(self.http_connections, proxies), deadlines }
    }
}

/// The default ceiling of rate limits, as a multiple of the platform's limit.
const DEFAULT_CEILING: u32 = 10;

/// The shortest key: shorter ones can be guessed.
const MIN_MANAGEMENT_KEY_CHARS: usize = 16;

fn long_enough(name: &'static str, key: SecretString) -> Result<SecretString, ConfigError> {
    if key.expose_secret().chars().count() >= MIN_MANAGEMENT_KEY_CHARS {
        return Ok(key);
    }
    let reason = format!("a key needs at least {MIN_MANAGEMENT_KEY_CHARS} characters");
    Err(ConfigError::Invalid { name, reason })
}

impl ApiArgs {
    /// Returns the valid management keys: the current one, then the previous one if it is set.
    pub(crate) fn management_keys(&self) -> Result<Vec<SecretString>, ConfigError> {
        let name = "MANAGEMENT_API_KEY";
        let current =
            secret(name, self.management_api_key.as_ref(), self.management_api_key_file.as_deref())?;
        let mut keys = vec![long_enough(name, required(name, current)?)?];
        let name = "MANAGEMENT_API_KEY_PREVIOUS";
        let previous = secret(
            name,
            self.management_api_key_previous.as_ref(),
            self.management_api_key_previous_file.as_deref(),
        )?;
        if let Some(previous) = previous {
            keys.push(long_enough(name, previous)?);
        }
        Ok(keys)
    }

    /// Returns the ceiling of the limits of Integrations; `None`: there is none. Whoever sets no limit for the platform sets no
    /// ceiling by that.
    pub(crate) fn max_rate_limit_per_minute(&self) -> Option<u32> {
        let ceiling = self.max_rate_limit_per_minute;
        let ceiling = ceiling.unwrap_or(self.rate_limit_per_minute.saturating_mul(DEFAULT_CEILING));
        (ceiling > 0).then_some(ceiling)
    }

    /// Returns the public URL without a final slash: paths are appended.
    pub(crate) fn public_url(&self) -> Option<Arc<str>> {
        self.public_url.as_ref().map(|url| url.as_str().trim_end_matches('/').into())
    }

    /// Returns the clock that signatures are verified against.
    ///
    /// # Errors
    /// When it is stopped in production.
    pub(crate) fn clock(&self, environment: Environment) -> Result<VerificationClock, ConfigError> {
        match (self.verification_clock, environment) {
            (None, _) => Ok(VerificationClock::default()),
            (Some(moment), Environment::Development) => Ok(VerificationClock::stopped_at(moment)),
            (Some(_), Environment::Production) => Err(ConfigError::Invalid {
                name: "GRAPNEL_VERIFICATION_CLOCK",
                reason: "only allowed in development".to_owned(),
            }),
        }
    }

    pub(crate) fn trusted_proxies(&self) -> &[IpNet] {
        &self.trusted_proxies.0
    }

    pub(crate) fn max_queue_length(&self) -> usize {
        usize::try_from(self.max_queue_length).unwrap_or(usize::MAX)
    }

    pub(crate) fn requeue_after(&self) -> Duration {
        Duration::from_secs(self.requeue_after_seconds)
    }
}

#[derive(Debug, Args)]
pub(crate) struct DeliveryArgs {
    /// Private networks in which destinations are allowed (comma-separated CIDRs). By default none in production,
    /// loopback in development
    #[arg(long, env = "GRAPNEL_ALLOWED_DESTINATION_CIDRS", default_value = "")]
    allowed_destination_cidrs: Networks,
}

impl DeliveryArgs {
    pub(crate) fn allowed_destination_cidrs(&self, environment: Environment) -> Vec<IpNet> {
        let given = &self.allowed_destination_cidrs.0;
        if given.is_empty() && environment == Environment::Development {
            return vec![
                IpNet::new_assert(Ipv4Addr::LOCALHOST.into(), 8).trunc(),
                IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128),
            ];
        }
        given.clone()
    }
}
