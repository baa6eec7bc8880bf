//! The dispatchers of several apis, and queues that are long or were emptied.

use std::time::Duration;

use axum::http::StatusCode;
use grapnel_core::hint;
use grapnel_testing::{TestProcess, TestQueue, WAIT_TIMEOUT, acme_event, free_port};
use tokio::time::{Instant, sleep};

use super::{BOUND, within};
use crate::harness::tally::Tally;
use crate::harness::{Platform, acme_integration, destination, insertion_of_deliveries};

/// The requeue bound of tests that set no other.
const REQUEUE_AFTER: Duration = Duration::from_secs(3);

const QUEUED: &str = "SELECT count(*) FROM deliveries WHERE queued_at IS NOT NULL";
const SUCCEEDED: &str = "SELECT count(*) FROM deliveries WHERE status = 'succeeded'";

/// Returns the messages of so many deliveries that dispatchers queue a thousand at a time.
fn messages_of(deliveries: u32) -> u32 {
    deliveries / 1_000 * 1_000_u32.div_ceil(hint::MAX_IDS.get() as u32)
}

/// Starts one more api.
fn start_another_api(platform: &mut Platform) -> TestProcess {
    platform.set("GRAPNEL_HTTP_ADDR", &format!("127.0.0.1:{}", free_port()));
    platform.start(&["api"])
}

/// Inserts events with one delivery each, whose message was lost an hour ago, or (`due`) whose time has come.
async fn insert(platform: &Platform, count: u32, due: bool) {
    let times = if due { "NULL, now()" } else { "now() - interval '1 hour', NULL" };
    platform.insert_deliveries("e", count, &format!("'pending', {times}")).await;
}

/// Returns the highest number of messages while the dispatchers look for lost ones many times.
async fn most_messages_within_two_bounds(queue: &TestQueue) -> u32 {
    let (until, mut most) = (Instant::now() + 2 * REQUEUE_AFTER, 0);
    while Instant::now() < until {
        most = most.max(queue.messages().await);
        // The interval of the readings, not a wait for a condition.
        sleep(Duration::from_millis(100)).await;
    }
    most
}

#[tokio::test]
async fn long_queue_is_not_flooded_and_its_messages_are_delivered_once() {
    const WAITING: u32 = 50_000;
    const LEFT: i64 = 10_000;
    let receiver = Tally::new(Duration::ZERO, |_| StatusCode::OK).await;
    let mut platform = Platform::new().await;
    platform
        .apply(&acme_integration(&[format!(
            "{{name: orders, url: '{}', timeoutSeconds: 10}}",
            receiver.url()
        )]))
        .await;
    insert(&platform, WAITING, false).await;
    let _apis = (platform.start(&["api"]), start_another_api(&mut platform));
    let queue = platform.orders_queue().await;
    within(WAIT_TIMEOUT, "50,000 lost messages are queued again", queue.wait_for(messages_of(WAITING))).await;
    let most = most_messages_within_two_bounds(&queue).await;
    // Some may be queued twice: a message that one api is publishing looks lost to the other.
    let expected = messages_of(WAITING);
    assert!((expected..expected + expected / 10).contains(&most), "{most} messages for {WAITING} deliveries");

    // Most of them end before their messages arrive. The others are delivered once, even if they are queued twice.
    let end_most = format!(
        "UPDATE deliveries SET status = 'succeeded', finished_at = now(), queued_at = NULL WHERE event_id NOT IN (
            SELECT event_id FROM deliveries ORDER BY md5(event_id::text) LIMIT {LEFT})"
    );
    platform.database.execute(&end_most).await;
    let _workers = (platform.start(&["worker"]), platform.start(&["worker"]));
    within(WAIT_TIMEOUT, "10,000 deliveries", platform.wait_for_count(SUCCEEDED, WAITING.into())).await;
    queue.wait_until_empty().await;
    receiver.assert_each(10_000, 1);
}

