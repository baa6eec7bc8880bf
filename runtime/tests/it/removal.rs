//! What is removed is removed at once, however many deliveries wait: they end in the background.

use grapnel_core::hint;
use grapnel_core::ids::{EventId, IntegrationId};
use grapnel_store::integrations::{self, purge};
use grapnel_testing::{Reply, TestReceiver, TestTransaction, acme_event, wait_until};
use uuid::Uuid;

use super::harness::{Platform, destination, integration_named};

/// More than two batches.
const WAITING: i64 = 5_000;

/// Inserts events of before with a delivery each to the destination `orders`, due at once.
async fn insert_waiting(platform: &Platform, id: Uuid) {
    let insert = format!(
        "WITH event AS (
            INSERT INTO events (id, integration_id, provider, event_type, occurred_at, received_at, correlation_id, headers,
                raw_body, payload_key, payload_start, payload_length, idempotency_key)
            SELECT uuidv7_now(), '{id}', 'acme', 'old', now(), now(), '', '[]', '{{}}', 'data', 0, 2, 'k' || number
            FROM generate_series(1, {WAITING}) AS number RETURNING id
        )
        INSERT INTO deliveries (event_id, destination, integration_id, due_at, updated_at)
        SELECT id, 'orders', '{id}', now() + interval '1 hour', now() FROM event"
    );
    platform.database.execute(&insert).await;
}

async fn id_of(platform: &Platform, name: &str) -> Uuid {
    let id =
        platform.database.text(&format!("SELECT id::text FROM integrations WHERE name = '{name}'")).await;
    id.expect("an id").parse().expect("a UUID")
}

/// Locks a row, so that no removal can end its delivery: the removal is under way until the lock is released.
async fn hold_up(platform: &Platform, table: &str, id: Uuid) -> TestTransaction {
    let mut holder = platform.database.begin().await;
    let row = format!("SELECT FROM {table} WHERE integration_id = '{id}' ORDER BY 1 LIMIT 1 FOR UPDATE");
    let row = row.replace("ORDER BY 1", if table == "events" { "ORDER BY id" } else { "ORDER BY event_id" });
    holder.execute(&row).await;
    holder
}

/// Makes the deliveries due that wait for their time, but the one that is held.
async fn make_due(platform: &Platform) {
    let make_due = "UPDATE deliveries d SET due_at = now() FROM (
        SELECT event_id, destination FROM deliveries WHERE due_at > now() AND due_at < 'infinity' FOR UPDATE SKIP LOCKED
    ) AS later WHERE d.event_id = later.event_id AND d.destination = later.destination";
    wait_until("all to be due", async || {
        platform.database.execute(make_due).await;
        platform.count("SELECT count(*) FROM deliveries WHERE due_at > now() AND due_at < 'infinity'").await
            <= 1
    })
    .await;
}

fn message(event_id: &str) -> Vec<u8> {
    hint::encode(&[EventId::new(event_id.parse().expect("a UUID"))])
}

async fn two_integrations(receiver: &TestReceiver) -> (Platform, String, String) {
    let platform = Platform::new().await;
    let orders =
        [destination("orders", &receiver.url("/orders")), destination("billing", &receiver.url("/billing"))];
    let acme = integration_named("acme", "acme", "", &orders);
    let neighbour =
        integration_named("neighbour", "acme", "", &[destination("orders", &receiver.url("/neighbour"))]);
    (platform, acme, neighbour)
}

