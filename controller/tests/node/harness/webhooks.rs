//! The platform's public routes and its management API, each through its NodePort.

use std::collections::BTreeSet;

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

/// The URL of a port, from that of its routes.
fn origin(base: &str) -> &str {
    base.trim_end_matches("/api/v1")
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

    /// The methods and paths that a port describes, of `api` or `management`.
    pub(crate) async fn described(&self, base: &str) -> BTreeSet<(String, String)> {
        let request = self.http.get(format!("{}/openapi.json", origin(base)));
        let document: Value = request.send().await.expect("an answer").json().await.expect("a description");
        let paths = document["paths"].as_object().expect("paths");
        let methods = |path: &String, item: &Value| {
            let item = item.as_object().cloned().unwrap_or_default();
            let is_method =
                |name: &String| ["get", "post", "put", "patch", "delete"].contains(&name.as_str());
            let path = path.clone();
            item.into_iter()
                .map(|(name, _)| name)
                .filter(is_method)
                .map(move |name| (name.to_uppercase(), path.clone()))
        };
        paths.iter().flat_map(|(path, item)| methods(path, item)).collect()
    }

    /// The status of the answer of a port to a request with the management key.
    pub(crate) async fn ask(&self, base: &str, method: &str, path: &str, key: &str) -> u16 {
        let method = method.parse().expect("a method");
        let request = self.http.request(method, format!("{}{path}", origin(base)));
        request.header("x-internal-api-key", key).send().await.expect("an answer").status().as_u16()
    }

    /// The answer of the management API to a path below `/api/v1`.
    pub(crate) async fn management(&self, path: &str) -> anyhow::Result<Value> {
        let key = self.credential("management-key").await?;
        let request = self.http.get(format!("{}/{path}", self.management)).header("x-internal-api-key", key);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }
}
