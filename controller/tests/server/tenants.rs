//! The bounds of a tenant: what an Integration may set of the platform's pods, and what a namespace may take.

use grapnel_crds::{conditions, names};
use grapnel_testing::{ACME_SECRET, wait_until};
use serde_json::{Value, json};

use crate::harness::{Installation, acme_spec, merged};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_platform_does_not_permit_has_no_effect_and_is_named() {
    let installation = Installation::new().await;
    let pod = "image: grapnel:test\nresources: {limits: {memory: 256Mi}}\nnodeSelector: {pool: workers}\n\
               permitted: {labels: [team], maxResources: {cpu: '1'}}\n";
    std::fs::write(installation.directory.join("worker-pod.yaml"), pod).expect("write a file");
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let workers = json!({"workers": {
        "podAnnotations": {"sidecar.istio.io/inject": "true", "sidecar.istio.io/proxyImage": "attacker/image"},
        "podLabels": {"team": "orders"},
        "priorityClassName": "system-node-critical",
        "tolerations": [{"operator": "Exists"}],
        "nodeSelector": {"node-role.kubernetes.io/control-plane": ""},
        "resources": {"requests": {"cpu": "500"}, "limits": {}},
    }});
    installation.apply("orders", merged(acme_spec("acme"), workers)).await;
    let object = installation.wait_for_condition("orders", "Restricted", "True", "NotPermitted").await;
    let ready = installation.wait_until_ready("orders").await;
    let status = object.status.as_ref().expect("a status");
    let message = &conditions::find(&status.conditions, "Restricted").expect("the condition").message;
    for field in [
        "podAnnotations[sidecar.istio.io/inject]",
        "podAnnotations[sidecar.istio.io/proxyImage]",
        "priorityClassName",
        "tolerations[0]",
        "nodeSelector[node-role.kubernetes.io/control-plane]",
        "resources.requests.cpu (at most 1)",
    ] {
        assert!(message.contains(&format!("spec.workers.{field}")), "{field} is not in: {message}");
    }
    assert!(!message.contains("podLabels"), "{message}");

    let template = pod_template(&installation, ready.id()).await;
    let annotations = template["metadata"]["annotations"].as_object().expect("annotations");
    assert!(annotations.keys().all(|key| key.starts_with("grapnel.dev/")), "{annotations:?}");
    assert_eq!(template["metadata"]["labels"]["team"], "orders");
    let spec = &template["spec"];
    assert_eq!((spec.get("priorityClassName"), spec.get("tolerations")), (None, None));
    assert_eq!(spec["nodeSelector"], json!({"pool": "workers"}));
    assert_eq!(
        spec["containers"][0]["resources"],
        json!({"requests": {"cpu": "1"}, "limits": {"memory": "256Mi"}})
    );

    // Without these fields nothing is restricted any more.
    installation.apply("orders", acme_spec("acme")).await;
    wait_for_no_restriction(&installation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_that_the_platform_shortens_is_named() {
    let mut installation = Installation::new().await;
    installation.set("GRAPNEL_MAX_RETENTION_DAYS", "30");
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let retention = |days: i32| merged(acme_spec("acme"), json!({"retention": {"days": days}}));
    installation.apply("orders", retention(31)).await;
    let object = installation.wait_for_condition("orders", "Restricted", "True", "NotPermitted").await;
    let status = object.status.as_ref().expect("a status");
    let message = &conditions::find(&status.conditions, "Restricted").expect("the condition").message;
    assert!(message.ends_with("spec.retention.days (at most 30)"), "{message}");
    installation.wait_until_ready("orders").await;

    installation.apply("orders", retention(30)).await;
    wait_for_no_restriction(&installation).await;
}

async fn wait_for_no_restriction(installation: &Installation) {
    wait_until("the condition to go", async || {
        let status = installation.get("orders").await.and_then(|object| object.status);
        status.is_some_and(|status| conditions::find(&status.conditions, "Restricted").is_none())
    })
    .await;
}

async fn pod_template(installation: &Installation, id: uuid::Uuid) -> Value {
    let deployment = installation.deployments().get(&names::worker_deployment(id)).await;
    serde_json::to_value(deployment.expect("a Deployment").spec.expect("a spec").template).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_has_places_for_its_oldest_integrations() {
    let mut installation = Installation::new().await;
    installation.set("GRAPNEL_MAX_INTEGRATIONS_PER_NAMESPACE", "2");
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    for name in ["a", "b"] {
        installation.apply(name, acme_spec(name)).await;
        installation.wait_until_ready(name).await;
    }
    installation.apply("c", acme_spec("c")).await;
    let late = installation.wait_for_condition("c", "Accepted", "False", "NamespaceLimitReached").await;
    assert!(installation.row(late.id()).await.is_none());
    assert!(installation.replicas(late.id()).await.is_none());
    // The older ones can still be changed.
    installation.apply("b", merged(acme_spec("b"), json!({"displayName": "still served"}))).await;
    installation.wait_until_ready("b").await;

    installation.delete("a").await;
    installation.wait_until_gone("a").await;
    installation.wait_until_ready("c").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_of_a_namespace_have_a_limit_together() {
    let mut installation = Installation::new().await;
    installation.set("GRAPNEL_MAX_WORKERS_PER_NAMESPACE", "3");
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let two = json!({"workers": {"scaling": {"minReplicas": 2}}, "drainTimeoutSeconds": 0});
    let older = installation.apply("a", merged(acme_spec("a"), two.clone())).await;
    installation.wait_for_replicas(older.id(), 2).await;
    let younger = installation.apply("b", merged(acme_spec("b"), two)).await;
    installation.wait_for_replicas(younger.id(), 1).await;
    installation.wait_for_condition("b", "ScalingActive", "True", "AsDesired").await;
    assert_eq!(installation.replicas(older.id()).await, Some(2));

    // The place of the older one's workers is free once it is gone.
    installation.delete("a").await;
    installation.wait_for_replicas(younger.id(), 2).await;
}
