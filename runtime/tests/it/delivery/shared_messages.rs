//! Messages that name several deliveries.

use grapnel_core::hint;
use grapnel_core::ids::{EventId, IntegrationId};
use grapnel_crds::names::integration_id;
use grapnel_store::deliveries::{self, DeliveryQueue};
use grapnel_testing::{Reply, TestReceiver, acme_event, wait_until};

use crate::harness::{Platform, acme_integration, destination};

const SUCCEEDED: &str = "SELECT count(*) FROM deliveries WHERE status = 'succeeded'";
const QUEUED: &str = "SELECT count(*) FROM deliveries WHERE queued_at IS NOT NULL";
const DUE: u32 = 160;

/// Inserts queued deliveries, and publishes one message for all of them.
async fn publish_together(platform: &Platform, count: u32) {
    platform.insert_deliveries("e", count, "'pending', now(), NULL").await;
    let ids = platform.database.texts("SELECT event_id::text FROM deliveries ORDER BY event_id").await;
    let ids: Vec<EventId> = ids.iter().map(|id| id.parse().expect("an id")).collect();
    platform.orders_queue().await.publish_all([&hint::encode(&ids)[..]]).await;
}

/// Returns the number of requests for each event, in ascending order.
fn requests_of_each(receiver: &TestReceiver) -> Vec<usize> {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for delivery in receiver.deliveries() {
        *counts.entry(delivery.header("webhook-id").to_owned()).or_default() += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    counts
}

#[tokio::test]
async fn slow_delivery_holds_up_no_other_of_its_message_and_none_that_comes_later() {
    let receiver =
        TestReceiver::answering(|request, _| if request == 1 { Reply::Hang } else { Reply::Status(200) })
            .await;
    let platform = Platform::new().await;
    let narrow = acme_integration(&[format!(
        "{{name: orders, url: '{}', timeoutSeconds: 5, maxConcurrency: 2, retry: {{initialDelaySeconds: 1}}}}",
        receiver.url("/")
    )]);
    let (_api, worker) = platform.start_api_and_worker(&narrow).await;
    publish_together(&platform, 16).await;
    platform.wait_for_count(SUCCEEDED, 15).await;
    for number in 0..10 {
        assert_eq!(platform.post_acme(&acme_event(&format!("later-{number}"))).await.status, 202);
    }
    platform.wait_for_count(SUCCEEDED, 25).await;
    assert_eq!(platform.count("SELECT count(*) FROM deliveries WHERE lease_id IS NOT NULL").await, 1);

    // The hanging one fails, is tried again, and its message is acknowledged: nothing comes back when the worker ends.
    platform.wait_for_count(SUCCEEDED, 26).await;
    drop(worker);
    platform.orders_queue().await.wait_until_empty().await;
    let mut expected = [1; 26];
    expected[25] = 2;
    assert_eq!(requests_of_each(&receiver), expected);
}

#[tokio::test]
async fn killed_worker_repeats_only_what_was_under_way_of_a_message() {
    let receiver =
        TestReceiver::answering(|request, _| if request <= 2 { Reply::Hang } else { Reply::Status(200) })
            .await;
    let platform = Platform::new().await;
    let narrow = acme_integration(&[format!(
        "{{name: orders, url: '{}', timeoutSeconds: 5, maxConcurrency: 4}}",
        receiver.url("/")
    )]);
    let (_api, mut worker) = platform.start_api_and_worker(&narrow).await;
    publish_together(&platform, 16).await;
    platform.wait_for_count(SUCCEEDED, 14).await;
    worker.kill();
    let _other = platform.start(&["worker"]);
    platform.wait_for_count(SUCCEEDED, 16).await;
    let mut expected = [1; 16];
    expected[14..].fill(2);
    assert_eq!(requests_of_each(&receiver), expected);
}

#[tokio::test]
async fn stopped_worker_leaves_what_it_has_not_started_to_another() {
    let receiver =
        TestReceiver::answering(|request, _| if request <= 2 { Reply::Hang } else { Reply::Status(200) })
            .await;
    let platform = Platform::new().await;
    let narrow = acme_integration(&[format!(
        "{{name: orders, url: '{}', timeoutSeconds: 10, maxConcurrency: 2, retry: {{initialDelaySeconds: 1}}}}",
        receiver.url("/")
    )]);
    let (_api, worker) = platform.start_api_and_worker(&narrow).await;
    publish_together(&platform, 16).await;
    receiver.wait_for(2).await;
    worker.signal("TERM");
    let _other = platform.start(&["worker"]);
    platform.wait_for_count(SUCCEEDED, 14).await;
    let under_way = "SELECT count(*) FROM deliveries WHERE lease_until > now() AND attempts = 0";
    assert_eq!(platform.count(under_way).await, 2, "the others did not wait for them");
    platform.wait_for_count(SUCCEEDED, 16).await;
}

#[tokio::test]
async fn messages_are_shared_only_while_every_live_worker_reads_them() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    platform.apply(&acme_integration(&[destination("orders", &receiver.url("/"))])).await;
    platform.insert_older_worker(1).await;
    let _api = platform.start(&["api"]);
    let queue = platform.orders_queue().await;
    platform.insert_deliveries("e", DUE, "'retrying', NULL, now()").await;
    queue.wait_for(DUE).await;

    // The older worker is gone.
    platform.database.execute("DELETE FROM worker_heartbeats").await;
    let mut rounds = 0;
    wait_until("messages to be shared", async || {
        rounds += 1;
        queue.purge().await;
        platform.insert_deliveries(&format!("r{rounds}"), DUE, "'retrying', NULL, now()").await;
        platform.wait_for_count(QUEUED, i64::from(DUE) * (rounds + 1)).await;
        queue.wait_for(1).await;
        queue.messages().await <= DUE / 2
    })
    .await;
}

#[tokio::test]
async fn lost_messages_are_found_by_their_deliveries() {
    const LOST: u32 = 100;
    let (mut platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    platform.set("GRAPNEL_REQUEUE_AFTER_SECONDS", "6");
    platform.apply(&acme_integration(&[destination("orders", &receiver.url("/"))])).await;
    platform.insert_deliveries("first", LOST, "'pending', now() - interval '1 hour', NULL").await;
    let _api = platform.start(&["api"]);
    let (queue, messages) = (platform.orders_queue().await, LOST.div_ceil(hint::MAX_IDS.get() as u32));
    queue.wait_for(messages).await;

    // There are fewer messages than deliveries all the time, and only these have none.
    platform.insert_deliveries("lost", LOST, "'pending', now() - interval '1 hour', NULL").await;
    queue.wait_for(2 * messages).await;
    assert_eq!(queue.messages().await, 2 * messages);
    // What the scaler counts.
    let integration_id = IntegrationId::new(integration_id(None, "test", "acme"));
    let its_queue = DeliveryQueue { integration_id, destination: "orders".to_owned() };
    for (most, counted) in [(1_000, 2 * u64::from(LOST)), (150, 150)] {
        let counts = deliveries::queued_counts(&platform.db, std::slice::from_ref(&its_queue), most).await;
        assert_eq!(counts.expect("a count"), [(its_queue.clone(), counted)]);
    }
    let _worker = platform.start(&["worker"]);
    platform.wait_for_count(SUCCEEDED, 2 * i64::from(LOST)).await;
    assert_eq!(requests_of_each(&receiver), vec![1; 2 * LOST as usize]);
}
