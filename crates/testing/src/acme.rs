//! Webhooks as the provider acme sends them.

use ring::hmac;
use serde_json::json;

pub const ACME_SECRET: &str = "acme-test-secret-7f3a";

/// Returns the body of an event with an id.
pub fn acme_event(id: &str) -> String {
    json!({
        "eventId": id, "eventType": "order.created", "occurredAt": "2026-11-24T10:00:00Z",
        "data": {"id": format!("order-{id}"), "total": 12},
    })
    .to_string()
}

/// Returns the signature of a body, as the header `x-acme-signature` carries it.
pub fn acme_signature(secret: &str, body: &[u8]) -> String {
    hmac_sha256(secret, body)
}

/// Returns the HMAC-SHA256 of a message in hexadecimal.
pub fn hmac_sha256(key: &str, message: &[u8]) -> String {
    hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), message))
}
