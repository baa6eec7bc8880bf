//! Builds the events to be stored from a verified request.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::body::BodyShare;
use super::content::Content;
use super::one_or_more::OneOrMore;
use super::outcome::Refusal;
use super::readable_form::ReadableForm;
use crate::http::KEY_HEADER;
use grapnel_core::delivery::hops::CDN_LOOP;
use grapnel_core::filter::DestinationSet;
use grapnel_core::ids::{self, EventId};
use grapnel_core::integration::CompiledIntegration;
use grapnel_core::mapping::{EventFields, LeftOutField, SplitRequest};
use grapnel_core::payload::BodyForm;
use grapnel_core::request::IncomingRequest;
use grapnel_core::request::multipart::FilePart;
use grapnel_core::verification::Verifier;
use grapnel_store::events::{FormerKey, NewEvent, NewHeaders, NewPayload, NewRequest, SharedRequest};
use grapnel_store::{StoredForm, packed_headers};

/// Headers that contain a secret in plain text, for any provider.
static SECRET_HEADERS: [HeaderName; 4] =
    [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION, HeaderName::from_static(KEY_HEADER)];

/// Who sent a request, and how that is known.
pub(super) struct Sender<'a> {
    pub(super) client_ip: IpAddr,
    pub(super) correlation_id: &'a str,
    pub(super) secret_index: usize,
}

/// What the events of a request have in common beside their request.
struct Receipt {
    received_at: Timestamp,
    client_ip: IpAddr,
    correlation_id: Arc<str>,
    traceparent: Option<Arc<str>>,
    secret_index: usize,
    body_form: BodyForm,
    /// What the payloads are slices of, if that is not the raw body.
    own_text: Option<Bytes>,
    /// The files that are only in the raw body.
    files: Vec<FilePart>,
    /// The body as a previous version stored it, if that was in another form.
    former_body: Option<Bytes>,
}

/// The events of a request.
#[derive(Debug)]
pub(super) struct NewEvents {
    pub events: OneOrMore<NewEvent>,
    /// Whether each is an element of the body.
    pub is_split: bool,
}

/// Builds the events of a request from its content. What several events take is charged to the share of the body; `readable` is
/// what they will be stored as.
///
/// # Errors
/// An invalid body, too many events, or a missing or invalid field of an event that is the whole request.
pub(super) fn new_events(
    integration: &CompiledIntegration,
    sender: Sender<'_>,
    request: &IncomingRequest<'_>,
    content: Content,
    share: &mut BodyShare,
    readable: &ReadableForm,
) -> Result<NewEvents, Refusal> {
    let (mapper, verifier) = (&integration.compiled.mapper, &integration.compiled.verifier);
    // A token in it was needed for verification only. What tells the webhook from others is the content as received.
    let shown = content.shown(request);
    let receipt = Receipt {
        received_at: Timestamp::now(),
        client_ip: sender.client_ip,
        correlation_id: sender.correlation_id.into(),
        traceparent: request.headers.get("traceparent").and_then(trace_context),
        secret_index: sender.secret_index,
        body_form: content.form,
        own_text: content.own_text().cloned(),
        files: content.files.clone(),
        former_body: content.with_token.clone(),
    };
    let headers = stored_headers(request, verifier);
    let raw_body = content.raw_body.clone();
    match mapper.split(&shown, content.received_text(), content.form).map_err(Refusal::of_split)? {
        None => {
            let fields = mapper.read(&shown, content.received(), content.form);
            let fields = fields.map_err(Refusal::InvalidEvent)?;
            let headers = new_headers(&headers, readable.may_pack_headers() && !integration.needs_headers());
            let request = NewRequest::Whole { headers, raw_body };
            let event = receipt.event(integration, EventId::generate(), fields, request);
            Ok(NewEvents { events: OneOrMore::one(event), is_split: false })
        }
        Some(split) => {
            let former_body = receipt.former_body.clone().or_else(|| Some(raw_body.clone()));
            let receipt = Receipt { former_body, files: Vec::new(), ..receipt };
            let (headers, form) = (json_text(&headers), readable.current());
            let events = elements(integration, &receipt, &split, headers, raw_body, share, form)?;
            Ok(NewEvents { events, is_split: true })
        }
    }
}

