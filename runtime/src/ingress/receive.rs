//! The handler: the steps in the order in which a request is refused (404, 429, 413, 401, 415, 400, 503), then the
//! commit, then the answer.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Extension, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::body::{BodyBudget, BodyError};
use super::commit::{Committer, NotCommitted};
use super::normalize::{Malformed, normalize};
use super::source;
use crate::integrations::{Integration, Table};
use crate::limits::{Limits, Verdict};
use crate::management::KEY_HEADER;
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
    let answer = ingress.receive(peer.ip(), &correlation_id.0, request).await;
    let (outcome, response) = match answer {
        Ok((id, Stored::New)) => ("accepted", accepted(id, false, &correlation_id.0)),
        Ok((_, Stored::DuplicateOf(first))) => ("duplicate", accepted(first, true, &correlation_id.0)),
        Ok((_, Stored::TryAgain)) => {
            ("unavailable", ApiError::unavailable(RETRY_AFTER_SECONDS).into_response())
        }
        Err(error) => (outcome_label(error.code()), error.into_response()),
    };
    metrics::counter!("grapnel_webhooks_total", "outcome" => outcome).increment(1);
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
    ) -> Result<(Uuid, Stored), ApiError> {
        let (parts, body) = request.into_parts();
        let headers = &parts.headers;
        let integration = self.route(parts.uri.path())?;
        let source_ip = source::address(peer, headers, &self.trusted_proxies);
        self.limit(&integration, source_ip).await?;
        let received =
            self.bodies.read(headers, body, integration.max_body_bytes).await.map_err(body_refused)?;
        integration
            .verifier
            .verify(headers, &received.bytes)
            .map_err(|refused| ApiError::new(ErrorCode::Unauthorized, refused.to_string()))?;
        check_media_type(headers)?;
        let event = new_event(&integration, source_ip, correlation_id, headers, received.bytes)?;
        let id = event.id;
        let stored = self.committer.commit(event, received.share).await.map_err(not_committed)?;
        Ok((id, stored))
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

/// A missing type counts as JSON.
fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let is_json = essence.eq_ignore_ascii_case(b"application/json")
        || essence.len().checked_sub(5).is_some_and(|start| essence[start..].eq_ignore_ascii_case(b"+json"));
    if is_json || essence.is_empty() {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::UnsupportedMediaType,
        "The content-type must be application/json or end in +json",
    ))
}

fn new_event(
    integration: &Integration,
    source_ip: IpAddr,
    correlation_id: &str,
    headers: &HeaderMap,
    raw_body: Bytes,
) -> Result<NewEvent, ApiError> {
    let mapping = &integration.preset.mapping;
    let fields = normalize(mapping, &raw_body)
        .map_err(|Malformed { field, reason }| ApiError::invalid(&field, reason))?;
    let idempotency_key = format!("{}:{}", integration.row.id, fields.external_event_id);
    Ok(NewEvent {
        id: Uuid::now_v7(),
        integration_id: integration.row.id,
        provider: Arc::clone(&integration.preset.provider),
        external_event_id: Some(fields.external_event_id),
        event_type: fields.event_type,
        subject: fields.subject,
        occurred_at: fields.occurred_at,
        received_at: Timestamp::now(),
        correlation_id: correlation_id.to_owned(),
        traceparent: headers.get("traceparent").and_then(trace_context),
        source_ip,
        headers: stored_headers(headers, integration.verifier.secret_header()),
        raw_body,
        payload_key: Arc::clone(&integration.payload_key),
        payload: fields.payload,
        key_hash: key_hash(&idempotency_key),
        idempotency_key,
        destinations: Arc::clone(&integration.destination_names),
    })
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
    fn json_and_its_relatives_are_accepted_and_others_are_not() {
        let check = |value: &'static [u8], accepted: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_bytes(value).expect("a value"));
            assert_eq!(check_media_type(&headers).is_ok(), accepted, "{value:?}");
        };
        assert!(check_media_type(&HeaderMap::new()).is_ok());
        check(b"", true);
        check(b"application/json", true);
        check(b"Application/JSON; charset=utf-8", true);
        check(b"application/cloudevents+json", true);
        check(b"application/vnd.api+JSON;v=1", true);
        check(b"text/plain", false);
        check(b"application/xml", false);
        check(b"application/jsonp", false);
        check(b"\xff", false);
        check(b"json", false);
    }

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
