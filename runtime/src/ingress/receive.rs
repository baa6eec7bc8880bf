//! The handler: the steps in the order in which a request is refused (404, 429, 413, 401, 415, 400, 503), then the
//! commit, then the answer. A provider's handshake is answered on the way, before or after it is verified, and is no event.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Extension, OriginalUri, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use grapnel_crds::Proof as Needed;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::body::{BodyBudget, BodyError, Received};
use super::capture::Captures;
use super::commit::{Committer, NotCommitted};
use super::handshake::{Answer, Handshake};
use super::normalize::{self, Malformed};
use super::outside::Outside;
use super::place::Incoming;
use super::source;
use super::verify::Proof;
use crate::clock::Clock;
use crate::event::BodyForm;
use crate::integrations::{Integration, Table};
use crate::limits::{Limits, Verdict};
use crate::management::{self, KEY_HEADER};
use crate::respond::{ApiError, ErrorCode, success};
use crate::server::CorrelationId;
use crate::store::ingest::{NewEvent, Stored};

/// What a provider is asked to wait when we cannot accept.
const RETRY_AFTER_SECONDS: u64 = 5;

/// Headers that carry a secret in the clear, whatever the provider.
static SECRET_HEADERS: [HeaderName; 4] =
    [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION, HeaderName::from_static(KEY_HEADER)];

/// What the handler needs.
#[derive(Debug, Clone)]
pub struct Ingress {
    pub integrations: Table,
    pub limits: Limits,
    pub bodies: BodyBudget,
    pub committer: Committer,
    pub trusted_proxies: Arc<[IpNet]>,
    /// The platform's limit, for integrations that have none of their own.
    pub rate_limit_per_minute: u32,
    /// What stands before the path in the URL that providers call.
    pub public_url: Option<Arc<str>>,
    pub captures: Captures,
    pub outside: Outside,
    /// What the age of a timestamp is measured by.
    pub clock: Clock,
}

/// `data` of a 202 and of the 200 of a duplicate.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Accepted<'a> {
    event_id: Uuid,
    status: &'static str,
    duplicate: bool,
    correlation_id: &'a str,
}

/// Receives one webhook.
pub async fn receive(
    State(ingress): State<Ingress>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(correlation_id): Extension<CorrelationId>,
    request: Request,
) -> Response {
    if request.method() != Method::POST && !ingress.has_handshake(&request) {
        return not_allowed().await;
    }
    let (outcome, response) = match ingress.receive(peer.ip(), &correlation_id.0, request).await {
        Ok(outcome) => outcome,
        Err(error) => (outcome_label(error.code()), error.into_response()),
    };
    metrics::counter!("grapnel_webhooks_total", "outcome" => outcome).increment(1);
    response
}

async fn not_allowed() -> Response {
    let mut response = management::method_not_allowed().await;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

/// The answer to a stored event: Grapnel's own, unless the provider insists on another.
fn acknowledge(integration: &Integration, id: Uuid, duplicate: bool, correlation_id: &str) -> Response {
    let wanted = &integration.compiled.acknowledgement;
    let mut response = match &wanted.body {
        Some((content_type, body)) => {
            let mut response = Response::new(body.to_string().into());
            *response.status_mut() = if duplicate { StatusCode::OK } else { StatusCode::ACCEPTED };
            response.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
            response
        }
        None if wanted.status == Some(StatusCode::NO_CONTENT) => Response::new(axum::body::Body::empty()),
        None => accepted(id, duplicate, correlation_id),
    };
    if let Some(status) = wanted.status {
        *response.status_mut() = status;
    }
    response
}

fn accepted(event_id: Uuid, duplicate: bool, correlation_id: &str) -> Response {
    let (code, status) =
        if duplicate { (StatusCode::OK, "duplicate") } else { (StatusCode::ACCEPTED, "queued") };
    success(code, &Accepted { event_id, status, duplicate, correlation_id })
}

fn outcome_label(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::ValidationError => "malformed",
        ErrorCode::Unauthorized => "unauthorized",
        ErrorCode::NotFound => "unknown_route",
        ErrorCode::PayloadTooLarge => "too_large",
        ErrorCode::UnsupportedMediaType => "unsupported_media_type",
        ErrorCode::RateLimited => "rate_limited",
        ErrorCode::DependencyUnavailable => "unavailable",
        ErrorCode::MethodNotAllowed | ErrorCode::Conflict | ErrorCode::InternalServerError => "error",
    }
}

