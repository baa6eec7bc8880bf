//! Deletion: drained, given up, without backends, and abandoned.

use std::time::{Duration, Instant};

use grapnel_crds::names;
use grapnel_testing::{ACME_SECRET, wait_until};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Installation, acme_spec, merged};

/// Inserts an event of an Integration with one pending delivery.
async fn insert_delivery(installation: &Installation, id: Uuid) {
    let insert = format!(
        "WITH event AS (
            INSERT INTO events (id, integration_id, provider, event_type, occurred_at, received_at, correlation_id,
                headers, raw_body, payload_key, payload_start, payload_length, idempotency_key)
            VALUES (uuidv7_now(), '{id}', 'acme', 'order.created', now(), now(), 'c', '[]', '{{}}', 'data', 0, 2, 'k')
            RETURNING id
        )
        INSERT INTO deliveries (event_id, destination, integration_id, due_at, updated_at)
        SELECT id, 'orders', '{id}', now() + interval '1 hour', now() FROM event"
    );
    installation.database.execute(&insert).await;
}

async fn open_deliveries(installation: &Installation, id: Uuid) -> i64 {
    let open = "SELECT count(*) FROM deliveries WHERE finished_at IS NULL";
    installation.database.count(&format!("{open} AND integration_id = '{id}'")).await
}

