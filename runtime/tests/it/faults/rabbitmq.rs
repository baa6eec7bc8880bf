//! RabbitMQ is stopped, killed, or loses its queues.

use std::sync::Arc;

use grapnel_testing::{Reply, TestReceiver, WAIT_TIMEOUT, acme_event, free_port, wait_until};
use tokio::sync::Semaphore;

use super::{BOUND, within};
use crate::harness::load::{Load, duplicates};
use crate::harness::{Answer, Platform, acme_integration, destination};

#[tokio::test]
async fn queues_deleted_under_load_lose_nothing() {
    let platform = Platform::new().await;
    let load = Load::new(&platform);
    let _running = platform.start_api_and_worker(&load.integration()).await;
    let queue = platform.orders_queue().await;
    let running = load.begin();
    for _ in 0..4 {
        running.delivers(100).await;
        queue.delete().await;
        within(BOUND, "deliveries continue after their queue was deleted", running.delivers(100)).await;
    }
    let report = running.end().await;
    assert_eq!(duplicates(&report), 0, "{report}");
}

#[tokio::test]
async fn queue_deleted_while_nobody_consumes_is_declared_again_at_once() {
    let (mut platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    without_requeue(&mut platform);
    let _api = platform.start_api(&acme_integration(&[destination("orders", &receiver.url("/"))])).await;
    let queue = platform.orders_queue().await;
    for round in 1..=3 {
        assert_eq!(platform.post_acme(&acme_event(&format!("e-{round}"))).await.status, 202);
        within(BOUND, "the event is in the queue", queue.wait_for(1)).await;
        queue.delete().await;
    }
    assert_eq!(platform.post_acme(&acme_event("e-4")).await.status, 202);
    within(BOUND, "the event is in the queue", queue.wait_for(1)).await;
    let _worker = platform.start(&["worker"]);
    within(BOUND, "the last event is delivered", receiver.wait_for(1)).await;
}

#[tokio::test]
async fn queue_deleted_while_deliveries_are_in_flight_is_consumed_again_at_once() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let receiver = TestReceiver::answering(move |_, _| Reply::WhenReleased(200, Arc::clone(&held))).await;
    let mut platform = Platform::new().await;
    without_requeue(&mut platform);
    let _running = platform
        .start_api_and_worker(&acme_integration(&[format!(
            "{{name: orders, url: '{}', timeoutSeconds: 60, maxConcurrency: 8}}",
            receiver.url("/")
        )]))
        .await;
    let queue = platform.orders_queue().await;
    let mut posted = 0;
    for _ in 0..5 {
        // Some in flight, some fetched by the worker and waiting for a permit, none in the queue.
        for _ in 0..12 {
            posted += 1;
            assert_eq!(platform.post_acme(&acme_event(&format!("e-{posted}"))).await.status, 202);
        }
        receiver.wait_for(posted - 4).await;
        queue.wait_until_empty().await;
        queue.delete().await;
        gate.add_permits(12);
        within(BOUND, "the deliveries that the worker had fetched are made", receiver.wait_for(posted)).await;
    }
    // The receiver holds one, and the next one does not wait for it.
    for _ in 0..2 {
        posted += 1;
        assert_eq!(platform.post_acme(&acme_event(&format!("e-{posted}"))).await.status, 202);
        within(BOUND, "the next event is delivered", receiver.wait_for(posted)).await;
        queue.delete().await;
    }
    gate.add_permits(2);
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'succeeded'", 62).await;
    assert_eq!(receiver.deliveries().len(), 62);
}

/// Disables requeuing, so that each process has to repair its own failures.
fn without_requeue(platform: &mut Platform) {
    platform.set("GRAPNEL_REQUEUE_AFTER_SECONDS", "600");
}

#[tokio::test]
async fn rabbitmq_that_restarts_or_dies_loses_nothing() {
    let platform = Platform::with_own_services().await;
    let load = Load::new(&platform);
    let mut api = platform.start_api(&load.integration()).await;
    let running = load.begin();
    running.accepts(100).await;

    // Accepted without RabbitMQ, by an api that is killed before RabbitMQ is back.
    platform.services.control("stop", "rabbitmq").await;
    running.accepts(200).await;
    api.kill();
    platform.services.control("start", "rabbitmq").await;
    let (_api, _worker) = (platform.start(&["api"]), platform.start(&["worker"]));
    within(
        WAIT_TIMEOUT,
        "the events that were accepted without RabbitMQ are delivered",
        running.delivers(300),
    )
    .await;

    platform.services.control("kill", "rabbitmq").await;
    running.accepts(200).await;
    platform.services.control("start", "rabbitmq").await;
    within(BOUND, "deliveries continue", running.delivers(200)).await;
    let report = running.end().await;
    // Without RabbitMQ no webhook is refused; the new api refused some until it knew its integrations.
    assert!(report.answers.keys().all(|status| [200, 202, 503].contains(status)), "{report}");
    assert_eq!(duplicates(&report), 0, "{report}");
}

#[tokio::test]
async fn rabbitmq_that_lacks_memory_is_reported_and_loses_nothing() {
    let mut platform = Platform::with_own_services().await;
    let ops_port = free_port();
    platform.set("GRAPNEL_OPS_ADDR", &format!("127.0.0.1:{ops_port}"));
    let load = Load::new(&platform);
    let _api = platform.start_api(&load.integration()).await;
    platform.set("GRAPNEL_OPS_ADDR", "127.0.0.1:0");
    let _worker = platform.start(&["worker"]);
    let ops = async |path: &str| {
        let answer = platform.http.get(format!("http://127.0.0.1:{ops_port}{path}")).send().await;
        Answer::of(answer.expect("an answer")).await
    };
    let is_blocked = async || ops("/metrics").await.text.contains("\ngrapnel_rabbitmq_blocked 1\n");
    let running = load.begin();
    running.delivers(200).await;

    platform.services.rabbitmqctl(["set_vm_memory_high_watermark", "0.000001"]).await;
    wait_until("health to report it", async || {
        let health = platform.get("/api/v1/health").await;
        let rabbitmq = &health.json()["data"]["checks"]["rabbitmq"];
        health.status == 503 && rabbitmq["status"] == "blocked" && rabbitmq["detail"] == "low on memory"
    })
    .await;
    assert!(is_blocked().await);
    // Webhooks are accepted all the same, so the api stays ready.
    running.accepts(200).await;
    assert_eq!(ops("/readyz").await.status, 200);

    platform.services.rabbitmqctl(["set_vm_memory_high_watermark", "0.6"]).await;
    within(BOUND, "deliveries continue", running.delivers(400)).await;
    wait_until("health to be ok", async || platform.get("/api/v1/health").await.status == 200).await;
    assert!(!is_blocked().await);
    let report = running.end().await;
    assert!(report.answers.keys().all(|status| [200, 202].contains(status)), "{report}");
    assert_eq!(duplicates(&report), 0, "{report}");
}
