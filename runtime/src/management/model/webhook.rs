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
pub(super) struct WebhookView {
    integration_id: Uuid,
    provider: String,
    #[schema(required)]
    external_event_id: Option<String>,
    idempotency_key: String,
    /// By name; values of a repeated name are joined with `, `. Headers that carry a secret are `[redacted]`.
    request_headers: BTreeMap<String, String>,
    /// The body, unchanged, when it is JSON.
    #[schema(required, value_type = Option<serde_json::Value>)]
    raw_payload: Option<Box<RawValue>>,
    /// The exact bytes of the body, in base64.
    #[schema(content_encoding = "base64")]
    raw_body: String,
    #[schema(required)]
    source_ip: Option<String>,
    received_at: Rfc3339Millis,
    /// The fields that could not be stored, and why. Missing if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<LeftOutFieldView>,
}

/// A field that the webhook has and its event has not, such as a `subject` that is too long.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = LeftOutField)]
pub(super) struct LeftOutFieldView {
    field: String,
    reason: String,
}

impl WebhookView {
    /// Renders the webhook of an event.
    pub(super) fn from_rows(event: &EventRow, webhook: WebhookRow) -> Result<Self, InvalidJson> {
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
            idempotency_key: webhook.idempotency_key,
            request_headers: join_repeated(headers),
            raw_payload: serde_json::from_slice(json::without_byte_order_mark(&webhook.body)).ok(),
            raw_body: STANDARD.encode(&webhook.body),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_headers_are_joined() {
        let pairs = [("accept", "a"), ("x-tag", "1"), ("x-tag", "2"), ("x-tag", "1")];
        let headers = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let expected = [("accept", "a"), ("x-tag", "1, 2, 1")];
        assert!(join_repeated(headers).iter().map(|(name, value)| (&**name, &**value)).eq(expected));
    }
}