/// Builds the events of a request that is split.
fn elements(
    integration: &CompiledIntegration,
    receipt: &Receipt,
    split: &SplitRequest<'_>,
    headers: String,
    raw_body: Bytes,
    share: &mut BodyShare,
    stored_form: StoredForm,
) -> Result<OneOrMore<NewEvent>, Refusal> {
    let count = split.count();
    let (id, ids) = ids::generate_of_request(count);
    let headers_with_each = if stored_form == StoredForm::Alone { headers.len() } else { 0 };
    share.grow(count * (size_of::<NewEvent>() + headers_with_each)).map_err(Refusal::Body)?;
    let mut fields = split.events().zip(ids);
    // One event alone is stored with its request, unless it is to be delivered without the rest of the body.
    if count == 1
        && !integration.delivers_raw()
        && let Some((fields, id)) = fields.next()
    {
        return Ok(OneOrMore::one(receipt.event(
            integration,
            id,
            fields,
            NewRequest::Whole { headers: NewHeaders::Json(headers), raw_body },
        )));
    }
    let request = Arc::new(SharedRequest { id, headers, raw_body, count });
    let mut events = fields.enumerate().map(|(position, (fields, id))| {
        let shared = NewRequest::Shared { request: Arc::clone(&request), position };
        let event = receipt.event(integration, id, fields, shared);
        share.grow(bytes_of_texts(&event)).map_err(Refusal::Body)?;
        Ok(event)
    });
    // A request is split only if there is an element.
    let first = events.next().ok_or(Refusal::Unavailable)??;
    Ok(OneOrMore { first, rest: events.collect::<Result<_, Refusal>>()? })
}

/// Returns the memory of the texts that an event has for itself.
fn bytes_of_texts(event: &NewEvent) -> usize {
    let optional = [&event.external_event_id, &event.subject, &event.audit_details];
    let optional: usize = optional.into_iter().flatten().map(String::len).sum();
    optional + event.event_type.len() + event.idempotency_key.len()
}

impl Receipt {
    fn event(
        &self,
        integration: &CompiledIntegration,
        event_id: EventId,
        fields: EventFields,
        request: NewRequest,
    ) -> NewEvent {
        let (id, mapper) = (integration.row.id, &integration.compiled.mapper);
        let idempotency_key = fields.identity.key(id, event_id, fields.external_event_id.as_deref());
        let former_key = fields.identity.former.map(|former| FormerKey {
            hash: key_hash(&former.key(id)),
            headers: serde_json::to_string(&former.headers).expect("texts serialize"),
            body: self.former_body.clone(),
        });
        NewEvent {
            id: event_id,
            integration_id: id,
            provider: Arc::clone(&integration.provider),
            external_event_id: fields.external_event_id,
            event_type: fields.event_type,
            subject: fields.subject,
            occurred_at: fields.occurred_at.unwrap_or(self.received_at),
            received_at: self.received_at,
            correlation_id: Arc::clone(&self.correlation_id),
            traceparent: self.traceparent.clone(),
            source_ip: self.client_ip,
            request,
            payload_key: Arc::clone(&mapper.payload_name),
            payload: match &self.own_text {
                Some(text) => NewPayload::Own(text.slice(fields.payload)),
                None => NewPayload::Slice(fields.payload),
            },
            body_form: self.body_form,
            delivered_as: mapper.delivered_as,
            secret_index: self.secret_index,
            key_hash: key_hash(&idempotency_key),
            idempotency_key,
            former_key,
            audit_details: audit_details(&fields.left_out, &self.files),
            held: integration.held,
            destinations: Arc::clone(&integration.destination_names),
            filtered: DestinationSet::default(),
        }
    }
}

