//! The dispatchers of several apis, and queues that are long or were emptied.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::{Instant, sleep};

use super::within;
use crate::harness::processes::{Process, free_port};
use crate::harness::queue::Queue;
use crate::harness::tally::Tally;
use crate::harness::{PATIENCE, Platform, acme_integration};

/// The requeue bound of these tests.
const REQUEUE_AFTER: Duration = Duration::from_secs(3);

const SUCCEEDED: &str = "SELECT count(*) FROM deliveries WHERE status = 'succeeded'";

/// An api beside the one that was started before.
fn start_another_api(platform: &mut Platform) -> Process {
    platform.set("GRAPNEL_HTTP_ADDR", &format!("127.0.0.1:{}", free_port()));
    platform.start(&["api"])
}

/// Events with one delivery each, as they are when their message was lost an hour ago, or (`due`) when their time has
/// come.
async fn insert(platform: &Platform, count: i32, due: bool) {
    let inserted = sqlx::query(
        r#"WITH stored AS (
            INSERT INTO events (id, integration_id, provider, external_event_id, event_type, occurred_at, received_at,
                correlation_id, headers, raw_body, payload_key, payload_start, payload_length, idempotency_key)
            SELECT uuidv7_now(), i.id, 'acme', 'e-' || n, 'order.created', now(), now(), 'test', '[]',
                convert_to('{"data":{}}', 'UTF8'), 'data', 8, 2, i.id || ':e-' || n
            FROM integrations i, generate_series(1, $1) n
            RETURNING id, integration_id
        )
        INSERT INTO deliveries (event_id, destination, integration_id, queued_at, due_at, updated_at)
        SELECT id, 'orders', integration_id, CASE WHEN NOT $2 THEN now() - interval '1 hour' END,
            CASE WHEN $2 THEN now() END, now()
        FROM stored"#,
    )
    .bind(count)
    .bind(due)
    .execute(&platform.pool)
    .await
    .expect("insert events");
    assert_eq!(inserted.rows_affected(), u64::try_from(count).expect("a count"));
}

/// The most messages that are there at any time while the dispatchers have looked for lost ones many times.
async fn most_messages_within_two_bounds(queue: &Queue) -> u32 {
    let (until, mut most) = (Instant::now() + 2 * REQUEUE_AFTER, 0);
    while Instant::now() < until {
        most = most.max(queue.messages().await);
        // Between two looks, not a wait for something.
        sleep(Duration::from_millis(100)).await;
    }
    most
}

#[tokio::test]
async fn long_queue_is_not_flooded_and_what_is_in_it_is_delivered_once() {
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
    insert(&platform, WAITING.cast_signed(), false).await;
    let _apis = (platform.start(&["api"]), start_another_api(&mut platform));
    let queue = Queue::of(&platform).await;
    within(PATIENCE, "50,000 lost messages are queued again", queue.wait_for(WAITING)).await;
    let most = most_messages_within_two_bounds(&queue).await;
    // Some may be queued twice: what is on its way from one api looks lost to the other.
    assert!((WAITING..WAITING + WAITING / 10).contains(&most), "{most} messages for {WAITING} deliveries");

    // Most of them end before their messages arrive, and what is left comes once, whatever is queued twice.
    sqlx::query(
        "UPDATE deliveries SET status = 'succeeded', finished_at = now(), queued_at = NULL WHERE event_id NOT IN (
            SELECT event_id FROM deliveries ORDER BY md5(event_id::text) LIMIT $1)",
    )
    .bind(LEFT)
    .execute(&platform.pool)
    .await
    .expect("end deliveries");
    let _workers = (platform.start(&["worker"]), platform.start(&["worker"]));
    within(PATIENCE, "10,000 deliveries", platform.wait_for_count(SUCCEEDED, WAITING.into())).await;
    queue.wait_for_none().await;
    receiver.assert_each(10_000, 1);
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
    // So late that the count is not blurred by messages that only look lost.
    platform.set("GRAPNEL_REQUEUE_AFTER_SECONDS", "600");
    platform
        .apply(&acme_integration(&[format!(
            "{{name: orders, url: '{}', timeoutSeconds: 10, maxConcurrency: 32, \
             retry: {{initialDelaySeconds: 1, maxDelaySeconds: 1}}}}",
            receiver.url()
        )]))
        .await;
    let _apis = (platform.start(&["api"]), start_another_api(&mut platform));
    let queue = Queue::of(&platform).await;
    insert(&platform, DUE.cast_signed(), true).await;
    within(PATIENCE, "5,000 due deliveries are queued", queue.wait_for(DUE)).await;
    assert_eq!(most_messages_within_two_bounds(&queue).await, DUE);

    let _workers = (platform.start(&["worker"]), platform.start(&["worker"]));
    within(PATIENCE, "5,000 deliveries, each with a retry", platform.wait_for_count(SUCCEEDED, DUE.into()))
        .await;
    receiver.assert_each(DUE as usize, 2);
    assert_eq!(platform.count("SELECT count(*) FROM delivery_attempts").await, 2 * i64::from(DUE));
}
