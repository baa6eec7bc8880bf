//! Webhooks as the provider acme sends them.

use grapnel_testing::{acme_event, acme_signature};

use super::Installation;

impl Installation {
    /// Posts a webhook that is signed with this secret, and returns the status.
    pub(crate) async fn post(&self, port: u16, route: &str, secret: &str, id: &str) -> u16 {
        let body = acme_event(id);
        let url = format!("http://127.0.0.1:{port}/api/v1/webhooks/{route}");
        let request = self
            .http
            .post(url)
            .header("x-acme-signature", acme_signature(secret, body.as_bytes()))
            .body(body);
        request.send().await.map_or(0, |answer| answer.status().as_u16())
    }
}