async fn abandon(installation: &Installation, name: &str) {
    let abandon = json!({"metadata": {"annotations": {"grapnel.dev/abandon": "true"}}});
    installation
        .integrations()
        .patch(name, &PatchParams::default(), &Patch::Merge(&abandon))
        .await
        .expect("annotate");
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_waits_for_deliveries_and_then_gives_them_up() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply("orders", merged(acme_spec("acme"), json!({"drainTimeoutSeconds": 8}))).await;
    let id = installation.wait_until_ready("orders").await.id();
    insert_delivery(&installation, id).await;
    let deleted = Instant::now();
    installation.delete("orders").await;
    installation.wait_for_condition("orders", "Ready", "False", "Draining").await;
    assert_eq!(installation.row(id).await.expect("a row")["state"], json!("Draining"));
    installation.wait_until_gone("orders").await;
    let took = deleted.elapsed();
    println!("given up after {took:?} with a drain of 8 s");
    assert!(took >= Duration::from_secs(6), "{took:?}");
    assert_eq!(open_deliveries(&installation, id).await, 0);
    let events = installation.event_reasons("orders").await;
    assert!(events.iter().any(|reason| reason == "DeliveriesGivenUp"), "{events:?}");
    // Who asked for it is not known; what is known is in the details.
    let removed = "SELECT actor || ' ' || (details ->> 'lastManager') || ' ' || ((details ->> 'deletedAt')::timestamptz <= now())
        FROM audit_entries WHERE action = 'integration.removed'";
    assert_eq!(installation.database.texts(removed).await, ["controller kubectl true"]);
    let kept = installation.database.count("SELECT count(*) FROM events").await;
    assert_eq!(kept, 1, "the history is retained");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_object_is_removed_and_its_history_too_if_requested() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply("orders", merged(acme_spec("acme"), json!({"deletionPolicy": "Delete"}))).await;
    installation.apply("other", acme_spec("other")).await;
    let id = installation.wait_until_ready("orders").await.id();
    let other = installation.wait_until_ready("other").await.id();
    insert_delivery(&installation, id).await;
    insert_delivery(&installation, other).await;
    installation.delete("orders").await;
    installation.wait_for_condition("orders", "Ready", "False", "Draining").await;
    let finish = "UPDATE deliveries SET status = 'succeeded', finished_at = now(), due_at = NULL";
    installation.database.execute(&format!("{finish} WHERE integration_id = '{id}'")).await;
    installation.wait_until_gone("orders").await;
    assert!(installation.row(id).await.is_none());
    let left = installation.database.texts("SELECT integration_id::text FROM events").await;
    assert_eq!(left, [other.to_string()], "the history of another Integration is not touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_waits_neither_for_the_end_of_its_deliveries_nor_for_the_deletion_of_its_history() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let spec = json!({"deletionPolicy": "Delete", "drainTimeoutSeconds": 0});
    installation.apply("orders", merged(acme_spec("orders"), spec)).await;
    let id = installation.wait_until_ready("orders").await.id();
    insert_delivery(&installation, id).await;
    // Nothing can end the delivery as long as its row is locked.
    let mut holder = installation.database.begin().await;
    holder.execute("SELECT FROM deliveries FOR UPDATE").await;
    installation.delete("orders").await;
    installation.wait_until_gone("orders").await;
    assert_eq!(open_deliveries(&installation, id).await, 1);
    let row = installation.row(id).await.expect("the row is retired");
    assert_eq!(row["deleted"], json!(true));
    let events = installation.event_reasons("orders").await;
    assert!(events.iter().any(|reason| reason == "DeliveriesGivenUp"), "{events:?}");

    let _api = installation.start_api();
    holder.rollback().await;
    wait_until("the history to be deleted", async || installation.row(id).await.is_none()).await;
    assert_eq!(installation.database.count("SELECT count(*) FROM events").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_down_holds_up_only_objects_that_need_it() {
    let mut installation = Installation::new().await;
    let proxy = installation.put_proxy("RABBITMQ_URL").await;
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply("orders", merged(acme_spec("acme"), json!({"drainTimeoutSeconds": 0}))).await;
    installation.apply("other", merged(acme_spec("other"), json!({"drainTimeoutSeconds": 0}))).await;
    let id = installation.wait_until_ready("orders").await.id();
    installation.wait_until_ready("other").await;
    proxy.close();
    installation.delete("orders").await;
    installation.delete("other").await;
    installation.wait_for_condition("orders", "Ready", "False", "Deleting").await;
    assert_eq!(installation.row(id).await.expect("a row")["deleted"], json!(true));

    // One is abandoned, and a new one proceeds as far as it can.
    abandon(&installation, "other").await;
    installation.wait_until_gone("other").await;
    installation.apply("new", acme_spec("new")).await;
    let new = installation.wait_for_condition("new", "QueuesReady", "Unknown", "QueueUnavailable").await;
    assert!(installation.row(new.id()).await.is_some());
    assert!(installation.get("orders").await.is_some());

    proxy.open();
    let took = wait_until("the deletion to end", async || installation.get("orders").await.is_none()).await;
    installation.wait_until_ready("new").await;
    println!("gone {took:?} after RabbitMQ was back");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgresql_only_a_deletion_waits() {
    let mut installation = Installation::new().await;
    let proxy = installation.put_proxy("DATABASE_URL").await;
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let drain = json!({"drainTimeoutSeconds": 20});
    for name in ["orders", "other", "third"] {
        installation.apply(name, merged(acme_spec(name), drain.clone())).await;
    }
    let id = installation.wait_until_ready("orders").await.id();
    let other = installation.wait_until_ready("other").await.id();
    let third = installation.wait_until_ready("third").await.id();
    proxy.close();
    installation.delete("orders").await;
    installation.wait_for_condition("orders", "Ready", "False", "Deleting").await;
    let message = installation.kubectl(&[
        "get",
        "gint",
        "orders",
        "-o",
        "jsonpath={.status.conditions[?(@.type=='Ready')].message}",
    ]);
    assert!(message.contains("waiting for PostgreSQL"), "{message}");

    // One is abandoned, and the workers of another one still follow its backlog.
    installation.delete("other").await;
    abandon(&installation, "other").await;
    installation.wait_until_gone("other").await;
    assert!(installation.replicas(other).await.is_none());
    let queue = names::queue_name(&installation.queue_prefix, third, "orders");
    installation.queue(&queue).publish_all(std::iter::repeat_n(&b"{}"[..], 150)).await;
    installation.wait_for_replicas(third, 2).await;
    assert!(installation.get("orders").await.is_some());

    proxy.open();
    let took = wait_until("the deletion to end", async || installation.get("orders").await.is_none()).await;
    println!("gone {took:?} after PostgreSQL was back");
    assert_eq!(installation.row(id).await.expect("the row stays")["deleted"], json!(true));
}
