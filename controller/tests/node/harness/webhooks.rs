//! The platform's public routes and its management API, through the NodePort.

use grapnel_testing::{acme_event, acme_signature};
use serde_json::Value;

use super::Node;
use super::integrations::secret_of;

/// The answer to a webhook.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    /// The id of the event, for an answer with the expected status.
    pub(crate) fn event_id(&self, status: u16) -> String {
        self.expect(status);
        let body: Value = serde_json::from_str(&self.body).expect("the answer is JSON");
        body["data"]["eventId"].as_str().expect("the answer has an event id").to_owned()
    }

    pub(crate) fn expect(&self, status: u16) {
        assert_eq!(self.status, status, "the answer is {}", self.body);
    }
}

impl Node {
    /// Posts a webhook of Acme to a route, signed with the route's secret.
    pub(crate) async fn post(&self, route: &str, event: &str) -> Answer {
        self.post_signed(route, event, &secret_of(route)).await
    }

    /// Posts a webhook of Acme to a route, signed with any secret.
    pub(crate) async fn post_signed(&self, route: &str, event: &str, secret: &str) -> Answer {
        let body = acme_event(event);
        let request = self
            .http
            .post(format!("{}/webhooks/{route}", self.api))
            .header("content-type", "application/json")
            .header("x-acme-signature", acme_signature(secret, body.as_bytes()))
            .body(body);
        let response = request.send().await.expect("the platform answers");
        Answer { status: response.status().as_u16(), body: response.text().await.expect("the body is text") }
    }

    /// The answer of the management API to a path below `/api/v1`.
    pub(crate) async fn management(&self, path: &str) -> anyhow::Result<Value> {
        let key = self.credential("management-key").await?;
        let request = self.http.get(format!("{}/{path}", self.api)).header("x-internal-api-key", key);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }
}
