//! From an accepted event to a recorded result.

mod egress;
mod outcomes;
mod queues;
mod request;

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
