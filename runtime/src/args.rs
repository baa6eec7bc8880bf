//! The options of the runtime's roles, in addition to those of every process.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use grapnel_core::delivery::egress_policy::EgressPolicy;
use grapnel_platform::args::{ConfigError, Networks, secret, secret_url};
use grapnel_platform::clock::VerificationClock;
use grapnel_platform::http_server::{ConnectionDeadlines, ConnectionSlots, PortBounds};
use grapnel_platform::telemetry::Environment;
use ipnet::IpNet;
use jiff::Timestamp;
use rustls::RootCertStore;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::egress::{Datastores, Egress, EgressProxy, trusted_roots};
use crate::management::ManagementKeys;
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

    /// Returns the URL where it is set.
    pub(crate) fn optional_redis_url(&self) -> Result<Option<SecretString>, ConfigError> {
        if self.redis_url.is_none() && self.redis_url_file.is_none() {
            return Ok(None);
        }
        self.redis_url().map(Some)
    }
}

#[derive(Debug, Args)]
pub(crate) struct ApiArgs {
    /// Public port: webhooks, and management routes where there is a management key
    #[arg(long, env = "GRAPNEL_HTTP_ADDR", default_value = "0.0.0.0:8080")]
    pub http_addr: SocketAddr,
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
}

/// The port of the management API, and who is let in besides the holders of its key.
#[derive(Debug, Args)]
pub(crate) struct ManageArgs {
    /// Management port: the management routes
    #[arg(long, env = "GRAPNEL_MANAGEMENT_ADDR", default_value = "0.0.0.0:8081")]
    pub management_addr: SocketAddr,
    /// Let people in by their Kubernetes tokens, with the rights that they have in the cluster. The API server is found by the
    /// pod's own account, or by KUBECONFIG
    #[arg(long, env = "GRAPNEL_KUBERNETES_ACCESS", default_value = "false", action = clap::ArgAction::Set)]
    pub kubernetes_access: bool,
}

/// The keys of the management routes.
#[derive(Debug, Args)]
pub(crate) struct ManagementKeyArgs {
    /// Key of the management routes, at least 16 characters. Whoever has it sees and may do everything
    #[arg(long, env = "MANAGEMENT_API_KEY", hide_env_values = true)]
    management_api_key: Option<SecretString>,
    #[arg(long, env = "MANAGEMENT_API_KEY_FILE", hide = true)]
    management_api_key_file: Option<PathBuf>,
    /// A second key that is also valid during a rotation
    #[arg(long, env = "MANAGEMENT_API_KEY_PREVIOUS", hide_env_values = true)]
    management_api_key_previous: Option<SecretString>,
    #[arg(long, env = "MANAGEMENT_API_KEY_PREVIOUS_FILE", hide = true)]
    management_api_key_previous_file: Option<PathBuf>,
}

impl ManagementKeyArgs {
    /// Returns the valid keys; there are none where no key is set.
    pub(crate) fn management_keys(&self) -> Result<ManagementKeys, ConfigError> {
        let name = "MANAGEMENT_API_KEY";
        let current =
            secret(name, self.management_api_key.as_ref(), self.management_api_key_file.as_deref())?;
        let current = current.map(|key| long_enough(name, key)).transpose()?;
        let name = "MANAGEMENT_API_KEY_PREVIOUS";
        let previous = secret(
            name,
            self.management_api_key_previous.as_ref(),
            self.management_api_key_previous_file.as_deref(),
        )?;
        let previous = previous.map(|key| long_enough(name, key)).transpose()?;
        if previous.is_some() && current.is_none() {
            let reason = "is only valid beside MANAGEMENT_API_KEY".to_owned();
            return Err(ConfigError::Invalid { name, reason });
        }
        Ok(ManagementKeys::new(current.as_ref(), previous.as_ref()))
    }
}

/// The bounds of a port, and the proxies before it. Tests lower the bounds; nothing else needs to.
#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// Networks whose `x-forwarded-for` is trusted (comma-separated CIDRs)
    #[arg(long, env = "GRAPNEL_TRUSTED_PROXIES", default_value = "")]
    trusted_proxies: Networks,
    /// Connections to the public port; one client gets at most a quarter
    #[arg(long, env = "GRAPNEL_HTTP_CONNECTIONS", default_value = "2048", hide = true)]
    http_connections: usize,
    /// Seconds from the first byte of a further request to the end of its headers
    #[arg(long, env = "GRAPNEL_HTTP_HEAD_SECONDS", default_value = "15", hide = true)]
    http_head_seconds: u64,
    /// Seconds within which a client must read some of an answer
    #[arg(long, env = "GRAPNEL_HTTP_UNREAD_SECONDS", default_value = "30", hide = true)]
    http_unread_seconds: u64,
    /// Seconds after which a connection without requests is closed
    #[arg(long, env = "GRAPNEL_HTTP_IDLE_SECONDS", default_value = "75", hide = true)]
    http_idle_seconds: u64,
}

impl PortArgs {
    pub(crate) fn trusted_proxies(&self) -> Arc<[IpNet]> {
        self.trusted_proxies.0.as_slice().into()
    }

