//! The distribution of deliveries to workers, and the end of those that nobody can make any more.

use grapnel_crds::names::integration_id;
use grapnel_testing::{Reply, TestReceiver, acme_event, free_port};

use super::super::harness::{GLOBEX_TOKEN, Platform, acme_integration, destination, integration};
use super::{attempts, delivery, destination_with, wait_until_finished};

const ACME: &str = "acme";

fn id_of(name: &str) -> uuid::Uuid {
    integration_id(None, "test", name)
}

#[tokio::test]
async fn worker_of_one_integration_delivers_only_its_own() {
    let (mut platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let both = acme_integration(&[destination("orders", &receiver.url("/acme"))])
        + "---\n"
        + &integration("globex", "", &[destination("assets", &receiver.url("/globex"))]);
    let _api = platform.start_api(&both).await;
    platform.post_acme(&acme_event("e-1")).await;
    let body = r#"{"id":"g-1","type":"t","timestamp":"2026-11-24T10:00:00Z","resource":{}}"#;
    let globex = platform.post("/api/v1/webhooks/globex", &[("x-globex-token", GLOBEX_TOKEN)], body).await;
    assert_eq!(globex.status, 202, "{globex:?}");

    platform.set("GRAPNEL_INTEGRATION", &id_of("globex").to_string());
    let _worker = platform.start(&["worker"]);
    receiver.wait_for(1).await;
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'succeeded'", 1).await;
    assert_eq!(delivery(&platform, "orders").await.0, "pending");
    assert_eq!(receiver.deliveries_to("/globex").len(), 1);

    platform.set("GRAPNEL_INTEGRATION", &id_of(ACME).to_string());
    let _other_worker = platform.start(&["worker"]);
    wait_until_finished(&platform, 2).await;
    assert_eq!(receiver.deliveries_to("/acme").len(), 1);
}

#[tokio::test]
async fn several_apis_and_workers_share_the_work() {
    let (mut platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let integration = acme_integration(&[destination("orders", &receiver.url("/"))]);
    let first_port = platform.http_port;
    let _running = platform.start_api_and_worker(&integration).await;
    platform.http_port = free_port();
    platform.set("GRAPNEL_HTTP_ADDR", &format!("127.0.0.1:{}", platform.http_port));
    let _more = [platform.start(&["api"]), platform.start(&["worker"])];
    platform.wait_until_accepting().await;

    // Each event is sent to both apis at once, so one of them answers that it is a duplicate.
    let second_port = platform.http_port;
    for number in 0..50 {
        let body = acme_event(&format!("e-{number}"));
        let post = async |port: u16| {
            let url = format!("http://127.0.0.1:{port}/api/v1/webhooks/acme");
            let signature = super::super::harness::sign(body.as_bytes());
            let request = platform.http.post(url).header("x-acme-signature", signature).body(body.clone());
            super::super::harness::Answer::of(request.send().await.expect("an answer")).await
        };
        let (one, other) = futures::join!(post(first_port), post(second_port));
        let mut statuses = [one.status, other.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 202], "{one:?} {other:?}");
        assert_eq!(one.event_id(), other.event_id());
    }
    wait_until_finished(&platform, 50).await;
    assert_eq!(platform.count("SELECT count(*) FROM deliveries WHERE status = 'succeeded'").await, 50);
    assert_eq!(receiver.deliveries().len(), 50);
}

#[tokio::test]
async fn message_that_is_not_ours_is_reported_and_acknowledged() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let integration = acme_integration(&[destination("orders", &receiver.url("/"))]);
    let _running = platform.start_api_and_worker(&integration).await;
    let queue = platform.orders_queue().await;
    let unknown = format!(r#"{{"v":1,"eventId":"{}"}}"#, uuid::Uuid::now_v7());
    let poison = [&b""[..], b"\xff\0", b"[]", br#"{"v":2,"eventId":"x"}"#, &[b'x'; 1_000_000]];
    let of_a_dropped_day = br#"{"v":1,"eventId":"01932f0c-0000-7000-8000-000000000000"}"#;
    let several = format!(r#"{{"v":2,"eventIds":["{0}","{0}"]}}"#, uuid::Uuid::now_v7());
    let valid = [unknown.as_bytes(), of_a_dropped_day, several.as_bytes()];
    queue.publish_all(poison.into_iter().chain(valid)).await;

    // A message with an id that does not exist has a valid form: it is not reported.
    let reported = "SELECT count(*) FROM audit_entries
        WHERE entity_type = 'integration' AND action = 'queue.message_rejected' AND actor = 'worker'";
    platform.wait_for_count(reported, 5).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 1).await;
    assert_eq!(receiver.deliveries().len(), 1);
    let path = format!("/api/v1/audit-entries?action=queue.message_rejected&entityId={}", id_of(ACME));
    let listed = platform.get(&path).await.json();
    let sizes: Vec<i64> = listed["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| entry["details"]["messageBytes"].as_i64().expect("a number"))
        .collect();
    assert_eq!(sizes.len(), 5, "{listed}");
    assert!(sizes.contains(&1_000_000) && sizes.contains(&0), "{sizes:?}");

    // Nothing is left in the queue, not even unacknowledged, which would be requeued now.
    drop(_running);
    queue.wait_until_empty().await;
}

#[tokio::test]
async fn work_for_a_removed_destination_ends_as_failed_and_is_audited() {
    let receiver = TestReceiver::answering(|_, delivery| match delivery.path.as_str() {
        "/removed" => Reply::Status(500),
        _ => Reply::Status(200),
    })
    .await;
    let platform = Platform::new().await;
    let later = "{maxAttempts: 5, initialDelaySeconds: 3600, maxDelaySeconds: 3600}";
    let kept = destination("orders", &receiver.url("/kept"));
    let removed = destination_with("billing", &receiver.url("/removed"), later, "");
    let _running = platform.start_api_and_worker(&acme_integration(&[kept.clone(), removed])).await;
    let accepted = platform.post_acme(&acme_event("e-1")).await;
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'succeeded'", 1).await;
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'retrying'", 1).await;

    platform.apply(&acme_integration(&[kept])).await;
    assert_eq!(
        delivery(&platform, "billing").await,
        ("failed".to_owned(), Some("the destination was removed".to_owned()))
    );
    let audited = format!(
        "SELECT count(*) FROM audit_entries WHERE entity_id = '{}' AND action = 'event.failed'
            AND details->>'destination' = 'billing' AND details->>'error' = 'the destination was removed'",
        accepted.event_id()
    );
    assert_eq!(platform.count(&audited).await, 1);
    assert_eq!(delivery(&platform, "orders").await.0, "succeeded");
    let event = platform.get(&format!("/api/v1/events/{}", accepted.event_id())).await.json();
    assert_eq!(event["data"]["event"]["status"], "failed");
}

/// An api that has not read the new row yet stores an event for a removed destination.
#[tokio::test]
async fn delivery_to_a_destination_after_its_removal_fails() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let integration = acme_integration(&[destination("orders", &receiver.url("/"))]);
    let _running = platform.start_api_and_worker(&integration).await;
    let accepted = platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 1).await;
    for (destination, integration) in [("removed", id_of(ACME)), ("of-a-removed-one", id_of("removed"))] {
        let insert = format!(
            "INSERT INTO deliveries (event_id, destination, integration_id, queued_at, updated_at)
            SELECT event_id, '{destination}', '{integration}', now(), now()
            FROM deliveries WHERE destination = 'orders'"
        );
        assert_eq!(platform.database.execute(&insert).await, 1);
    }
    wait_until_finished(&platform, 3).await;
    assert_eq!(
        delivery(&platform, "removed").await,
        ("failed".to_owned(), Some("the destination was removed".to_owned()))
    );
    assert_eq!(
        delivery(&platform, "of-a-removed-one").await,
        ("failed".to_owned(), Some("the integration was removed".to_owned()))
    );
    let audited = format!(
        "SELECT count(*) FROM audit_entries WHERE entity_id = '{}' AND action = 'event.failed'",
        accepted.event_id()
    );
    assert_eq!(platform.count(&audited).await, 2);
    assert_eq!(attempts(&platform, "removed").await, []);
    assert_eq!(receiver.deliveries().len(), 1);
}
