//! Providers as data: every preset through the real route, handshakes, mappings, and vectors of other implementations.

mod codings;
mod commands;
mod covered;
pub(crate) mod fixtures;
mod forms;
mod handshakes;
mod identity;
mod leniency;
mod mapping;
mod methods;
pub(crate) mod sent;
mod tokens;
mod occurrences;
mod vectors;

use grapnel_testing::WebhookRequest;
use serde_json::{Value, json};

use super::harness::{Answer, Platform};

/// Returns an Integration and its Secret, as YAML documents (JSON is YAML).
pub(crate) fn documents(name: &str, mut spec: Value, secrets: &[&str]) -> String {
    let reference = |index: usize| json!({"name": format!("{name}-secrets"), "key": format!("s{index}")});
    let mut references: Vec<Value> = (0..secrets.len()).map(reference).collect();
    if references.len() > 1 {
        spec["verification"]["previousSecretRefs"] = references.split_off(1).into();
    }
    spec["verification"]["secretRef"] = references.remove(0);
    if spec["destinations"].is_null() {
        spec["destinations"] = json!([{"name": "orders", "url": "http://127.0.0.1:9/"}]);
    }
    let object = json!({
        "apiVersion": "grapnel.dev/v1alpha1", "kind": "Integration",
        "metadata": {"name": name, "namespace": "test"}, "spec": spec,
    });
    let values: serde_json::Map<String, Value> =
        secrets.iter().enumerate().map(|(index, secret)| (format!("s{index}"), json!(secret))).collect();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": format!("{name}-secrets"), "namespace": "test"}, "stringData": values,
    });
    format!("---\n{object}\n---\n{secret}\n")
}

/// Sends a request to the api of a platform.
pub(crate) trait SendTo {
    async fn send(&self, platform: &Platform) -> Answer;
}

impl SendTo for WebhookRequest {
    async fn send(&self, platform: &Platform) -> Answer {
        let method = self.method.parse().expect("a method");
        let mut request = platform.http.request(method, platform.url(&self.path())).body(self.body.clone());
        for (name, value) in &self.headers {
            let value = reqwest::header::HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
            request = request.header(name, value);
        }
        Answer::of(request.send().await.expect("an answer")).await
    }
}