impl Ingress {
    async fn receive(
        &self,
        peer: IpAddr,
        correlation_id: &str,
        request: Request,
    ) -> Result<(&'static str, Response), ApiError> {
        let (parts, body) = request.into_parts();
        let headers = &parts.headers;
        let integration = self.route(parts.uri.path())?;
        let source_ip = source::address(peer, headers, &self.trusted_proxies);
        self.limit(&integration, source_ip).await?;
        let received =
            self.bodies.read(headers, body, integration.max_body_bytes).await.map_err(body_refused)?;
        let incoming = Incoming {
            method: &parts.method,
            // That of a nested router has lost its beginning, and providers sign the whole.
            uri: parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0),
            headers,
            body: &received.bytes,
            public_url: self.public_url.as_deref(),
        };
        if let Some(answer) = self.shake_hands(&integration, &incoming, Needed::None).await? {
            return Ok(("handshake", answer));
        }
        let proof = self.verify(&integration, &incoming).await?;
        if let Some(answer) = self.shake_hands(&integration, &incoming, Needed::Required).await? {
            return Ok(("handshake", answer));
        }
        // A handshake for another method did not match.
        if parts.method != Method::POST {
            return Ok(("error", not_allowed().await));
        }
        let form = integration.compiled.mapper.body_form(headers).ok_or_else(unsupported_media_type)?;
        let event = new_event(&integration, source_ip, correlation_id, &incoming, form, proof)?;
        self.store(&integration, correlation_id, event, received).await
    }

    async fn store(
        &self,
        integration: &Integration,
        correlation_id: &str,
        event: Unstored,
        received: Received,
    ) -> Result<(&'static str, Response), ApiError> {
        let event = event.with(received.bytes);
        let id = event.id;
        match self.committer.commit(event, received.share).await.map_err(not_committed)? {
            Stored::New => Ok(("accepted", acknowledge(integration, id, false, correlation_id))),
            Stored::DuplicateOf(first) => {
                Ok(("duplicate", acknowledge(integration, first, true, correlation_id)))
            }
            Stored::TryAgain => {
                Ok(("unavailable", ApiError::unavailable(RETRY_AFTER_SECONDS).into_response()))
            }
        }
    }

    /// Whether the route has a handshake for the request's method.
    fn has_handshake(&self, request: &Request) -> bool {
        let found = self.route(request.uri().path());
        found.is_ok_and(|integration| integration.compiled.handshakes.has_method(request.method()))
    }

    /// The proof, counted by the secret that gave it.
    async fn verify(&self, integration: &Integration, incoming: &Incoming<'_>) -> Result<Proof, ApiError> {
        let verifier = &integration.compiled.verifier;
        let judged = match verifier.certificate_url(incoming) {
            Ok(None) => verifier.verify(incoming, self.clock.now()),
            Ok(Some(url)) => {
                let key = self.outside.certificate(&url).await;
                let key = key.map_err(|_| ApiError::unavailable(RETRY_AFTER_SECONDS))?;
                verifier.verify_by(incoming, &key)
            }
            Err(refused) => Err(refused),
        };
        match judged {
            Ok(proof) => {
                integration.uses.note(proof.secret);
                Ok(proof)
            }
            Err(refused) => {
                tracing::debug!(integration.id = %integration.row.id, %refused, "webhook not verified");
                Err(ApiError::new(ErrorCode::Unauthorized, refused.public_message()))
            }
        }
    }

    async fn shake_hands(
        &self,
        integration: &Integration,
        incoming: &Incoming<'_>,
        proof: Needed,
    ) -> Result<Option<Response>, ApiError> {
        match integration.compiled.handshakes.find(incoming, proof) {
            None => Ok(None),
            Some(Answer::Forbidden) => {
                let mut response = Response::new(axum::body::Body::empty());
                *response.status_mut() = StatusCode::FORBIDDEN;
                Ok(Some(response))
            }
            Some(Answer::Handshake(handshake)) => {
                self.answer(integration, handshake, incoming).await.map(Some)
            }
        }
    }

    async fn answer(
        &self,
        integration: &Integration,
        handshake: &Handshake,
        incoming: &Incoming<'_>,
    ) -> Result<Response, ApiError> {
        if let Some(secret) = handshake.captured(incoming) {
            let kept = self.captures.keep(integration, &handshake.name, &secret).await;
            kept.map_err(|_| ApiError::unavailable(RETRY_AFTER_SECONDS))?;
        }
        if let Some(url) = handshake.confirmation(incoming) {
            let url = url
                .map_err(|_| ApiError::invalid("body", "the URL to confirm is not one of the provider's"))?;
            let confirmed = self.outside.confirm(url).await;
            confirmed.map_err(|_| ApiError::unavailable(RETRY_AFTER_SECONDS))?;
        }
        tracing::info!(integration.id = %integration.row.id, handshake = %handshake.name, "handshake answered");
        handshake
            .respond(incoming, &integration.compiled.verifier)
            .ok_or_else(|| ApiError::invalid("body", "the challenge is too long"))
    }

    /// The integration that the path names. The last segment is compared as it came: a route is a DNS label, so
    /// nothing that would have to be decoded can be one.
    fn route(&self, path: &str) -> Result<Arc<Integration>, ApiError> {
        // A provider may take a 404 as final.
        if !self.integrations.is_read() {
            return Err(ApiError::unavailable(RETRY_AFTER_SECONDS));
        }
        let route = path.rsplit('/').next().unwrap_or_default();
        let integrations = self.integrations.load();
        let found = integrations.by_route(route).filter(|found| found.accepts());
        found
            .cloned()
            .ok_or_else(|| ApiError::new(ErrorCode::NotFound, "There is no active integration at this route"))
    }

    async fn limit(&self, integration: &Integration, source_ip: IpAddr) -> Result<(), ApiError> {
        let per_minute = integration.rate_limit_per_minute.unwrap_or(self.rate_limit_per_minute);
        match self.limits.check(integration.row.id, source_ip, per_minute, Timestamp::now()).await {
            Verdict::Allowed => Ok(()),
            Verdict::Limited { retry_after_seconds } => {
                let message = format!("More than {per_minute} requests in a minute");
                Err(ApiError::new(ErrorCode::RateLimited, message).retry_after(retry_after_seconds))
            }
        }
    }
}

