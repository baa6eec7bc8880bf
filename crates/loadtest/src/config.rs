//! The configuration of a run. Everything in it is valid.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use grapnel_core::preset;
use http::{HeaderValue, Uri};
use secrecy::SecretString;
use url::{Host, Url};

use crate::signing_key::VerificationKey;

/// The provider whose webhooks are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// HMAC-SHA256 of the body, in hex.
    Acme,
    /// Token in a header.
    Globex,
    /// A preset that is signed with an HMAC. Its deliveries do not show which event they belong to.
    Preset(&'static str),
}

impl Provider {
    /// Returns the name of its preset.
    pub fn name(self) -> &'static str {
        match self {
            Provider::Acme => "acme",
            Provider::Globex => "globex",
            Provider::Preset(name) => name,
        }
    }
}

impl FromStr for Provider {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Provider> {
        match text {
            "acme" => Ok(Provider::Acme),
            "globex" => Ok(Provider::Globex),
            _ => {
                let known = preset::providers().into_iter().find(|name| *name == text);
                known.map(Provider::Preset).context("unknown preset")
            }
        }
    }
}

impl serde::Serialize for Provider {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The amount of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// Exactly this number of events.
    Events(u64),
    /// All that the pace allows in this time, in whole seconds.
    Time(Duration),
}

/// The pace of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Each client sends its next event when the previous one is answered.
    Closed {
        /// Clients, each with one connection.
        clients: u32,
    },
    /// A fixed schedule, independent of the target.
    Open {
        /// Events per second.
        rate_per_second: u32,
        /// Maximum number of requests that wait for an answer at the same time.
        max_in_flight: u32,
    },
}

/// The receiver of deliveries.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// Address to listen on; port 0 takes any free port.
    pub addr: SocketAddr,
    /// Percentage of events whose first delivery is answered 500, 0 to 100.
    pub fail_percent: u8,
    /// Delay before each answer.
    pub delay: Duration,
    /// Key that verifies the signature of each delivery.
    pub signing_key: Option<VerificationKey>,
}

impl Default for SinkConfig {
    fn default() -> SinkConfig {
        SinkConfig {
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            fail_percent: 0,
            delay: Duration::ZERO,
            signing_key: None,
        }
    }
}

/// The configuration of one run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The webhook route.
    pub target: Target,
    /// Provider of the webhooks.
    pub provider: Provider,
    /// Secret or token of the provider.
    pub secret: SecretString,
    /// How many events are sent.
    pub amount: Amount,
    /// How fast they are sent.
    pub pace: Pace,
    /// Events in each request, as a list; 1: the request is the event. The route must split such a list (`/*`).
    pub elements: u32,
    /// Size of an event, within a few bytes.
    pub body_bytes: usize,
    /// Receiver of the deliveries. `None`: they go elsewhere and are not counted.
    pub sink: Option<SinkConfig>,
    /// How long to wait for missing deliveries after the last answer.
    pub settle: Duration,
    /// How long to watch for further deliveries after everything has arrived.
    pub linger: Duration,
    /// Deadline of one request.
    pub request_timeout: Duration,
    /// Give up when connecting has failed for so long or, with `retry_unknown`, when every request has.
    pub unreachable_limit: Duration,
    /// Send an event again when it is not known to be accepted, as providers do.
    pub retry_unknown: bool,
    /// Part of each event's id.
    pub run_id: RunId,
}

impl Config {
    /// Returns a closed loop of 64 clients with bodies of 1 KiB, a sink on any loopback port and a random run id.
    #[must_use]
    pub fn new(target: Target, provider: Provider, secret: SecretString, amount: Amount) -> Config {
        Config {
            target,
            provider,
            secret,
            amount,
            pace: Pace::Closed { clients: 64 },
            elements: 1,
            body_bytes: 1024,
            sink: Some(SinkConfig::default()),
            settle: Duration::from_secs(60),
            linger: Duration::ZERO,
            request_timeout: Duration::from_secs(10),
            unreachable_limit: Duration::from_secs(60),
            retry_unknown: false,
            run_id: RunId::random(),
        }
    }
}

/// The webhook route that events are sent to.
#[derive(Debug, Clone)]
pub struct Target {
    url: Url,
    host: String,
    port: u16,
    host_header: HeaderValue,
    path: Uri,
}

impl Target {
    /// Parses the URL of a webhook route.
    ///
    /// # Errors
    /// When it is not an `http` URL with a host and without user information.
    pub fn parse(text: &str) -> anyhow::Result<Target> {
        let url = Url::parse(text).context("read the target's URL")?;
        ensure!(url.scheme() == "http", "the target's URL must begin with http://");
        ensure!(
            url.username().is_empty() && url.password().is_none(),
            "the target's URL must not contain credentials"
        );
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => bail!("the target's URL has no host"),
        };
        let port = url.port_or_known_default().unwrap_or(80);
        let authority = url.authority();
        let host_header = HeaderValue::from_str(authority).context("use the target's host as a header")?;
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = format!("{}{query}", url.path()).parse().context("use the target's path in a request")?;
        Ok(Target { url, host, port, host_header, path })
    }

    /// Returns the host and port to connect to.
    pub(crate) fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    pub(crate) fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }

    pub(crate) fn path(&self) -> &Uri {
        &self.path
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(formatter)
    }
}

/// The id of a run. It is part of every event id, so that runs do not mix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunId(String);

impl RunId {
    const MAX_LENGTH: usize = 40;

    /// Returns an id that no other run has.
    #[must_use]
    pub fn random() -> RunId {
        RunId(format!("{:012x}", rand::random::<u64>() & 0xffff_ffff_ffff))
    }

    /// Parses a chosen id.
    ///
    /// # Errors
    /// When it is empty, longer than 40 characters, or contains anything but ASCII letters, digits, `-`, `_` and `.`.
    pub fn parse(text: &str) -> anyhow::Result<RunId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        ensure!(
            (1..=Self::MAX_LENGTH).contains(&text.len()) && text.bytes().all(allowed),
            "a run id has 1 to {} ASCII letters, digits, '-', '_' or '.'",
            Self::MAX_LENGTH
        );
        Ok(RunId(text.to_owned()))
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_an_address_and_a_request_path() {
        let target = Target::parse("http://[::1]:8080/api/v1/webhooks/acme?a=b").expect("a good URL");
        assert_eq!(target.address(), ("::1", 8080));
        assert_eq!(target.host_header(), "[::1]:8080");
        assert_eq!(target.path(), "/api/v1/webhooks/acme?a=b");
        let target = Target::parse("http://api.shop.svc/x").expect("a good URL");
        assert_eq!(
            (target.address(), target.host_header().as_bytes()),
            (("api.shop.svc", 80), &b"api.shop.svc"[..])
        );
    }

    #[test]
    fn invalid_targets_and_targets_with_credentials_are_refused() {
        for bad in ["https://a/", "ftp://a/", "http://user:secret@a/", "127.0.0.1:80", ""] {
            let error = Target::parse(bad).expect_err(bad);
            assert!(!format!("{error:#}").contains("secret"));
        }
    }

    #[test]
    fn run_ids_need_no_escape_in_json() {
        assert!(RunId::parse("upgrade-1.2_b").is_ok());
        for bad in ["", "a\"b", "a b", "é", &"x".repeat(41)] {
            assert!(RunId::parse(bad).is_err(), "{bad}");
        }
        assert_ne!(RunId::random(), RunId::random());
    }
}
