//! What holds up one delivery holds up no other.

use std::sync::Arc;

use grapnel_testing::{Reply, TestReceiver, acme_event, wait_until};
use tokio::sync::Semaphore;

use crate::harness::{Platform, destination, integration, sign};

/// Returns a destination that has time for an attempt that hangs.
fn patient(name: &str, url: &str, concurrency: usize) -> String {
    format!(
        "{{name: {name}, url: '{url}', timeoutSeconds: 60, maxConcurrency: {concurrency}, retry: {{maxAttempts: 1}}}}"
    )
}

async fn post(platform: &Platform, id: &str) {
    assert_eq!(platform.post_acme(&acme_event(id)).await.status, 202);
}

/// Posts events until one arrives at a path.
async fn post_until_delivered_to(platform: &Platform, receiver: &TestReceiver, path: &str) {
    let mut posted = 0;
    wait_until(&format!("a delivery to {path}"), async || {
        posted += 1;
        post(platform, &format!("e-{}-{posted}", &path[1..])).await;
        !receiver.deliveries_to(path).is_empty()
    })
    .await;
}

#[tokio::test]
async fn change_of_an_integration_does_not_wait_for_an_attempt_that_hangs() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let receiver = TestReceiver::answering(move |request, delivery| {
        if delivery.path == "/orders" && request == 1 {
            Reply::WhenReleased(200, Arc::clone(&held))
        } else {
            Reply::Status(200)
        }
    })
    .await;
    let mut platform = Platform::new().await;
    // A lane that waits for the attempt waits longer than this test.
    platform.set("GRAPNEL_SHUTDOWN_SECONDS", "250");
    let orders = patient("orders", &receiver.url("/orders"), 2);
    let _running =
        platform.start_api_and_worker(&integration("acme", "", std::slice::from_ref(&orders))).await;
    post(&platform, "hangs").await;
    receiver.wait_for(1).await;
    let unfinished = "SELECT count(*) FROM deliveries WHERE destination = 'orders' AND finished_at IS NULL";

    let hanging = "SELECT count(*) FROM deliveries d JOIN events e ON e.id = d.event_id
        WHERE e.external_event_id = 'hangs' AND d.destination = 'orders' AND d.status = 'processing'";

    // The lane of the second destination shows that the worker has read the change.
    let marker = destination("marker", &receiver.url("/marker"));
    let renamed = integration("acme", "  displayName: Renamed\n", &[orders, marker.clone()]);
    platform.apply(&renamed).await;
    platform.database.execute("UPDATE integrations SET writer_epoch = 7").await;
    post_until_delivered_to(&platform, &receiver, "/marker").await;
    platform.database.execute("UPDATE integrations SET writer_epoch = 0").await;
    platform.wait_for_count(unfinished, 1).await;
    assert_eq!(platform.count(hanging).await, 1, "the others did not wait for it");

    // A change that deliveries use applies while the earlier attempt is still in flight.
    let moved = patient("orders", &receiver.url("/moved"), 2);
    platform.apply(&integration("acme", "  displayName: Renamed\n", &[moved, marker])).await;
    post_until_delivered_to(&platform, &receiver, "/moved").await;
    platform.wait_for_count(unfinished, 1).await;
    assert_eq!(platform.count(hanging).await, 1, "nor did the new lane");
    assert_eq!(
        receiver.deliveries_to("/orders").iter().filter(|it| it.body.contains("order-hangs")).count(),
        1
    );

    gate.add_permits(1);
    platform.wait_for_count(unfinished, 0).await;
    let repeated = "SELECT count(*) FROM deliveries WHERE attempts <> 1 OR status <> 'succeeded'";
    assert_eq!(platform.count(repeated).await, 0, "the attempt that hung was recorded too");
}

