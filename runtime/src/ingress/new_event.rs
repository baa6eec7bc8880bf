//! Builds the event to be stored from a verified request.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::outcome::Refusal;
use crate::http::KEY_HEADER;
use grapnel_core::delivery::hops::CDN_LOOP;
use grapnel_core::ids::EventId;
use grapnel_core::integration::CompiledIntegration;
use grapnel_core::request::IncomingRequest;
use grapnel_core::verification::{Verified, Verifier};
use grapnel_store::events::{FormerKey, NewEvent};

/// Headers that contain a secret in plain text, for any provider.
static SECRET_HEADERS: [HeaderName; 4] =
    [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION, HeaderName::from_static(KEY_HEADER)];

/// Builds the event. `raw_body` is the body of the request, shared and not copied.
///
/// # Errors
/// An unsupported content-type, an invalid body, or a missing or invalid field.
pub(super) fn new_event(
    integration: &CompiledIntegration,
    client_ip: IpAddr,
    correlation_id: &str,
    request: &IncomingRequest<'_>,
    raw_body: Bytes,
    verified: Verified,
) -> Result<NewEvent, Refusal> {
    let (compiled, headers) = (&integration.compiled, request.headers);
    let form = compiled.mapper.body_form(headers, request.body).ok_or(Refusal::UnsupportedMediaType)?;
    // A token in it was needed for verification only. What tells the webhook from others is the body as received.
    let blanked_body = compiled.verifier.blanked_body(request.body).map(Bytes::from);
    let blanked = blanked_body.as_ref().map(|body| IncomingRequest { body, ..*request });
    let shown = blanked.as_ref().unwrap_or(request);
    let fields = compiled.mapper.read(shown, request.body, form).map_err(Refusal::InvalidEvent)?;
    let (id, event_id) = (integration.row.id, EventId::generate());
    let idempotency_key = fields.identity.key(id, event_id, fields.external_event_id.as_deref());
    let former_key = fields.identity.former.map(|former| FormerKey {
        hash: key_hash(&former.key(id)),
        headers: serde_json::to_string(&former.headers).expect("texts serialize"),
        body: blanked_body.is_some().then(|| raw_body.clone()),
    });
    let received_at = Timestamp::now();
    Ok(NewEvent {
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
        source_ip: client_ip,
        headers: stored_headers(request, &compiled.verifier),
        raw_body: blanked_body.unwrap_or(raw_body),
        payload_key: Arc::clone(&compiled.mapper.payload_name),
        payload: fields.payload,
        body_form: form,
        delivered_as: compiled.mapper.delivered_as,
        secret_index: verified.secret,
        key_hash: key_hash(&idempotency_key),
        idempotency_key,
        former_key,
        audit_details: (!fields.left_out.is_empty()).then(|| json!({"leftOut": fields.left_out}).to_string()),
        is_paused: !integration.delivers(),
        destinations: Arc::clone(&integration.destination_names),
    })
}

/// Returns the first 16 bytes of the SHA-256: no two keys of one integration will share them, and the index is half as
/// large.
fn key_hash(idempotency_key: &str) -> Uuid {
    let digest: [u8; 32] = Sha256::digest(idempotency_key).into();
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    Uuid::from_bytes(first)
}

/// Returns a W3C `traceparent` of version 00 as received; anything else is not continued.
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

/// Returns the headers as JSON, in the order received. Values that are not text are read as Latin-1.
fn stored_headers(request: &IncomingRequest<'_>, verifier: &Verifier) -> String {
    let tokens = verifier.tokens_in_query(request);
    let is_secret = |name: &HeaderName, value: &HeaderValue| {
        // Deliveries read these two again, and without the first a loop would not end, whatever the token is.
        let is_needed = *name == CDN_LOOP || *name == header::CONTENT_TYPE;
        SECRET_HEADERS.contains(name)
            || !is_needed && (verifier.is_token_header(name) || has_any(value.as_bytes(), &tokens))
    };
    let pairs: Vec<(&str, Cow<'_, str>)> = request
        .headers
        .iter()
        .map(|(name, value)| {
            let text = match value.to_str() {
                _ if is_secret(name, value) => Cow::Borrowed("[redacted]"),
                Ok(text) => Cow::Borrowed(text),
                Err(_) => Cow::Owned(value.as_bytes().iter().map(|byte| char::from(*byte)).collect()),
            };
            (name.as_str(), text)
        })
        .collect();
    serde_json::to_string(&pairs).expect("texts serialize")
}

fn has_any(value: &[u8], tokens: &[&str]) -> bool {
    tokens.iter().any(|token| value.windows(token.len()).any(|part| part == token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use grapnel_crds::Scheme;
    use http::{HeaderMap, Method};

    use super::*;

    fn stored(from: &str, uri: &str, headers: &HeaderMap) -> String {
        let scheme = serde_json::json!({"type": "token", "signature": {"from": from}});
        let scheme: Scheme = serde_json::from_value(scheme).expect("a scheme");
        let verifier = Verifier::new(&scheme, None, None, &["abc"]).expect("a verifier");
        let uri = uri.parse().expect("a URI");
        let (method, body, public_url, json) = (&Method::POST, &b""[..], None, None);
        stored_headers(&IncomingRequest { method, uri: &uri, headers, body, public_url, json }, &verifier)
    }

    #[test]
    fn secrets_in_headers_are_not_stored() {
        let mut headers = HeaderMap::new();
        headers.append("authorization", HeaderValue::from_static("Bearer abc"));
        headers.append("x-globex-token", HeaderValue::from_static("abc"));
        headers.append("x-twice", HeaderValue::from_static("1"));
        headers.append("x-twice", HeaderValue::from_bytes(b"\xe9").expect("a value"));
        let stored = stored("header:x-globex-token", "/", &headers);
        assert!(!stored.contains("abc"), "{stored}");
        let pairs: Vec<(String, String)> = serde_json::from_str(&stored).expect("JSON");
        assert_eq!(pairs.len(), 4);
        assert!(pairs.contains(&("x-twice".into(), "é".into())));
    }

    #[test]
    fn tokens_that_proxies_or_prefixes_put_into_headers_are_not_stored() {
        let mut headers = HeaderMap::new();
        headers.append("x-original-uri", HeaderValue::from_static("/api/v1/webhooks/grid?code=abc"));
        headers.append("x-token-a", HeaderValue::from_static("abc"));
        headers.append("x-other", HeaderValue::from_static("kept"));
        let from_query = stored("query:code", "/grid?code=abc", &headers);
        let kept: Vec<(String, String)> = serde_json::from_str(&from_query).expect("JSON");
        assert_eq!(kept[0].1, "[redacted]");
        assert_eq!(kept[2].1, "kept");
        let from_prefix = stored("headerPrefix:x-token-", "/", &headers);
        let kept: Vec<(String, String)> = serde_json::from_str(&from_prefix).expect("JSON");
        assert_eq!((kept[1].1.as_str(), kept[2].1.as_str()), ("[redacted]", "kept"));
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
