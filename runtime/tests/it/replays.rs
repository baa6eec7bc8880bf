//! Replays: jobs that deliver many deliveries again.

mod crashes;
mod feeding;
mod outage;
mod requests;
mod selection;

use serde_json::{Value, json};

use crate::harness::{Answer, Platform, acme_integration};
use grapnel_testing::{MANAGEMENT_KEY, wait_until};

/// Returns an Integration whose destination takes so many requests at a time and does not retry.
fn integration(url: &str, max_concurrency: u32) -> String {
    acme_integration(&[orders(url, max_concurrency)])
}

fn orders(url: &str, max_concurrency: u32) -> String {
    format!(
        "{{name: orders, url: '{url}', timeoutSeconds: 20, maxConcurrency: {max_concurrency}, retry: {{maxAttempts: 1}}}}"
    )
}

/// Inserts deliveries to `orders` that failed, each after three attempts.
async fn insert_failed(platform: &Platform, name: &str, count: u32) {
    platform.insert_deliveries(name, count, "'pending', NULL, 'infinity'").await;
    let fail = "UPDATE deliveries SET status = 'failed', due_at = NULL, finished_at = now(), last_error = 'HTTP 500', attempts = 3
        WHERE due_at = 'infinity'";
    assert_eq!(platform.database.execute(fail).await, u64::from(count));
}

/// Returns a request for all that failed, with further members.
fn failed(members: &Value) -> Value {
    let mut body = json!({
        "integration": "test/acme", "select": "Failed", "receivedAfter": "2020-01-01T00:00:00Z", "reason": "an outage",
        "ratePerSecond": 5000,
    });
    for (name, value) in members.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

async fn post(platform: &Platform, path: &str, body: &Value) -> Answer {
    let headers = [("x-internal-api-key", MANAGEMENT_KEY), ("content-type", "application/json")];
    platform.post(path, &headers, &body.to_string()).await
}

/// Starts a replay and returns its id.
async fn start(platform: &Platform, body: &Value) -> String {
    let answer = post(platform, "/api/v1/replays", body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.json()["data"]["id"].as_str().expect("an id").to_owned()
}

/// Asks something of a replay, and returns it.
async fn ask(platform: &Platform, id: &str, what: &str) -> Value {
    let answer = post(platform, &format!("/api/v1/replays/{id}/{what}"), &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["data"].clone()
}

async fn change_rate(platform: &Platform, id: &str, rate: u32) -> u16 {
    let request = platform.http.patch(platform.url(&format!("/api/v1/replays/{id}")));
    let request =
        request.header("x-internal-api-key", MANAGEMENT_KEY).header("content-type", "application/json");
    let body = json!({"ratePerSecond": rate}).to_string();
    request.body(body).send().await.expect("an answer").status().as_u16()
}

async fn read(platform: &Platform, id: &str) -> Value {
    let answer = platform.get(&format!("/api/v1/replays/{id}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["data"].clone()
}

async fn wait_for_state(platform: &Platform, id: &str, state: &str) -> Value {
    wait_until(&format!("the replay to be {state}"), async || {
        let answer = platform.get(&format!("/api/v1/replays/{id}")).await;
        answer.status == 200 && answer.json()["data"]["state"] == state
    })
    .await;
    read(platform, id).await
}

/// Returns `fed`, `succeeded`, `failed` and the sum of what was skipped.
fn counts(replay: &Value) -> [u64; 4] {
    let counters = &replay["counters"];
    let count = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no counters: {replay}"));
    [
        count(&counters["fed"]),
        count(&counters["succeeded"]),
        count(&counters["failed"]),
        count(&counters["skipped"]["total"]),
    ]
}

/// Returns the actions about a replay in the audit trail, the oldest first, with their actors.
async fn audited(platform: &Platform, id: &str) -> Vec<String> {
    let sql = format!(
        "SELECT action || ' ' || actor FROM audit_entries WHERE details ->> 'replayId' = '{id}' ORDER BY id"
    );
    platform.database.texts(&sql).await
}
