//! Webhooks as they were received.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use grapnel_core::request::json;
use grapnel_store::views::{EventRow, WebhookRow};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{InvalidJson, Rfc3339Millis};

/// The request as it was received.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Webhook)]
pub(crate) struct WebhookView {
    pub(crate) integration_id: Uuid,
    pub(crate) provider: String,
    #[schema(required)]
    pub(crate) external_event_id: Option<String>,
    /// Null without the right to see payloads: it may be made from the body.
    #[schema(required)]
    pub(crate) idempotency_key: Option<String>,
    /// By name; values of a repeated name are joined with `, `. Headers that carry a secret are `[redacted]`. Without the right to
    /// see payloads, each value is its length, such as `[12 bytes]`.
    pub(crate) request_headers: BTreeMap<String, String>,
    /// The body, unchanged, when it is JSON; null without the right to see payloads.
    #[schema(required, value_type = Option<serde_json::Value>)]
    pub(crate) raw_payload: Option<Box<RawValue>>,
    /// The exact bytes of the body, in base64; null without the right to see payloads.
    #[schema(required, content_encoding = "base64")]
    pub(crate) raw_body: Option<String>,
    /// In place of `rawBody` that is withheld: its length in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) raw_body_bytes: Option<usize>,
    #[schema(required)]
    pub(crate) source_ip: Option<String>,
    pub(crate) received_at: Rfc3339Millis,
    /// The fields that could not be stored, and why. Missing if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) left_out: Vec<LeftOutFieldView>,
}

/// A field that the webhook has and its event has not, such as a `subject` that is too long.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = LeftOutField)]
pub(crate) struct LeftOutFieldView {
    pub(crate) field: String,
    pub(crate) reason: String,
}

impl WebhookView {
    /// Renders the webhook of an event, with its body and the values of its headers or the lengths of those.
    pub(super) fn from_rows(
        event: &EventRow,
        webhook: WebhookRow,
        shows_payload: bool,
    ) -> Result<Self, InvalidJson> {
        let headers = serde_json::from_str(&webhook.headers).map_err(|source| InvalidJson {
            table: "events",
            column: "headers",
            id: event.id.uuid(),
            source,
        })?;
        let left_out = webhook.left_out.as_deref().map(serde_json::from_str).transpose();
        let left_out = left_out.map_err(|source| InvalidJson {
            table: "audit_entries",
            column: "details",
            id: event.id.uuid(),
            source,
        })?;
        Ok(Self {
            integration_id: event.integration_id.uuid(),
            provider: event.provider.clone(),
            external_event_id: event.external_event_id.clone(),
            idempotency_key: Some(webhook.idempotency_key).filter(|_| shows_payload),
            request_headers: if shows_payload {
                join_repeated(headers)
            } else {
                lengths(join_repeated(headers))
            },
            raw_payload: if shows_payload {
                serde_json::from_slice(json::without_byte_order_mark(&webhook.body)).ok()
            } else {
                None
            },
            raw_body: shows_payload.then(|| STANDARD.encode(&webhook.body)),
            raw_body_bytes: (!shows_payload).then_some(webhook.body.len()),
            source_ip: webhook.source_ip,
            left_out: left_out.unwrap_or_default(),
            received_at: event.received_at.into(),
        })
    }
}

fn join_repeated(headers: Vec<(String, String)>) -> BTreeMap<String, String> {
    let mut by_name = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        by_name
            .entry(name)
            .and_modify(|values| {
                values.push_str(", ");
                values.push_str(&value);
            })
            .or_insert(value);
    }
    by_name
}

/// Puts the length of each value in its place.
fn lengths(headers: BTreeMap<String, String>) -> BTreeMap<String, String> {
    headers.into_iter().map(|(name, value)| (name, format!("[{} bytes]", value.len()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn withheld_values_are_their_lengths() {
        let headers =
            BTreeMap::from([("x-note".to_owned(), "é1".to_owned()), ("x-none".to_owned(), String::new())]);
        let expected = [("x-none", "[0 bytes]"), ("x-note", "[3 bytes]")];
        assert!(lengths(headers).iter().map(|(name, value)| (&**name, &**value)).eq(expected));
    }

    #[test]
    fn repeated_headers_are_joined() {
        let pairs = [("accept", "a"), ("x-tag", "1"), ("x-tag", "2"), ("x-tag", "1")];
        let headers = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let expected = [("accept", "a"), ("x-tag", "1, 2, 1")];
        assert!(join_repeated(headers).iter().map(|(name, value)| (&**name, &**value)).eq(expected));
    }
}