async fn post_to_neighbour(platform: &Platform, id: &str) {
    let body = acme_event(id);
    let signature = super::harness::sign(body.as_bytes());
    let answer =
        platform.post("/api/v1/webhooks/neighbour", &[("x-acme-signature", &signature)], &body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
}

const OPEN: &str = "SELECT count(*) FROM deliveries WHERE finished_at IS NULL";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_integration_is_gone_at_once_and_its_deliveries_end_later() {
    let receiver = TestReceiver::answering(|_, _| Reply::Status(200)).await;
    let (platform, acme, neighbour) = two_integrations(&receiver).await;
    platform.apply(&(acme + "---\n" + &neighbour)).await;
    let id = id_of(&platform, "acme").await;
    insert_waiting(&platform, id).await;
    let holder = hold_up(&platform, "deliveries", id).await;

    assert!(integrations::remove(&platform.db, IntegrationId::new(id), "test").await.expect("a commit"));
    let gone = format!(
        "SELECT count(*) FROM integrations WHERE id = '{id}' AND deleted_at IS NOT NULL AND secrets = ''"
    );
    assert_eq!(platform.count(&gone).await, 1, "and its secrets are gone too");
    assert_eq!(platform.count(OPEN).await, WAITING, "none has ended");

    // What becomes due is not queued, and not in the way of others.
    make_due(&platform).await;
    let (_api, _worker) = (platform.start(&["api"]), platform.start(&["worker"]));
    platform.wait_until_known("neighbour").await;
    post_to_neighbour(&platform, "e-1").await;
    receiver.wait_for(1).await;
    let put_aside = format!("{OPEN} AND integration_id = '{id}' AND due_at = 'infinity'");
    platform.wait_for_count(&put_aside, WAITING - 1).await;
    assert_eq!(
        platform.count(&format!("{OPEN} AND queued_at IS NOT NULL AND integration_id = '{id}'")).await,
        0
    );

    // An api of before that had not read the removal yet: its delivery is found as one whose message is lost.
    let late = format!(
        "INSERT INTO deliveries (event_id, destination, integration_id, queued_at, updated_at)
        VALUES (uuidv7_now(), 'orders', '{id}', now() - interval '1 hour', now())"
    );
    platform.database.execute(&late).await;
    holder.rollback().await;
    platform.wait_for_count(OPEN, 0).await;
    let audited = "SELECT count(*) FROM audit_entries WHERE action = 'event.failed'
        AND details ->> 'error' = 'the integration was removed'";
    assert_eq!(platform.count(audited).await, WAITING + 1);
    let counted = format!(
        "SELECT sum((details ->> 'count')::bigint)::bigint FROM audit_entries
        WHERE action = 'integration.deliveries_given_up' AND entity_id = '{id}'"
    );
    platform.wait_for_count(&counted, WAITING + 1).await;
    platform.wait_for_count("SELECT count(*) FROM removals", 0).await;
    assert_eq!(receiver.deliveries().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_is_added_again_gets_what_came_after_its_removal() {
    let receiver = TestReceiver::answering(|_, _| Reply::Status(200)).await;
    let (platform, acme, _) = two_integrations(&receiver).await;
    let (_api, _worker) = platform.start_api_and_worker(&acme).await;
    let id = id_of(&platform, "acme").await;
    insert_waiting(&platform, id).await;
    let holder = hold_up(&platform, "deliveries", id).await;

    let without: String = acme
        .lines()
        .filter(|line| !line.contains("name: orders,"))
        .fold(String::new(), |text, line| text + line + "\n");
    platform.apply(&without).await;
    assert_eq!(platform.count(OPEN).await, WAITING);
    platform.apply(&acme).await;
    // The messages of some of the old ones are in the queue, and others become due.
    platform
        .database
        .execute(&format!(
            "UPDATE deliveries SET queued_at = now() - interval '1 hour', due_at = NULL WHERE event_id IN
            (SELECT event_id FROM deliveries WHERE integration_id = '{id}' ORDER BY event_id DESC LIMIT 100)"
        ))
        .await;
    make_due(&platform).await;
    let queued =
        "SELECT event_id::text FROM deliveries WHERE queued_at IS NOT NULL AND destination = 'orders'";
    let messages: Vec<Vec<u8>> = platform.database.texts(queued).await.iter().map(|id| message(id)).collect();
    assert_eq!(messages.len(), 100);
    platform.orders_queue().await.publish_all(messages.iter().map(Vec::as_slice)).await;
    assert_eq!(platform.post_acme(&acme_event("new")).await.status, 202);
    receiver.wait_for(2).await;
    platform.orders_queue().await.wait_until_empty().await;
    platform.wait_for_count(&format!("{OPEN} AND due_at = 'infinity'"), WAITING - 101).await;

    holder.rollback().await;
    platform.wait_for_count(OPEN, 0).await;
    let ended = "SELECT count(*) FROM audit_entries WHERE action = 'event.failed'
        AND details ->> 'error' = 'the destination was removed'";
    assert_eq!(platform.count(ended).await, WAITING);
    assert_eq!(receiver.deliveries().len(), 2, "to both destinations, and only the new event");
    // After it, a replay of an old one goes out.
    let old = platform.database.text("SELECT min(event_id::text) FROM deliveries").await.expect("an id");
    platform.wait_for_count("SELECT count(*) FROM removals", 0).await;
    let replay = platform
        .http
        .post(platform.url(&format!("/api/v1/events/{old}/replay")))
        .header("x-internal-api-key", grapnel_testing::MANAGEMENT_KEY)
        .header("content-type", "application/json")
        .body(r#"{"reason": "because"}"#);
    assert_eq!(replay.send().await.expect("an answer").status(), 202);
    receiver.wait_for(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_is_deleted_in_the_background() {
    let receiver = TestReceiver::answering(|_, _| Reply::Status(200)).await;
    let (platform, acme, neighbour) = two_integrations(&receiver).await;
    platform.apply(&(acme + "---\n" + &neighbour)).await;
    let (id, other) = (id_of(&platform, "acme").await, id_of(&platform, "neighbour").await);
    insert_waiting(&platform, id).await;
    insert_waiting(&platform, other).await;
    let holder = hold_up(&platform, "events", id).await;
    integrations::remove(&platform.db, IntegrationId::new(id), "test").await.expect("a commit");
    purge::purge(&platform.db, IntegrationId::new(id), "test").await.expect("a record");
    let of_acme = format!("SELECT count(*) FROM events WHERE integration_id = '{id}'");
    assert_eq!(platform.count(&of_acme).await, WAITING, "the purge is recorded, and waits");

    let _api = platform.start(&["api"]);
    holder.rollback().await;
    platform.wait_for_count(&format!("SELECT count(*) FROM integrations WHERE id = '{id}'"), 0).await;
    assert_eq!(platform.count(&of_acme).await, 0);
    assert_eq!(platform.count("SELECT count(*) FROM events").await, WAITING, "those of the other one stay");
    let purged = "SELECT count(*) FROM audit_entries WHERE action = 'integration.purged' AND actor = 'test'";
    assert_eq!(platform.count(purged).await, 1);
    let left = format!("SELECT count(*) FROM audit_entries WHERE entity_id = '{id}'");
    assert_eq!(platform.count(&left).await, 1);
    assert_eq!(platform.count("SELECT count(*) FROM purges").await, 0);
}