/// What a dispatcher leaves that stopped while it queued a long queue again: its oldest events have messages, though they are overdue.
#[tokio::test]
async fn what_was_queued_again_before_a_dispatcher_stopped_is_not_queued_instead_of_the_rest() {
    let platform = Platform::new().await;
    let _api = platform.start_api(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    let queue = platform.orders_queue().await;
    // As many as 200 deliveries need that are queued together.
    queue.publish_all(std::iter::repeat_n(&b"{}"[..], 200_usize.div_ceil(hint::MAX_IDS.get()))).await;
    platform.insert_deliveries("queued-again", 200, "'pending', now() - interval '1 minute', NULL").await;
    insert(&platform, 200, false).await;
    let lost = "SELECT count(*) FROM deliveries WHERE queued_at < now() - interval '10 minutes'";
    within(WAIT_TIMEOUT, "200 lost messages are queued again", platform.wait_for_count(lost, 0)).await;
    let queued_before = "SELECT count(*) FROM deliveries WHERE queued_at < now() - interval '50 seconds'";
    assert_eq!(platform.count(queued_before).await, 200);
}

/// Statements of the api and of the dispatcher that wait for a lock for longer than anybody waits for them, and are then committed.
#[tokio::test]
async fn what_postgres_commits_after_nobody_waits_for_it_is_delivered_long_before_the_requeue_bound() {
    let receiver = Tally::new(Duration::ZERO, |_| StatusCode::OK).await;
    let mut platform = Platform::new().await;
    platform.set("GRAPNEL_REQUEUE_AFTER_SECONDS", "600");
    let integration = acme_integration(&[destination("orders", &receiver.url())]);
    let _processes = platform.start_api_and_worker(&integration).await;
    assert_eq!(platform.post_acme(&acme_event("first")).await.status, 202);
    platform.wait_for_count(SUCCEEDED, 1).await;
    let mut held = platform.database.begin().await;
    held.execute("LOCK TABLE deliveries IN EXCLUSIVE MODE").await;
    held.execute(&insertion_of_deliveries("due", 5, "'pending', NULL, now() - interval '1 hour'")).await;
    assert_eq!(platform.post_acme(&acme_event("late")).await.status, 503);
    held.commit().await;
    within(BOUND, "all are delivered", platform.wait_for_count(SUCCEEDED, 7)).await;
}

#[tokio::test]
async fn due_deliveries_are_queued_once_by_two_dispatchers() {
    const DUE: u32 = 5_000;
    // Slow enough that two workers would meet at one delivery if they could, and each fails once.
    let receiver = Tally::new(Duration::from_millis(20), |request| {
        if request == 1 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
    })
    .await;
    let mut platform = Platform::new().await;
    // So late that no message in flight looks lost and changes the count.
    platform.set("GRAPNEL_REQUEUE_AFTER_SECONDS", "600");
    platform
        .apply(&acme_integration(&[format!(
            "{{name: orders, url: '{}', timeoutSeconds: 10, maxConcurrency: 32, \
             retry: {{initialDelaySeconds: 1, maxDelaySeconds: 1}}}}",
            receiver.url()
        )]))
        .await;
    let _apis = (platform.start(&["api"]), start_another_api(&mut platform));
    let queue = platform.orders_queue().await;
    insert(&platform, DUE, true).await;
    within(WAIT_TIMEOUT, "5,000 due deliveries are queued", platform.wait_for_count(QUEUED, DUE.into()))
        .await;
    let most = most_messages_within_two_bounds(&queue).await;
    assert_eq!(platform.count(QUEUED).await, i64::from(DUE));
    // Two dispatchers that take some each may take fewer than a thousand at a time.
    assert!((messages_of(DUE)..2 * messages_of(DUE)).contains(&most), "{most} messages for {DUE} deliveries");

    let _workers = (platform.start(&["worker"]), platform.start(&["worker"]));
    within(
        WAIT_TIMEOUT,
        "5,000 deliveries, each with a retry",
        platform.wait_for_count(SUCCEEDED, DUE.into()),
    )
    .await;
    receiver.assert_each(DUE as usize, 2);
    assert_eq!(platform.count("SELECT count(*) FROM delivery_attempts").await, 2 * i64::from(DUE));
}
