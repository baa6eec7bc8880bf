//! The target of deliveries, prepared once, and the headers of each attempt.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
    InvalidHeaderValue, USER_AGENT,
};
use http::uri::InvalidUri;
use jiff::Timestamp;
use url::{Position, Url};
use uuid::Uuid;

use crate::ids::EventId;

use crate::delivery::hops::{CDN_LOOP, next_hop};
use crate::delivery::oauth2::TokenRequest;
use crate::delivery::signing::{SigningKey, sign};
use crate::delivery::tls_material::TlsMaterial;
use crate::header_values::header_value;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("grapnel/", env!("CARGO_PKG_VERSION")));
const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");
const ZERO: HeaderValue = HeaderValue::from_static("0");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
static WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
static WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
static WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
static EVENT_ID: HeaderName = HeaderName::from_static("x-event-id");
static CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
static PROVIDER: HeaderName = HeaderName::from_static("x-integration-provider");
static EVENT_TYPE: HeaderName = HeaderName::from_static("x-event-type");
static EXTERNAL_EVENT_ID: HeaderName = HeaderName::from_static("x-external-event-id");
static DELIVERY_ATTEMPT: HeaderName = HeaderName::from_static("x-delivery-attempt");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A destination's part of every request to it; made once, when its Integration is compiled.
#[derive(Clone, PartialEq)]
pub struct DeliveryTarget {
    pub url: Url,
    /// Scheme, host and port: requests with the same origin may share connections.
    pub origin: Arc<str>,
    /// The path and the query of the URL, as the first line of a request has them.
    pub path: Uri,
    host: HeaderValue,
    provider: HeaderValue,
    pub timeout: Duration,
    signing_keys: Vec<SigningKey>,
    /// The headers of the destination and of its basic authentication. Values that come from a Secret are marked as sensitive.
    pub own_headers: Vec<(HeaderName, HeaderValue)>,
    /// The request for the token that authenticates deliveries, if one does.
    pub token_request: Option<Arc<TokenRequest>>,
    /// The addresses to dial in place of those of the URL's name, for a Service of the cluster. While there are none, nothing
    /// is sent and no attempt is counted. `None`: the name is resolved.
    pub endpoints: Option<Arc<[SocketAddr]>>,
    /// What its connections trust and present; `None`: the platform's authorities, and no certificate.
    pub tls: Option<Arc<TlsMaterial>>,
}

/// An invalid destination, to which nothing can be delivered.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The URL cannot be parsed.
    #[error("the destination's URL is invalid")]
    Url(#[source] url::ParseError),
    /// The URL has a host or path that HTTP cannot carry.
    #[error("the destination's URL cannot be requested")]
    Uri(#[source] InvalidUri),
    /// The URL has a host that no header can carry.
    #[error("the destination's URL has an invalid host")]
    Host,
    /// The URL has another scheme.
    #[error("the destination's URL is neither http nor https")]
    Scheme,
    /// The URL contains credentials, which would be stored and shown with it.
    #[error("the destination's URL has a user name or password")]
    Credentials,
    /// The provider's name is not a valid header value.
    #[error("the provider's name cannot be sent in a header")]
    Provider(#[source] InvalidHeaderValue),
}

/// One attempt to deliver an event to a target.
#[derive(Clone, Copy)]
pub struct DeliveryRequest<'a> {
    /// The target of the request.
    pub target: &'a DeliveryTarget,
    /// Sent as `webhook-id` and `x-event-id`; the same on every attempt.
    pub event_id: EventId,
    /// Sent as `x-event-type`.
    pub event_type: &'a str,
    /// Sent as `x-external-event-id`, if the provider gave the event an id.
    pub external_event_id: Option<&'a str>,
    /// The number of the attempt, from 1. Sent as `x-delivery-attempt`.
    pub attempt: u32,
    /// Sent as `x-correlation-id`.
    pub correlation_id: &'a str,
    /// Sent as `traceparent`.
    pub traceparent: &'a str,
    /// How often Grapnel had delivered the event when it was received. Sent as `cdn-loop`, one higher.
    pub hops: u16,
    /// The body, signed and sent unchanged.
    pub body: &'a Bytes,
    /// Sent as `content-type`; `None`: JSON.
    pub content_type: Option<&'a str>,
    /// Further headers: those of the webhook that are sent on, and those of the form of the body.
    pub further_headers: &'a [(HeaderName, HeaderValue)],
    /// Sent as `authorization`: the token, where one authenticates deliveries.
    pub authorization: Option<&'a HeaderValue>,
    /// The current time. Sent as `webhook-timestamp` in seconds, so each attempt has its own signature.
    pub attempted_at: Timestamp,
}

impl DeliveryTarget {
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
        Uri::try_from(url.as_str()).map_err(TargetError::Uri)?;
        let path =
            Uri::try_from(&url[Position::BeforePath..Position::AfterQuery]).map_err(TargetError::Uri)?;
        // Without the port if it is the scheme's own.
        let host = HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort])
            .map_err(|_| TargetError::Host)?;
        let origin = url[..Position::AfterPort].into();
        let provider = HeaderValue::from_str(provider).map_err(TargetError::Provider)?;
        Ok(Self {
            url,
            origin,
            path,
            host,
            provider,
            timeout,
            signing_keys,
            own_headers: Vec::new(),
            token_request: None,
            tls: None,
            endpoints: None,
        })
    }

    /// Makes these addresses the only ones that are dialed.
    pub fn with_endpoints(self, endpoints: Arc<[SocketAddr]>) -> Self {
        Self { endpoints: Some(endpoints), ..self }
    }
}

