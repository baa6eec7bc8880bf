//! What is sent: the target, prepared once, and the headers of each attempt.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue, USER_AGENT};
use http::uri::InvalidUri;
use jiff::Timestamp;
use url::{Host, Url};
use uuid::Uuid;

use crate::ids::EventId;

use crate::delivery::signing::{SigningKey, sign};

const AGENT: HeaderValue = HeaderValue::from_static(concat!("grapnel/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
static WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
static WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
static WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
static EVENT_ID: HeaderName = HeaderName::from_static("x-event-id");
static CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
static PROVIDER: HeaderName = HeaderName::from_static("x-integration-provider");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What is the same for every delivery to a destination; made once when its Integration is read.
#[derive(Clone)]
pub struct Target {
    pub url: Url,
    provider: HeaderValue,
    pub timeout: Duration,
    signing_keys: Vec<SigningKey>,
}

/// Why nothing can ever be delivered to a destination as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The URL cannot be parsed.
    #[error("the destination's URL is malformed")]
    Url(#[source] url::ParseError),
    /// The URL has a host or path that HTTP cannot carry.
    #[error("the destination's URL cannot be requested")]
    Uri(#[source] InvalidUri),
    /// The URL is of another scheme.
    #[error("the destination's URL is neither http nor https")]
    Scheme,
    /// The URL carries credentials, which would be stored and shown with it.
    #[error("the destination's URL has a user name or password")]
    Credentials,
    /// The provider's name is no header value.
    #[error("the provider's name cannot be sent in a header")]
    Provider(#[source] InvalidHeaderValue),
}

/// One attempt: an event, on its way to a target.
#[derive(Clone, Copy)]
pub struct DeliveryRequest<'a> {
    /// Where it goes.
    pub target: &'a Target,
    /// Sent as `webhook-id` and `x-event-id`; the same on every attempt.
    pub event_id: EventId,
    /// Sent as `x-correlation-id`.
    pub correlation_id: &'a str,
    /// Sent as `traceparent`.
    pub traceparent: &'a str,
    /// What is delivered, signed and sent as it is.
    pub body: &'a Bytes,
    /// Sent as `content-type`; without one, JSON.
    pub content_type: Option<&'a str>,
    /// Now. Sent as `webhook-timestamp` in seconds, so each attempt is signed anew.
    pub attempted_at: Timestamp,
}

impl Target {
    /// Prepares a destination. With no `signing_keys` nothing is signed; with two, as during a rotation, both sign.
    ///
    /// # Errors
    /// When the URL is not http or https without credentials, or `provider` cannot be sent in a header.
    pub fn new(
        url: &str,
        timeout: Duration,
        provider: &str,
        signing_keys: Vec<SigningKey>,
    ) -> Result<Self, TargetError> {
        let url = Url::parse(url).map_err(TargetError::Url)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(TargetError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::Credentials);
        }
        // What the client would refuse only when it sends.
        Uri::try_from(url.as_str()).map_err(TargetError::Uri)?;
        let provider = HeaderValue::from_str(provider).map_err(TargetError::Provider)?;
        Ok(Self { url, provider, timeout, signing_keys })
    }

    /// The address when the URL has one in place of a name. The client dials such a host without asking the resolver.
    /// `Url` has already read every form that means an address, such as `0x7f.1` and `2130706433`.
    pub fn literal_address(&self) -> Option<IpAddr> {
        match self.url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) | None => None,
        }
    }
}

/// Without the path and the query of the URL, which may hold a token.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

/// A value of ours cannot be sent in a header.
#[derive(Debug, thiserror::Error)]
#[error("the {header} cannot be sent in a header")]
pub struct Unsendable {
    header: &'static str,
}

pub fn headers_of(request: &DeliveryRequest<'_>) -> Result<HeaderMap, Unsendable> {
    let target = request.target;
    let mut id = Uuid::encode_buffer();
    let id = &*request.event_id.uuid().hyphenated().encode_lower(&mut id);
    let id_value = HeaderValue::from_str(id).map_err(|_| Unsendable { header: "event id" })?;
    let timestamp = request.attempted_at.as_second();
    // Bytes beyond ASCII are allowed: the correlation id came in a header of the provider's request.
    let correlation_id = HeaderValue::from_bytes(request.correlation_id.as_bytes())
        .map_err(|_| Unsendable { header: "correlation id" })?;
    let traceparent =
        HeaderValue::from_str(request.traceparent).map_err(|_| Unsendable { header: "traceparent" })?;

    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(&WEBHOOK_ID, id_value.clone());
    headers.insert(&WEBHOOK_TIMESTAMP, HeaderValue::from(timestamp));
    if !target.signing_keys.is_empty() {
        let signature = HeaderValue::try_from(sign(&target.signing_keys, id, timestamp, request.body))
            .map_err(|_| Unsendable { header: "signature" })?;
        headers.insert(&WEBHOOK_SIGNATURE, signature);
    }
    headers.insert(&EVENT_ID, id_value);
    headers.insert(&CORRELATION_ID, correlation_id);
    headers.insert(&PROVIDER, target.provider.clone());
    headers.insert(&TRACEPARENT, traceparent);
    headers.insert(USER_AGENT, AGENT);
    // A provider's own may hold bytes beyond ASCII.
    let content_type = request.content_type.map(|text| HeaderValue::from_bytes(text.as_bytes()));
    headers.insert(CONTENT_TYPE, content_type.and_then(Result::ok).unwrap_or(JSON));
    Ok(headers)
}
