//! From an accepted event to a recorded result.

mod egress;
mod outcomes;
mod queues;
mod request;

use super::harness::{Platform, destination};

/// One that is signed.
fn signed_destination(name: &str, url: &str) -> String {
    let signing = "signingSecretRef: {name: acme-secrets, key: outgoing}}";
    destination(name, url).strip_suffix('}').expect("a flow mapping").to_owned() + ", " + signing
}

/// One with a retry policy of its own (a YAML flow mapping) and other fields (each followed by a comma).
fn destination_with(name: &str, url: &str, retry: &str, fields: &str) -> String {
    format!("{{name: {name}, url: '{url}', {fields} retry: {retry}}}")
}

/// Waits until no delivery is unfinished.
async fn wait_until_finished(platform: &Platform, deliveries: i64) {
    platform
        .wait_for_count("SELECT count(*) FROM deliveries WHERE finished_at IS NOT NULL", deliveries)
        .await;
}

/// Numbers, statuses and errors of the attempts to a destination, in order.
async fn attempts(platform: &Platform, destination: &str) -> Vec<(i32, Option<i16>, Option<String>)> {
    sqlx::query_as(
        "SELECT attempt_no, http_status, error_message FROM delivery_attempts
        WHERE destination = $1 ORDER BY event_id, attempt_no",
    )
    .bind(destination)
    .fetch_all(&platform.pool)
    .await
    .expect("attempts")
}

/// Status and last error of a destination's only delivery.
async fn delivery(platform: &Platform, destination: &str) -> (String, Option<String>) {
    sqlx::query_as("SELECT status::text, last_error FROM deliveries WHERE destination = $1")
        .bind(destination)
        .fetch_one(&platform.pool)
        .await
        .expect("a delivery")
}
