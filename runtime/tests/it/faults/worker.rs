//! A worker is killed, or stopped, while receivers handle its requests.

use std::sync::Arc;

use grapnel_testing::{Reply, TestReceiver, WAIT_TIMEOUT, acme_event};
use tokio::sync::Semaphore;

use super::{BOUND, within};
use crate::harness::{Platform, acme_integration};

const SUCCEEDED: &str = "SELECT count(*) FROM deliveries WHERE status = 'succeeded'";

/// Returns an Integration with two requests at a time.
fn narrow(url: &str, timeout_seconds: u32) -> String {
    acme_integration(&[format!(
        "{{name: orders, url: '{url}', timeoutSeconds: {timeout_seconds}, maxConcurrency: 2}}"
    )])
}

async fn post(platform: &Platform, count: usize) {
    for number in 0..count {
        assert_eq!(platform.post_acme(&acme_event(&format!("e-{number}"))).await.status, 202);
    }
}

/// Returns the numbers of requests of each event, in ascending order.
fn requests_of_each(receiver: &TestReceiver) -> Vec<usize> {
    let mut counts = std::collections::HashMap::<String, usize>::new();
    for delivery in receiver.deliveries() {
        *counts.entry(delivery.header("webhook-id").to_owned()).or_default() += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    counts
}

#[tokio::test]
async fn deliveries_of_a_killed_worker_are_made_by_another() {
    let receiver =
        TestReceiver::answering(|request, _| if request <= 2 { Reply::Hang } else { Reply::Status(200) })
            .await;
    let platform = Platform::new().await;
    let _api = platform.start_api(&narrow(&receiver.url("/"), 5)).await;
    let mut worker = platform.start(&["worker"]);
    post(&platform, 10).await;
    receiver.wait_for(2).await;
    worker.kill();

    let _other = platform.start(&["worker"]);
    // Deliveries that the dead worker had not begun are available at once.
    within(BOUND, "the rest is delivered", platform.wait_for_count(SUCCEEDED, 8)).await;
    // Those that it had begun may have arrived.
    within(WAIT_TIMEOUT, "the deliveries in flight are repeated", platform.wait_for_count(SUCCEEDED, 10))
        .await;
    assert_eq!(requests_of_each(&receiver), [1, 1, 1, 1, 1, 1, 1, 1, 2, 2]);
    // The interrupted attempts were not recorded, so the second ones are number 1.
    assert_eq!(platform.count("SELECT count(*) FROM delivery_attempts WHERE attempt_no = 1").await, 10);
    assert_eq!(platform.count("SELECT count(*) FROM delivery_attempts").await, 10);
}

#[tokio::test]
async fn stopped_worker_finishes_its_deliveries_and_gives_back_the_rest_at_once() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let receiver = TestReceiver::answering(move |request, _| {
        if request <= 2 { Reply::WhenReleased(200, Arc::clone(&held)) } else { Reply::Status(200) }
    })
    .await;
    let mut platform = Platform::new().await;
    // So late that no dispatcher requeues them.
    platform.set("GRAPNEL_REQUEUE_AFTER_SECONDS", "600");
    let _api = platform.start_api(&narrow(&receiver.url("/"), 20)).await;
    let mut worker = platform.start(&["worker"]);
    post(&platform, 10).await;
    receiver.wait_for(2).await;
    worker.signal("TERM");

    let _other = platform.start(&["worker"]);
    // All that were not begun, including those that the stopping worker had fetched already.
    within(BOUND, "the rest is delivered", platform.wait_for_count(SUCCEEDED, 8)).await;
    gate.add_permits(2);
    let status = within(BOUND, "a stopped worker ends", worker.wait()).await;
    assert_eq!(status.code(), Some(0));
    platform.wait_for_count(SUCCEEDED, 10).await;
    assert_eq!(requests_of_each(&receiver), [1; 10]);
    assert_eq!(platform.count("SELECT count(*) FROM delivery_attempts WHERE attempt_no = 1").await, 10);
}
