//! Requests with several events: each is stored, deduplicated and delivered by itself, and all of a request are committed together.

mod commit;
mod deliveries;
mod elements;
mod model;
mod older_workers;
mod tokens;

use grapnel_testing::TestProcess;
use serde_json::{Value, json};

use super::harness::{Answer, Platform};
use super::providers::documents;

const TOKEN: &str = "split-test-token-5f2c";
const PATH: &str = "/api/v1/webhooks/list";

/// Returns an Integration at the route `list` whose events are in `items`, each with `id`, `type` and `n`; with these destinations.
fn list(mapping: &Value, destinations: &Value) -> String {
    list_named("list", mapping, destinations)
}

fn list_named(name: &str, mapping: &Value, destinations: &Value) -> String {
    let mut whole = json!({
        "split": ["/items/*"], "externalEventId": ["element:/id"], "eventType": ["element:/type"],
        "subject": ["json:/account"],
    });
    for (field, value) in mapping.as_object().expect("a mapping") {
        whole[field] = value.clone();
    }
    let spec = json!({
        "provider": "custom",
        "verification": {"scheme": {"type": "token", "signature": {"from": "header:x-token"}}},
        "mapping": whole, "destinations": destinations, "ingress": {"maxBodyBytes": 10_485_760},
    });
    documents(name, spec, &[TOKEN])
}

/// Starts an api with that Integration.
async fn start() -> (Platform, TestProcess) {
    let platform = Platform::new().await;
    platform.apply(&list(&json!({}), &Value::Null)).await;
    let api = platform.start(&["api"]);
    platform.wait_until_known("list").await;
    (platform, api)
}

async fn post(platform: &Platform, body: &str) -> Answer {
    post_to(platform, PATH, body).await
}

async fn post_to(platform: &Platform, path: &str, body: &str) -> Answer {
    let headers = [("x-token", TOKEN), ("content-type", "application/json"), ("x-tag", "of the request")];
    platform.post(path, &headers, body).await
}

/// Returns a request with these elements.
fn request(elements: &[&str]) -> String {
    format!(r#"{{"account":"a-1","items":[{}]}}"#, elements.join(","))
}

/// Returns an element with this id.
fn element(id: &str) -> String {
    format!(r#"{{"id":"{id}","type":"created","n":1.50}}"#)
}

/// Returns `eventId` and `duplicate` of each event of an answer.
fn events(answer: &Answer) -> Vec<(String, bool)> {
    let json = answer.json();
    let events = json["data"]["events"].as_array().unwrap_or_else(|| panic!("no events: {json}"));
    let event = |event: &Value| {
        (
            event["eventId"].as_str().expect("an id").to_owned(),
            event["duplicate"].as_bool().expect("a boolean"),
        )
    };
    events.iter().map(event).collect()
}