fn body_refused(error: BodyError) -> ApiError {
    match error {
        BodyError::TooLarge => ApiError::new(ErrorCode::PayloadTooLarge, error.to_string()),
        BodyError::TooSlow | BodyError::Broken => ApiError::invalid("body", error.to_string()),
        BodyError::Overloaded => ApiError::unavailable(RETRY_AFTER_SECONDS),
    }
}

fn not_committed(refused: NotCommitted) -> ApiError {
    if refused == NotCommitted::Overloaded {
        metrics::counter!("grapnel_ingest_overloaded_total").increment(1);
    }
    ApiError::unavailable(RETRY_AFTER_SECONDS)
}

fn unsupported_media_type() -> ApiError {
    ApiError::new(
        ErrorCode::UnsupportedMediaType,
        "The content-type must be application/json or end in +json, or be another that the integration accepts",
    )
}

/// An event but for its body, which the request still holds.
struct Unstored(NewEvent);

impl Unstored {
    fn with(self, raw_body: Bytes) -> NewEvent {
        NewEvent { raw_body, ..self.0 }
    }
}

fn new_event(
    integration: &Integration,
    source_ip: IpAddr,
    correlation_id: &str,
    incoming: &Incoming<'_>,
    form: BodyForm,
    proof: Proof,
) -> Result<Unstored, ApiError> {
    let (compiled, headers) = (&integration.compiled, incoming.headers);
    let fields = compiled
        .mapper
        .read(incoming, form)
        .map_err(|Malformed { field, reason }| ApiError::invalid(&field, reason))?;
    let (id, event_id) = (integration.row.id, Uuid::now_v7());
    let idempotency_key = match &fields.external_event_id {
        Some(external_event_id) => format!("{id}:{external_event_id}"),
        None if compiled.mapper.is_each_request_an_event() => format!("{id}:request:{event_id}"),
        None => {
            let digest = Sha256::digest(normalize::content(form, incoming.body));
            format!("{id}:payload:{}", hex::encode(digest))
        }
    };
    let received_at = Timestamp::now();
    Ok(Unstored(NewEvent {
        id: event_id,
        integration_id: id,
        provider: Arc::clone(&integration.provider),
        external_event_id: fields.external_event_id,
        event_type: fields.event_type,
        subject: fields.subject,
        occurred_at: fields.occurred_at.unwrap_or(received_at),
        received_at,
        correlation_id: correlation_id.to_owned(),
        traceparent: headers.get("traceparent").and_then(trace_context),
        source_ip,
        headers: stored_headers(headers, compiled.verifier.secret_header()),
        raw_body: Bytes::new(),
        payload_key: Arc::clone(&compiled.mapper.payload_name),
        payload: fields.payload,
        body_form: form,
        delivered_as: compiled.mapper.delivered_as,
        secret_index: proof.secret,
        key_hash: key_hash(&idempotency_key),
        idempotency_key,
        destinations: Arc::clone(&integration.destination_names),
    }))
}