/// Omits the path and the query of the URL, which may contain a token.
impl fmt::Debug for DeliveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryTarget").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

/// A value that is not a valid header value.
#[derive(Debug, thiserror::Error)]
#[error("the {header} cannot be sent in a header")]
pub struct HeaderError {
    header: &'static str,
}

/// Returns the headers of a request.
pub fn headers_of(request: &DeliveryRequest<'_>) -> Result<HeaderMap, HeaderError> {
    let target = request.target;
    let mut id = Uuid::encode_buffer();
    let id = &*request.event_id.uuid().hyphenated().encode_lower(&mut id);
    let id_value = HeaderValue::from_str(id).map_err(|_| HeaderError { header: "event id" })?;
    let timestamp = request.attempted_at.as_second();
    // Bytes beyond ASCII are allowed: the correlation id comes from a header of the provider's request.
    let correlation_id = HeaderValue::from_bytes(request.correlation_id.as_bytes())
        .map_err(|_| HeaderError { header: "correlation id" })?;
    let traceparent =
        HeaderValue::from_str(request.traceparent).map_err(|_| HeaderError { header: "traceparent" })?;

    let mut headers = HeaderMap::with_capacity(16 + request.further_headers.len() + target.own_headers.len());
    for (name, value) in request.further_headers {
        headers.append(name, value.clone());
    }
    // Those of the destination replace those of the webhook, and ours replace both.
    for (name, value) in &target.own_headers {
        headers.insert(name, value.clone());
    }
    if let Some(authorization) = request.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    headers.insert(HOST, target.host.clone());
    headers.entry(ACCEPT).or_insert(ANYTHING);
    headers.insert(&WEBHOOK_ID, id_value.clone());
    headers.insert(&WEBHOOK_TIMESTAMP, HeaderValue::from(timestamp));
    if !target.signing_keys.is_empty() {
        let signature = HeaderValue::try_from(sign(&target.signing_keys, id, timestamp, request.body))
            .map_err(|_| HeaderError { header: "signature" })?;
        headers.insert(&WEBHOOK_SIGNATURE, signature);
    }
    headers.insert(&EVENT_ID, id_value);
    headers.insert(&EVENT_TYPE, header_value(request.event_type));
    if let Some(id) = request.external_event_id {
        headers.insert(&EXTERNAL_EVENT_ID, header_value(id));
    }
    headers.insert(&DELIVERY_ATTEMPT, HeaderValue::from(request.attempt));
    headers.insert(&CORRELATION_ID, correlation_id);
    headers.insert(&PROVIDER, target.provider.clone());
    headers.insert(&TRACEPARENT, traceparent);
    headers.insert(&CDN_LOOP, next_hop(request.hops));
    headers.insert(USER_AGENT, AGENT);
    // A provider's own content-type may contain bytes beyond ASCII.
    let content_type = request.content_type.map(|text| HeaderValue::from_bytes(text.as_bytes()));
    headers.insert(CONTENT_TYPE, content_type.and_then(Result::ok).unwrap_or(JSON));
    // The client adds any other length. It takes an empty body for none, and some servers answer 411 to that.
    if request.body.is_empty() {
        headers.insert(CONTENT_LENGTH, ZERO);
    }
    Ok(headers)
}
