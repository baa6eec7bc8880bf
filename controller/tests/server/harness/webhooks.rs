//! Webhooks as the provider acme sends them.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;

use super::Installation;

fn signature(secret: &str, body: &str) -> String {
    let mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    hex::encode(mac.chain_update(body).finalize().into_bytes())
}

impl Installation {
    /// Posts a webhook that is signed with this secret, and returns the status.
    pub(crate) async fn post(&self, port: u16, route: &str, secret: &str, id: &str) -> u16 {
        let body = json!({
            "eventId": id, "eventType": "order.created", "occurredAt": "2026-11-24T10:00:00Z", "data": {"id": id},
        })
        .to_string();
        let url = format!("http://127.0.0.1:{port}/api/v1/webhooks/{route}");
        let request = self.http.post(url).header("x-acme-signature", signature(secret, &body)).body(body);
        request.send().await.map_or(0, |answer| answer.status().as_u16())
    }
}
