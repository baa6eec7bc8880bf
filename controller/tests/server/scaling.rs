//! The number of workers follows the backlog.

use std::time::Duration;

use grapnel_crds::names;
use grapnel_testing::{ACME_SECRET, wait_until};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::harness::{Installation, acme_spec, merged};

#[tokio::test(flavor = "multi_thread")]
async fn workers_follow_the_backlog_up_and_down_and_hold_when_it_is_unknown() {
    let mut installation = Installation::new().await;
    let proxy = installation.put_proxy("RABBITMQ_MANAGEMENT_URL").await;
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let scaling = json!({"workers": {"scaling": {
        "maxReplicas": 5, "targetBacklogPerReplica": 100, "cooldownSeconds": 10, "stabilizationWindowSeconds": 10,
    }}});
    installation.apply("orders", merged(acme_spec("acme"), scaling)).await;
    let id = installation.wait_until_ready("orders").await.id();
    let queue = names::queue_name(&installation.queue_prefix, id, "orders");

    // So that the first reading includes all of them.
    proxy.close();
    installation.queue(&queue).publish_all(std::iter::repeat_n(&b"{}"[..], 1000)).await;
    wait_until("RabbitMQ to report all of them", async || {
        installation.services.reported_messages(&queue).await == Some(1000)
    })
    .await;
    proxy.open();
    let up = wait_until("five workers", async || installation.replicas(id).await == Some(5)).await;
    let object = installation.wait_for_condition("orders", "ScalingActive", "True", "AtMaxReplicas").await;
    let decision = object.status.and_then(|status| status.scaling?.last_decision).expect("a decision");
    assert_eq!((decision.from, decision.to, decision.reason.as_str()), (0, 5, "Activated"));
    assert!(decision.message.contains("backlog 1000 (ready 1000, unacknowledged 0)"), "{}", decision.message);

    proxy.close();
    installation.wait_for_condition("orders", "ScalingActive", "False", "MetricUnavailable").await;
    installation.queue(&queue).purge().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(installation.replicas(id).await, Some(5), "unknown is not zero");
    proxy.open();
    let down = wait_until("no worker", async || installation.replicas(id).await == Some(0)).await;
    wait_until("the Event of the last change", async || {
        installation.event_reasons("orders").await.iter().any(|reason| reason == "ScaledToZero")
    })
    .await;
    let events = installation.event_reasons("orders").await;
    for reason in ["Activated", "MetricUnavailable", "MetricAvailable", "ScaledToZero"] {
        assert_eq!(events.iter().filter(|event| *event == reason).count(), 1, "{reason}: {events:?}");
    }
    println!("five workers after {up:?}; none {down:?} after the backlog could be read again");
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_and_states_take_precedence_over_the_backlog() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let spec = |mode: &str, state: &str| {
        merged(acme_spec("acme"), json!({"state": state, "workers": {"scaling": {"mode": mode}}}))
    };
    installation.apply("orders", spec("External", "Active")).await;
    let id = installation.wait_for_condition("orders", "Registered", "True", "AsDesired").await.id();
    installation.wait_for_replicas(id, 1).await;

    // As `kubectl scale` and autoscalers do; applying the manifest again does not undo it.
    let scale = json!({"spec": {"replicas": 3}});
    let patch = Patch::Merge(&scale);
    installation.integrations().patch_scale("orders", &PatchParams::default(), &patch).await.expect("scale");
    installation.wait_for_replicas(id, 3).await;
    installation.apply("orders", spec("External", "Active")).await;
    installation.wait_for_condition("orders", "ScalingActive", "False", "NotAutomatic").await;
    assert_eq!(installation.replicas(id).await, Some(3));

    installation.apply("orders", spec("External", "DeliveryPaused")).await;
    installation.wait_for_replicas(id, 0).await;
    installation.wait_for_condition("orders", "Ready", "True", "DeliveryPaused").await;
    installation.apply("orders", spec("External", "Active")).await;
    installation.wait_for_replicas(id, 3).await;

    // If someone scales the Deployment directly, the change is reverted.
    let name = names::worker_deployment(id);
    let scale = json!({"spec": {"replicas": 7}});
    installation
        .deployments()
        .patch_scale(&name, &PatchParams::default(), &Patch::Merge(&scale))
        .await
        .expect("scale the Deployment");
    installation.wait_for_replicas(id, 3).await;

    installation.apply("orders", spec("Auto", "Active")).await;
    installation.wait_for_condition("orders", "Registered", "True", "AsDesired").await;
    installation
        .integrations()
        .patch_scale("orders", &PatchParams::default(), &Patch::Merge(&json!({"spec": {"replicas": 9}})))
        .await
        .expect("scale");
    wait_until("the Event", async || {
        installation.event_reasons("orders").await.iter().any(|reason| reason == "ScaleIgnored")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_workers_are_not_stopped() {
    let installation = Installation::new().await;
    let controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let scaling = json!({"workers": {"scaling": {
        "targetBacklogPerReplica": 100, "cooldownSeconds": 5, "stabilizationWindowSeconds": 5,
    }}});
    installation.apply("orders", merged(acme_spec("acme"), scaling)).await;
    let id = installation.wait_until_ready("orders").await.id();
    let queue = names::queue_name(&installation.queue_prefix, id, "orders");
    installation.queue(&queue).publish_all(std::iter::repeat_n(&b"{}"[..], 300)).await;
    installation.wait_for_replicas(id, 3).await;

    // Nothing is ready any more, and everything is unacknowledged.
    let busy = installation.queue(&queue).consume(300).await;
    let gauge = "grapnel_queue_messages";
    wait_until("a reading that shows it", async || {
        controller.counter(gauge, &["\"ready\""], &[]).await == 0
            && controller.counter(gauge, &["\"unacknowledged\""], &[]).await == 300
    })
    .await;
    let watched = std::time::Instant::now();
    while watched.elapsed() < Duration::from_secs(20) {
        assert_eq!(installation.replicas(id).await, Some(3));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    busy.stop().await;
    wait_until("the messages to be back", async || installation.queue(&queue).purge().await == 300).await;
    installation.wait_for_replicas(id, 0).await;
}
