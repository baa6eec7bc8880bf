//! From an accepted event to a recorded result.

mod egress;
mod fields;
mod outcomes;
mod queues;
mod request;
mod sending;
mod oauth2;
mod services;
mod shared_messages;

use grapnel_testing::{acme_event, wait_until};

use super::harness::{Platform, destination};

/// Returns a destination whose deliveries are signed.
fn signed_destination(name: &str, url: &str) -> String {
    let signing = "signingSecretRef: {name: acme-secrets, key: outgoing}}";
    destination(name, url).strip_suffix('}').expect("a flow mapping").to_owned() + ", " + signing
}

/// Returns a destination with a retry policy of its own (a YAML flow mapping) and other fields (each followed by a comma).
fn destination_with(name: &str, url: &str, retry: &str, fields: &str) -> String {
    format!("{{name: {name}, url: '{url}', {fields} retry: {retry}}}")
}

/// Waits until no delivery is unfinished.
async fn wait_until_finished(platform: &Platform, deliveries: i64) {
    platform
        .wait_for_count("SELECT count(*) FROM deliveries WHERE finished_at IS NOT NULL", deliveries)
        .await;
}

/// Posts events until the delivery of one to a destination is held from the start; then 20 more. Returns the number of these that were
/// queued.
async fn post_to_held(platform: &Platform, destination: &str) -> i64 {
    let mut posted = 0;
    let newest = format!(
        "SELECT count(*) FROM (
            SELECT queued_at, due_at FROM deliveries WHERE destination = '{destination}' ORDER BY event_id DESC LIMIT 1
        ) newest WHERE queued_at IS NULL AND due_at = '9999-01-01 00:00:00+00'"
    );
    // The api may not have read the change yet.
    wait_until("a delivery that is held", async || {
        posted += 1;
        platform.post_acme(&acme_event(&format!("earlier-{posted}"))).await;
        platform.count(&newest).await == 1
    })
    .await;
    for number in 0..20 {
        assert_eq!(platform.post_acme(&acme_event(&format!("later-{number}"))).await.status, 202);
    }
    let queued = format!(
        "SELECT count(*) FROM deliveries d JOIN events e ON e.id = d.event_id
        WHERE d.destination = '{destination}' AND e.external_event_id LIKE 'later-%' AND d.queued_at IS NOT NULL"
    );
    platform.count(&queued).await
}

/// Returns the numbers, statuses and errors of the attempts to a destination, in order.
async fn attempts(platform: &Platform, destination: &str) -> Vec<(i32, Option<i16>, Option<String>)> {
    let sql = format!(
        "SELECT attempt_no, http_status, error_message FROM delivery_attempts
        WHERE destination = '{destination}' ORDER BY event_id, attempt_no"
    );
    let rows = platform.database.rows(&sql).await.into_iter();
    rows.map(|row| {
        let error = row["error_message"].as_str().map(str::to_owned);
        let status = row["http_status"].as_i64().map(|status| i16::try_from(status).expect("a status"));
        let number = row["attempt_no"].as_i64().expect("a number");
        (i32::try_from(number).expect("a small number"), status, error)
    })
    .collect()
}

/// Returns the status and the last error of the only delivery to a destination.
async fn delivery(platform: &Platform, destination: &str) -> (String, Option<String>) {
    let sql = format!("SELECT status, last_error FROM deliveries WHERE destination = '{destination}'");
    let rows = platform.database.rows(&sql).await;
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    let status = row["status"].as_str().expect("a status").to_owned();
    (status, row["last_error"].as_str().map(str::to_owned))
}
