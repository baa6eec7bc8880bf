//! The release itself: installed, tested by `helm test`, and upgraded to what it already is.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::harness::output::seconds;
use crate::harness::release::{RELEASE, chart};
use crate::harness::wait::{self, wait_for};
use crate::harness::{Node, PLATFORM, SHOP, receiver, variable};

/// From nothing to everything ready, and on to the first delivery.
pub(crate) async fn install(node: &Node) -> String {
    let started = Instant::now();
    for namespace in [PLATFORM, SHOP] {
        node.create_namespace(namespace).await;
    }
    node.install_release(&[]);
    let ready = seconds(started.elapsed());
    node.start_receiver().await;
    node.apply_acme("orders", "acme", receiver::URL).await;
    node.wait_until_ready("orders").await;
    let event = node.unique("first");
    // The api pods, which have just started, may read the new row a few seconds later.
    wait_for("the route", wait::seconds(180), async || Ok(node.post("acme", &event).await.status != 404))
        .await;
    let id = node.post("acme", &event).await.event_id(200);
    wait_for("the first delivery", wait::seconds(180), async || Ok(!node.received(&id).await?.is_empty()))
        .await;
    format!("all ready in {ready}; first delivery {} after helm install began", seconds(started.elapsed()))
}

/// `helm test` sends signed webhooks through the whole platform, and leaves nothing behind.
pub(crate) async fn helm_test(node: &Node) -> String {
    node.test_release("HELM");
    wait_for("the objects of helm test to be removed", wait::seconds(180), async || {
        let list = format!("get pods,secrets,services,integrations --namespace {PLATFORM} -o name");
        Ok(node.try_kubectl(&list, &["--selector", "app.kubernetes.io/component=test"])?.is_empty())
    })
    .await;
    String::new()
}

/// An upgrade to the same values changes nothing: no object of the chart gets a new generation or new data. And
/// `helm template` needs no cluster.
pub(crate) async fn unchanged(node: &Node) -> String {
    node.install_release(&[]);
    let before = versions(node);
    node.install_release(&[]);
    let after = versions(node);
    let changed: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(changed.is_empty(), "a second upgrade with the same values changes something: {changed:#?}");

    let mut helm = Command::new(variable("HELM"));
    helm.args(["template", RELEASE, &chart(), "--namespace", PLATFORM, "--values"]).arg(&node.values);
    helm.env_clear().env("HOME", &node.run_dir);
    let rendered = node.run_command("template", &mut helm).expect("helm template works without a cluster");
    assert!(rendered.contains("kind: Deployment"), "helm template renders no Deployment");
    format!("{} objects", before.len())
}

/// Everything that the release manages, with what shows a change.
fn versions(node: &Node) -> BTreeSet<String> {
    let kinds = "deployments,services,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets,\
        networkpolicies,jobs,secrets";
    let line = format!("get {kinds} --namespace {PLATFORM} -o json");
    let list = node.kubectl(&line, &["--selector", "app.kubernetes.io/managed-by=Helm"]);
    let list: Value = serde_json::from_str(&list).expect("kubectl prints JSON");
    let objects = list["items"].as_array().expect("a list");
    assert!(!objects.is_empty(), "the release has no objects");
    let version = |object: &Value| {
        let meta = &object["metadata"];
        format!(
            "{} {} {} {} {}",
            object["kind"], meta["name"], meta["uid"], meta["generation"], object["data"]
        )
    };
    objects.iter().map(version).collect()
}
