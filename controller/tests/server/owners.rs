//! The number of workers if something other than the backlog decides it: a person, or an autoscaler.

use std::time::Duration;

use grapnel_testing::{ACME_SECRET, wait_until};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::harness::{Installation, acme_spec, merged};

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_scale_sets_the_number_in_the_mode_manual() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    installation
        .apply("orders", merged(acme_spec("acme"), json!({"workers": {"scaling": {"mode": "Manual"}}})))
        .await;
    let id = installation.wait_for_condition("orders", "ScalingActive", "False", "NotAutomatic").await.id();
    installation.wait_for_replicas(id, 1).await;
    for number in [4, 0, 2] {
        installation.kubectl(&["scale", "gint", "orders", &format!("--replicas={number}")]);
        installation.wait_for_replicas(id, number).await;
    }
    wait_until("kubectl to show it", async || {
        let shown = installation.kubectl(&[
            "get",
            "gint",
            "orders",
            "-o",
            "jsonpath={.status.scaling.desiredReplicas}",
        ]);
        shown == "2"
    })
    .await;
}

/// The HorizontalPodAutoscaler of a cluster without metrics still keeps its minimum.
#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_owns_the_number_in_the_mode_external() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let external = || merged(acme_spec("acme"), json!({"workers": {"scaling": {"mode": "External"}}}));
    installation.apply("orders", external()).await;
    let id = installation.wait_for_condition("orders", "ScalingActive", "False", "NotAutomatic").await.id();
    let autoscaler: HorizontalPodAutoscaler = serde_json::from_value(json!({
        "metadata": {"name": "orders"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "grapnel.dev/v1alpha1", "kind": "Integration", "name": "orders"},
            "minReplicas": 3, "maxReplicas": 6,
        },
    }))
    .expect("an autoscaler");
    let api: Api<HorizontalPodAutoscaler> =
        Api::namespaced(installation.client.clone(), &installation.namespace);
    api.create(&PostParams::default(), &autoscaler).await.expect("create the autoscaler");
    installation.wait_for_replicas(id, 3).await;

    // Applied again, as a deployment tool does, and observed over several ticks: the number stays.
    installation.apply("orders", merged(external(), json!({"displayName": "again"}))).await;
    installation.wait_for_condition("orders", "Registered", "True", "AsDesired").await;
    let watched = std::time::Instant::now();
    while watched.elapsed() < Duration::from_secs(12) {
        assert_eq!(installation.replicas(id).await, Some(3));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