    /// Returns the bounds of a port behind the trusted proxies, whose own connections are bounded only all together.
    pub(crate) fn bounds(&self) -> PortBounds {
        let deadlines = ConnectionDeadlines {
            head: Duration::from_secs(self.http_head_seconds),
            unread_answer: Duration::from_secs(self.http_unread_seconds),
            idle: Duration::from_secs(self.http_idle_seconds),
            ..ConnectionDeadlines::default()
        };
        PortBounds { slots: ConnectionSlots::new(self.http_connections, self.trusted_proxies()), deadlines }
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

    pub(crate) fn max_queue_length(&self) -> usize {
        usize::try_from(self.max_queue_length).unwrap_or(usize::MAX)
    }

    pub(crate) fn requeue_after(&self) -> Duration {
        Duration::from_secs(self.requeue_after_seconds)
    }
}

/// Servers as comma-separated `host:port`; an empty text is an empty list.
#[derive(Debug, Clone, Default)]
struct Servers(Vec<(String, u16)>);

impl FromStr for Servers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let server = |part: &str| {
            let (host, port) = part.rsplit_once(':')?;
            let is_host = !host.is_empty() && !host.contains(['/', '@']);
            Some((host.to_owned(), port.parse().ok().filter(|_| is_host)?))
        };
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts
            .map(|part| server(part).ok_or_else(|| format!("{part} is not host:port")))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[derive(Debug, Args)]
pub(crate) struct DeliveryArgs {
    /// Private networks in which destinations are allowed (comma-separated CIDRs). By default none in production,
    /// loopback in development
    #[arg(long, env = "GRAPNEL_ALLOWED_DESTINATION_CIDRS", default_value = "")]
    allowed_destination_cidrs: Networks,
    /// HTTP proxy for everything that destinations and providers name, for example `http://user:password@proxy:3128`
    #[arg(long, env = "GRAPNEL_EGRESS_PROXY", hide_env_values = true)]
    egress_proxy: Option<SecretString>,
    #[arg(long, env = "GRAPNEL_EGRESS_PROXY_FILE", hide = true)]
    egress_proxy_file: Option<PathBuf>,
    /// What is reached without the proxy: names with their subdomains, addresses and CIDRs (comma-separated)
    #[arg(long, env = "GRAPNEL_NO_PROXY", default_value = "")]
    no_proxy: String,
    /// Hand names to the proxy as they are. It decides then which addresses are reached; otherwise names are resolved and
    /// their addresses judged here
    #[arg(long, env = "GRAPNEL_EGRESS_PROXY_RESOLVES", default_value = "false", action = clap::ArgAction::Set)]
    egress_proxy_resolves: bool,
    /// Servers that no destination may be, beside the datastores that the process itself uses: `host:port` (comma-separated)
    #[arg(long, env = "GRAPNEL_DENIED_DESTINATIONS", default_value = "")]
    denied_destinations: Servers,
    /// PEM file with certificate authorities that are trusted in addition to the system's
    #[arg(long, env = "GRAPNEL_EGRESS_CA_FILE")]
    egress_ca_file: Option<PathBuf>,
}

impl DeliveryArgs {
    /// Returns the way out to destinations and providers. It does not lead to the process's own datastores.
    ///
    /// # Errors
    /// When the proxy or the file of authorities cannot be used, or nothing is trusted.
    pub(crate) fn egress(
        &self,
        environment: Environment,
        datastores: impl IntoIterator<Item = (String, u16)>,
    ) -> Result<Egress, ConfigError> {
        let policy = EgressPolicy::new(self.allowed_destination_cidrs(environment));
        let denied = datastores.into_iter().chain(self.denied_destinations.0.iter().cloned());
        let egress = Egress::new(policy, self.egress_proxy()?, self.trusted_roots()?);
        Ok(egress.except(Datastores::new(denied)))
    }

    fn allowed_destination_cidrs(&self, environment: Environment) -> Vec<IpNet> {
        let given = &self.allowed_destination_cidrs.0;
        if given.is_empty() && environment == Environment::Development {
            return vec![
                IpNet::new_assert(Ipv4Addr::LOCALHOST.into(), 8).trunc(),
                IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128),
            ];
        }
        given.clone()
    }

    fn egress_proxy(&self) -> Result<Option<EgressProxy>, ConfigError> {
        let name = "GRAPNEL_EGRESS_PROXY";
        let given = secret(name, self.egress_proxy.as_ref(), self.egress_proxy_file.as_deref())?;
        let Some(url) = given else { return Ok(None) };
        let proxy = EgressProxy::new(&url, &self.no_proxy, self.egress_proxy_resolves);
        proxy.map(Some).map_err(|error| ConfigError::Invalid { name, reason: error.to_string() })
    }

    fn trusted_roots(&self) -> Result<RootCertStore, ConfigError> {
        let name = "GRAPNEL_EGRESS_CA_FILE";
        let invalid = |reason| ConfigError::Invalid { name, reason };
        let pem = match &self.egress_ca_file {
            None => None,
            Some(path) => {
                let unreadable = |error| invalid(format!("cannot read {}: {error}", path.display()));
                Some(std::fs::read(path).map_err(unreadable)?)
            }
        };
        trusted_roots(pem.as_deref()).map_err(|error| invalid(error.to_string()))
    }
}