/// Returns the notes about what the event has not: fields that were left out, and files that are only in the body.
fn audit_details(left_out: &[LeftOutField], files: &[FilePart]) -> Option<String> {
    let mut details = Map::new();
    if !left_out.is_empty() {
        details.insert("leftOut".to_owned(), json!(left_out));
    }
    if !files.is_empty() {
        details.insert("files".to_owned(), json!(files));
    }
    (!details.is_empty()).then(|| Value::Object(details).to_string())
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
fn trace_context(value: &HeaderValue) -> Option<Arc<str>> {
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
    valid.then(|| text.into())
}

/// Returns the headers that are stored, in the order received. Values that are not text are read as Latin-1.
fn stored_headers<'a>(request: &IncomingRequest<'a>, verifier: &Verifier) -> Vec<(&'a str, Cow<'a, str>)> {
    let tokens = verifier.tokens_in_query(request);
    let is_secret = |name: &HeaderName, value: &HeaderValue| {
        // Deliveries read these two again, and without the first a loop would not end, whatever the token is.
        let is_needed = *name == CDN_LOOP || *name == header::CONTENT_TYPE;
        SECRET_HEADERS.contains(name)
            || !is_needed && (verifier.is_token_header(name) || has_any(value.as_bytes(), &tokens))
    };
    let pair = |(name, value): (&'a HeaderName, &'a HeaderValue)| {
        let text = match value.to_str() {
            _ if is_secret(name, value) => Cow::Borrowed("[redacted]"),
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(value.as_bytes().iter().map(|byte| char::from(*byte)).collect()),
        };
        (name.as_str(), text)
    };
    request.headers.iter().map(pair).collect()
}

/// Returns the headers in the form in which they are stored. What a worker of any version needs must be JSON: what destinations need, and what
/// ends a loop.
fn new_headers(headers: &[(&str, Cow<'_, str>)], may_pack: bool) -> NewHeaders {
    if may_pack && headers.iter().all(|(name, _)| *name != CDN_LOOP.as_str()) {
        NewHeaders::Packed(packed_headers::pack(headers.iter().map(|(name, value)| (*name, &**value))))
    } else {
        NewHeaders::Json(json_text(headers))
    }
}

fn json_text(headers: &[(&str, Cow<'_, str>)]) -> String {
    serde_json::to_string(headers).expect("texts serialize")
}

fn has_any(value: &[u8], tokens: &[&str]) -> bool {
    tokens.iter().any(|token| value.windows(token.len()).any(|part| part == token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use grapnel_crds::Scheme;
    use http::{HeaderMap, Method};

    use super::*;

    fn stored(from: &str, uri: &str, headers: &HeaderMap) -> Vec<(String, String)> {
        let scheme = serde_json::json!({"type": "token", "signature": {"from": from}});
        let scheme: Scheme = serde_json::from_value(scheme).expect("a scheme");
        let verifier = Verifier::new(&scheme, None, None, &["abc"]).expect("a verifier");
        let uri = uri.parse().expect("a URI");
        let (method, body, public_url, json) = (&Method::POST, &b""[..], None, None);
        let request = IncomingRequest {
            method,
            uri: &uri,
            headers,
            body,
            encoded_body: None,
            form: None,
            public_url,
            json,
        };
        let stored = stored_headers(&request, &verifier);
        stored.into_iter().map(|(name, value)| (name.to_owned(), value.into_owned())).collect()
    }

    #[test]
    fn secrets_in_headers_are_not_stored() {
        let mut headers = HeaderMap::new();
        headers.append("authorization", HeaderValue::from_static("Bearer abc"));
        headers.append("x-globex-token", HeaderValue::from_static("abc"));
        headers.append("x-twice", HeaderValue::from_static("1"));
        headers.append("x-twice", HeaderValue::from_bytes(b"\xe9").expect("a value"));
        let pairs = stored("header:x-globex-token", "/", &headers);
        assert!(!pairs.iter().any(|(_, value)| value.contains("abc")), "{pairs:?}");
        assert_eq!(pairs.len(), 4);
        assert!(pairs.contains(&("x-twice".into(), "é".into())));
    }

    #[test]
    fn tokens_that_proxies_or_prefixes_put_into_headers_are_not_stored() {
        let mut headers = HeaderMap::new();
        headers.append("x-original-uri", HeaderValue::from_static("/api/v1/webhooks/grid?code=abc"));
        headers.append("x-token-a", HeaderValue::from_static("abc"));
        headers.append("x-other", HeaderValue::from_static("kept"));
        let kept = stored("query:code", "/grid?code=abc", &headers);
        assert_eq!(kept[0].1, "[redacted]");
        assert_eq!(kept[2].1, "kept");
        let kept = stored("headerPrefix:x-token-", "/", &headers);
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
