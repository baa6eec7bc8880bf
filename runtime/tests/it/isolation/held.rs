//! What nobody consumes waits in PostgreSQL, and comes out of it once.

use grapnel_testing::{TestReceiver, acme_event, wait_until};

use crate::harness::{GLOBEX_TOKEN, Platform, destination, integration};

const HELD: &str = "SELECT count(*) FROM deliveries
    WHERE queued_at IS NULL AND due_at = '9999-01-01 00:00:00+00' AND finished_at IS NULL";
const QUEUED: &str = "SELECT count(*) FROM deliveries WHERE queued_at IS NOT NULL";
const SUCCEEDED: &str = "SELECT count(*) FROM deliveries WHERE status = 'succeeded'";

async fn post(platform: &Platform, name: &str, count: usize) {
    for number in 0..count {
        let answer = platform.post_acme(&acme_event(&format!("e-{name}-{number}"))).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }
}

/// Inserts events of acme with a delivery whose retry is due.
async fn insert_due(platform: &Platform, count: u32) {
    platform.insert_deliveries("due", count, "'retrying', NULL, now()").await;
}

fn acme(state: &str, receiver: &TestReceiver) -> String {
    let orders = destination("orders", &receiver.url("/acme"));
    integration("acme", &format!("  state: {state}\n"), &[orders])
        + "---\n"
        + &integration("globex", "", &[destination("assets", &receiver.url("/globex"))])
}

#[tokio::test]
async fn nothing_is_published_for_a_paused_integration_and_everything_once_it_is_resumed() {
    const INSERTED: u32 = 3_000;
    const POSTED: usize = 200;
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let _running = platform.start_api_and_worker(&acme("DeliveryPaused", &receiver)).await;
    let queue = platform.queue("acme", "orders");
    post(&platform, "paused", POSTED).await;
    platform.wait_for_count(HELD, POSTED as i64).await;
    insert_due(&platform, INSERTED).await;
    let waiting = POSTED as i64 + i64::from(INSERTED);
    platform.wait_for_count(HELD, waiting).await;
    assert_eq!(queue.messages().await, 0);
    assert_eq!(platform.count("SELECT count(*) FROM deliveries WHERE queued_at IS NOT NULL").await, 0);

    // A neighbour is not behind them.
    let body = r#"{"id":"g-1","type":"t","timestamp":"2026-11-24T10:00:00Z","resource":{}}"#;
    let answer = platform.post("/api/v1/webhooks/globex", &[("x-globex-token", GLOBEX_TOKEN)], body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    platform.wait_for_count(SUCCEEDED, 1).await;
    assert!(receiver.deliveries_to("/acme").is_empty());
    // What waits is shown as waiting since then, not as scheduled for a time that never comes.
    let job = platform.get("/api/v1/events?limit=1&provider=acme").await.text;
    assert!(!job.contains("9999"), "{job}");

    platform.apply(&acme("Active", &receiver)).await;
    // One that an api stored which did not know that it was resumed.
    let late = "UPDATE deliveries SET queued_at = NULL, due_at = '9999-01-01 00:00:00+00'
        WHERE event_id = (SELECT max(event_id::text)::uuid FROM deliveries WHERE queued_at IS NULL AND finished_at IS NULL)";
    platform.database.execute(late).await;
    platform.wait_for_count(SUCCEEDED, waiting + 1).await;
    platform.wait_for_count(HELD, 0).await;
    assert_eq!(receiver.deliveries_to("/acme").len() as i64, waiting, "each once");
    assert_eq!(platform.count("SELECT count(*) FROM deliveries WHERE attempts <> 1").await, 0);
}

#[tokio::test]
async fn deliveries_to_a_removed_destination_that_were_held_end_as_failed() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let _api = platform.start_api(&acme("DeliveryPaused", &receiver)).await;
    post(&platform, "paused", 3).await;
    platform.wait_for_count(HELD, 3).await;
    // As if an api that had not read the removal had stored one more.
    let elsewhere = "UPDATE deliveries SET destination = 'removed' WHERE event_id = (
        SELECT max(event_id::text)::uuid FROM deliveries)";
    assert_eq!(platform.database.execute(elsewhere).await, 1);
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'failed'", 1).await;
    platform.wait_for_count(HELD, 2).await;
}

#[tokio::test]
async fn queue_that_nobody_consumes_stays_short_and_the_rest_is_held() {
    const LIMIT: u32 = 64;
    const EVENTS: usize = 400;
    /// The seconds in which the length of a long queue is asked for several times.
    const ASKED_AGAIN: i64 = 4;
    let (mut platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    platform.set("GRAPNEL_MAX_QUEUE_LENGTH", &LIMIT.to_string());
    let _api = platform.start_api(&acme("Active", &receiver)).await;
    let queue = platform.queue("acme", "orders");
    post(&platform, "long", EVENTS / 2).await;
    wait_until("the rest to be held", async || platform.count(HELD).await > 0).await;
    let others = platform.count(QUEUED).await;
    assert!(others <= i64::from(LIMIT), "{others} are queued");
    // Half of it is for new deliveries. Held ones fill it up, and then nothing is added, however often somebody asks for its length.
    insert_due(&platform, (EVENTS / 2) as u32).await;
    let due = "SELECT count(*) FROM deliveries WHERE due_at <= now()";
    platform.wait_for_count(due, 0).await;
    platform.wait_for_count(QUEUED, LIMIT.into()).await;
    let mut more = 0;
    let clock = "SELECT extract(epoch FROM clock_timestamp())::bigint";
    let until = platform.count(clock).await + ASKED_AGAIN;
    while platform.count(clock).await < until {
        post(&platform, &format!("more-{more}"), 1).await;
        more += 1;
    }
    assert_eq!(platform.count(QUEUED).await, i64::from(LIMIT));
    assert!((1..LIMIT).contains(&queue.messages().await), "those that were released together share messages");
    let all = EVENTS + more;

    platform.set("GRAPNEL_OPS_ADDR", "127.0.0.1:0");
    let _worker = platform.start(&["worker"]);
    platform.wait_for_count(SUCCEEDED, all as i64).await;
    assert_eq!(receiver.deliveries_to("/acme").len(), all, "each once");
}

#[tokio::test]
async fn another_api_releases_what_is_held_when_the_first_is_killed() {
    let (mut platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let (mut api, _worker) = platform.start_api_and_worker(&acme("DeliveryPaused", &receiver)).await;
    post(&platform, "paused", 20).await;
    platform.wait_for_count(HELD, 20).await;
    platform.set("GRAPNEL_HTTP_ADDR", &format!("127.0.0.1:{}", grapnel_testing::free_port()));
    let _other = platform.start(&["api"]);
    api.kill();
    platform.apply(&acme("Active", &receiver)).await;
    platform.wait_for_count(SUCCEEDED, 20).await;
    assert_eq!(receiver.deliveries_to("/acme").len(), 20, "each once");
}
