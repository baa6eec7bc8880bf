//! The effects of apply, edit, rotation of a Secret and deletion, and how soon they show.

use std::time::{Duration, Instant};

use grapnel_crds::{conditions, names};
use grapnel_testing::{ACME_SECRET, wait_until};
use kube::ResourceExt;
use serde_json::json;

use crate::harness::{Installation, acme_spec, merged};

#[tokio::test(flavor = "multi_thread")]
async fn an_object_becomes_a_row_queues_and_workers_and_the_api_follows() {
    let installation = Installation::new().await;
    let api = installation.start_api();
    let controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;

    let applied = Instant::now();
    let object = installation.apply("orders", acme_spec("acme")).await;
    let object = { installation.wait_until_ready(&object.name_any()).await };
    let ready_after = applied.elapsed();
    let id = object.id();
    let row = installation.row(id).await.expect("a row");
    assert_eq!(
        (&row["generation"], &row["state"], &row["route"]),
        (&json!(1), &json!("Active"), &json!("acme"))
    );
    assert_eq!(installation.replicas(id).await, Some(0), "no worker is needed");
    let queue = names::queue_name(&installation.queue_prefix, id, "orders");
    assert!(installation.services.queues(&installation.queue_prefix).await.contains(&queue));
    let status = object.status.expect("a status");
    assert_eq!(
        status.route.and_then(|route| route.url).as_deref(),
        Some("https://hooks.example.com/api/v1/webhooks/acme")
    );
    for type_ in conditions::condition::ALWAYS_PRESENT {
        assert!(conditions::find(&status.conditions, type_).is_some(), "{type_}");
    }
    let accepted_after = wait_until("a webhook to be accepted", async || {
        installation.post(api.port, "acme", ACME_SECRET, "1").await == 202
    })
    .await;

    let edited = Instant::now();
    let two = json!({"destinations": [
        {"name": "orders", "url": "https://orders.example.com/hooks"},
        {"name": "audit", "url": "https://audit.example.com/hooks"},
    ]});
    installation.apply("orders", merged(acme_spec("acme"), two)).await;
    installation.wait_until_ready("orders").await;
    let edited_after = edited.elapsed();
    let row = installation.row(id).await.expect("a row");
    assert_eq!(
        (&row["generation"], row["spec"]["destinations"].as_array().map(Vec::len)),
        (&json!(2), Some(2))
    );

    let sealed = row["secrets"].clone();
    let rotated = Instant::now();
    installation.apply_secret("acme", "the-next-secret-of-acme").await;
    wait_until("the sealed secret to be replaced", async || {
        installation.row(id).await.is_some_and(|row| row["secrets"] != sealed)
    })
    .await;
    let rotated_after = rotated.elapsed();
    wait_until("the new secret to be accepted", async || {
        installation.post(api.port, "acme", "the-next-secret-of-acme", "2").await == 202
    })
    .await;
    assert_eq!(installation.post(api.port, "acme", ACME_SECRET, "3").await, 401);

    // One destination is removed again, and its queue with it.
    installation.apply("orders", acme_spec("acme")).await;
    let removed = names::queue_name(&installation.queue_prefix, id, "audit");
    wait_until("the queue of the removed destination to go", async || {
        !installation.services.queues(&installation.queue_prefix).await.contains(&removed)
    })
    .await;

    let disabled = Instant::now();
    installation.apply("orders", merged(acme_spec("acme"), json!({"state": "Disabled"}))).await;
    wait_until("webhooks to be refused", async || {
        installation.post(api.port, "acme", "the-next-secret-of-acme", "4").await == 404
    })
    .await;
    let disabled_after = disabled.elapsed();
    installation.wait_for_condition("orders", "Ready", "True", "Disabled").await;

    let deleted = Instant::now();
    installation.delete("orders").await;
    installation.wait_until_gone("orders").await;
    let gone_after = deleted.elapsed();
    assert_eq!(installation.row(id).await.expect("the row stays")["deleted"], json!(true));
    assert!(installation.replicas(id).await.is_none());
    assert!(installation.services.queues(&installation.queue_prefix).await.is_empty());
    println!(
        "ready after {ready_after:?}, accepted {accepted_after:?} later, edit {edited_after:?}, secret \
         {rotated_after:?}, disabled {disabled_after:?}, gone {gone_after:?}; {} MB",
        controller.memory_mb()
    );
    let events = installation.event_reasons("orders").await;
    assert_eq!(events.iter().filter(|reason| *reason == "Ready").count(), 1, "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_created_later_makes_it_ready() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    installation.apply("orders", acme_spec("acme")).await;
    let object =
        installation.wait_for_condition("orders", "SecretsResolved", "False", "SecretNotFound").await;
    installation.wait_for_condition("orders", "Stalled", "True", "SecretNotFound").await;
    assert!(installation.row(object.id()).await.is_none());
    installation.apply_secret("acme", ACME_SECRET).await;
    let object = installation.wait_until_ready("orders").await;
    let status = object.status.expect("a status");
    assert!(conditions::find(&status.conditions, "Stalled").is_none());

    // A working Integration continues without the Secret, and can be disabled without it.
    installation.secrets().delete("acme", &Default::default()).await.expect("delete the Secret");
    installation.wait_for_condition("orders", "Ready", "False", "SecretNotFound").await;
    assert_eq!(
        installation
            .row(object.metadata.uid.and_then(|uid| uid.parse().ok()).expect("a uid"))
            .await
            .expect("a row")["state"],
        json!("Active")
    );
    let object = installation.apply("orders", merged(acme_spec("acme"), json!({"state": "Disabled"}))).await;
    wait_until("the row to be disabled", async || {
        installation.row(object.id()).await.is_some_and(|row| row["state"] == json!("Disabled"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_while_nothing_happens() {
    let installation = Installation::new().await;
    let mut controller = installation.start_leader_in("pod-1").await;
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply("orders", acme_spec("acme")).await;
    installation.wait_until_ready("orders").await;
    installation.wait_for_condition("orders", "ScalingActive", "True", "AsDesired").await;
    let settled = controller.api_writes().await;
    let mut before = settled;
    wait_until("the last writes", async || {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = controller.api_writes().await;
        std::mem::replace(&mut before, now) == now
    })
    .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let written = controller.api_writes().await - before;
    println!("{before} writes for one object, {written} in a minute at rest");
    assert_eq!(written, 0);

    // A new process that finds nothing to change writes nothing either.
    controller.kill();
    let restarted = installation.start_leader_in("pod-1").await;
    wait_until("three ticks", async || {
        restarted.counter("grapnel_controller_scale_tick_duration_seconds_count", &[], &[]).await >= 3
    })
    .await;
    assert_eq!(restarted.api_writes().await, 0);
}