#[tokio::test]
async fn concurrency_holds_across_a_change_of_the_destination() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let receiver = TestReceiver::answering(move |_, _| Reply::WhenReleased(200, Arc::clone(&held))).await;
    let platform = Platform::new().await;
    let before = patient("orders", &receiver.url("/before"), 3);
    let _running = platform.start_api_and_worker(&integration("acme", "", &[before])).await;
    for number in 0..2 {
        post(&platform, &format!("e-{number}")).await;
    }
    receiver.wait_for(2).await;
    platform.apply(&integration("acme", "", &[patient("orders", &receiver.url("/after"), 3)])).await;
    // The worker reads the change between two of them; from then on, one at a time is left.
    for number in 2..10 {
        post(&platform, &format!("e-{number}")).await;
    }
    receiver.wait_for(3).await;
    gate.add_permits(1);
    receiver.wait_for(4).await;
    assert_eq!(receiver.deliveries().len(), 4, "three in flight, and one that has ended");
    gate.add_permits(9);
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'succeeded'", 10).await;
    assert_eq!(receiver.deliveries().len(), 10);
}

#[tokio::test]
async fn long_payloads_of_a_destination_that_hangs_do_not_starve_the_others() {
    const EVENTS: i64 = 12;
    let receiver = TestReceiver::answering(|_, delivery| match delivery.path.as_str() {
        "/hangs" => Reply::Hang,
        _ => Reply::Status(200),
    })
    .await;
    let platform = Platform::new().await;
    let destinations =
        [patient("hangs", &receiver.url("/hangs"), 16), patient("orders", &receiver.url("/orders"), 16)];
    let large = integration("acme", "  ingress: {maxBodyBytes: 10485760}\n", &destinations);
    let _running = platform.start_api_and_worker(&large).await;
    let filling = "x".repeat(3 * 1024 * 1024);
    for number in 0..EVENTS {
        let body =
            acme_event(&format!("e-{number}")).replace("\"total\":12", &format!("\"total\":\"{filling}\""));
        assert!(body.len() > filling.len());
        let headers = [("x-acme-signature", &*sign(body.as_bytes()))];
        assert_eq!(platform.post("/api/v1/webhooks/acme", &headers, &body).await.status, 202);
    }
    let delivered = "SELECT count(*) FROM deliveries WHERE destination = 'orders' AND status = 'succeeded'";
    platform.wait_for_count(delivered, EVENTS).await;
    // None was postponed, which would count as no attempt but leave a trace.
    let postponed =
        "SELECT count(*) FROM deliveries WHERE destination = 'orders' AND triggered_by <> 'webhook'";
    assert_eq!(platform.count(postponed).await, 0);
    assert_eq!(receiver.deliveries_to("/orders").len(), EVENTS as usize);
    assert!(!receiver.deliveries_to("/hangs").is_empty(), "it hangs with payloads");
}

#[tokio::test]
async fn event_of_another_version_holds_up_only_its_own_delivery() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let _api =
        platform.start_api(&integration("acme", "", &[destination("orders", &receiver.url("/"))])).await;
    for number in 0..5 {
        post(&platform, &format!("e-{number}")).await;
    }
    let queue = platform.orders_queue().await;
    let unknown = "UPDATE events SET body_form = 99 WHERE external_event_id = 'e-2'";
    assert_eq!(platform.database.execute(unknown).await, 1);
    let _worker = platform.start(&["worker"]);
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'succeeded'", 4).await;
    let waiting = "SELECT count(*) FROM deliveries WHERE status = 'retrying' AND attempts = 0
        AND due_at > now() + interval '30 seconds' AND last_error LIKE '%invalid value in events.body_form%'";
    platform.wait_for_count(waiting, 1).await;
    queue.wait_until_empty().await;

    // A version that knows the form delivers it.
    platform.database.execute("UPDATE events SET body_form = 0").await;
    platform.database.execute("UPDATE deliveries SET due_at = now() WHERE due_at IS NOT NULL").await;
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'succeeded'", 5).await;
    assert_eq!(receiver.deliveries().len(), 5);
}