/// The first 16 bytes of the SHA-256: no two keys of one integration will ever share them, and the index is half as
/// large.
fn key_hash(idempotency_key: &str) -> Uuid {
    let digest: [u8; 32] = Sha256::digest(idempotency_key).into();
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    Uuid::from_bytes(first)
}

/// A W3C `traceparent` of version 00, as it came; anything else is not continued.
fn trace_context(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let is_hex = |part: &&str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let valid = lengths == [2, 32, 16, 2]
        && parts[0] == "00"
        && parts.iter().all(is_hex)
        && !is_zero(parts[1])
        && !is_zero(parts[2]);
    valid.then(|| text.to_owned())
}

/// The headers as JSON, in the order received. Values are bytes; each becomes the character of its number.
fn stored_headers(headers: &HeaderMap, secret_header: Option<&HeaderName>) -> String {
    let is_secret = |name: &HeaderName| SECRET_HEADERS.contains(name) || secret_header == Some(name);
    let pairs: Vec<(&str, Cow<'_, str>)> = headers
        .iter()
        .map(|(name, value)| {
            let text = match value.to_str() {
                _ if is_secret(name) => Cow::Borrowed("[redacted]"),
                Ok(text) => Cow::Borrowed(text),
                Err(_) => Cow::Owned(value.as_bytes().iter().map(|byte| char::from(*byte)).collect()),
            };
            (name.as_str(), text)
        })
        .collect();
    serde_json::to_string(&pairs).expect("texts serialize")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_headers_are_not_stored() {
        let mut headers = HeaderMap::new();
        headers.append("authorization", HeaderValue::from_static("Bearer abc"));
        headers.append("x-globex-token", HeaderValue::from_static("abc"));
        headers.append("x-twice", HeaderValue::from_static("1"));
        headers.append("x-twice", HeaderValue::from_bytes(b"\xe9").expect("a value"));
        let token = HeaderName::from_static("x-globex-token");
        let stored = stored_headers(&headers, Some(&token));
        assert!(!stored.contains("abc"), "{stored}");
        let pairs: Vec<(String, String)> = serde_json::from_str(&stored).expect("JSON");
        assert_eq!(pairs.len(), 4);
        assert!(pairs.contains(&("x-twice".into(), "é".into())));
    }

    #[test]
    fn only_a_valid_trace_context_is_continued() {
        let check = |text: &str| trace_context(&text.parse().expect("a value")).is_some();
        assert!(check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for wrong in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            assert!(!check(wrong), "{wrong}");
        }
    }
}
