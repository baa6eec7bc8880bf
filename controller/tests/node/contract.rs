//! The contract with providers and destinations, from outside.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::harness::wait::{seconds, wait_for};
use crate::harness::{Node, PATIENCE, SHOP, checkout, variable};

/// The examples of this repository work as they are, applied as a user applies them. Only a route differs, since
/// `orders` of the first case has that of an example.
pub(crate) async fn examples(node: &Node) -> String {
    let mut files: Vec<_> = std::fs::read_dir(checkout("examples"))
        .expect("the folder of examples")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "there are no examples");
    for file in &files {
        let example = std::fs::read_to_string(file).expect("read an example");
        apply_as_user(&example.replace("route: acme ", "route: acme-example "));
    }
    let names = node.integration_names().await.expect("list Integrations");
    assert!(names.len() > files.len(), "one Integration for each example, and the first one");
    for name in &names {
        node.wait_until_ready(name).await;
    }
    for file in &files {
        let file = file.to_str().expect("a path in UTF-8");
        node.kubectl(&format!("delete --namespace {SHOP} --wait=false -f"), &[file]);
    }
    wait_for("the examples to be removed", PATIENCE, async || {
        Ok(node.integration_names().await? == ["orders"])
    })
    .await;
    format!("{} Integrations ready", names.len())
}

/// A Replay is accepted, ends, and goes when its time is over.
pub(crate) async fn replay(node: &Node) -> String {
    let after = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    apply_as_user(&format!(
        "{{apiVersion: grapnel.dev/v1alpha1, kind: Replay, metadata: {{name: outage}}, spec: {{integrationRef: {{name: orders}},
            select: Failed, receivedAfter: '{after:.0}', reason: a receiver was down}}}}"
    ));
    node.kubectl(
        &format!("wait --namespace {SHOP} --for=condition=Complete --timeout=60s greplay/outage"),
        &[],
    );
    let patch = r#"{"spec":{"ttlSecondsAfterFinished":0}}"#;
    node.kubectl(&format!("patch --namespace {SHOP} greplay/outage --type=merge"), &["-p", patch]);
    wait_for("the Replay to be gone", PATIENCE, async || {
        Ok(node.try_kubectl(&format!("get greplay --namespace {SHOP} -o name"), &[])?.is_empty())
    })
    .await;
    "completed and gone".to_owned()
}

/// The Service of the api has no management route and no console for anybody, not even with the key.
pub(crate) async fn public_port(node: &Node) -> String {
    let public = node.described(&node.api).await;
    let names: BTreeSet<&str> = public.iter().map(|(_, path)| path.as_str()).collect();
    assert_eq!(names, ["/api/v1/health", "/api/v1/webhooks/{route}"].into());
    let managed = node.described(&node.management).await;
    let managed: Vec<_> = managed.difference(&public).cloned().collect();
    assert!(managed.len() >= 20, "the management port describes {managed:?}");
    let pages = ["/console", "/console/", "/console/log-in", "/metrics", "/readyz"];
    let pages = pages.map(|path| ("GET".to_owned(), path.to_owned()));
    let key = node.credential("management-key").await.expect("the management key");
    for (method, path) in managed.iter().chain(&pages) {
        let path = path.replace("{id}", "019a8c1e-7f6b-7d3a-9c51-2f0e4b6d8a90");
        let status = node.ask(&node.api, method, &path, &key).await;
        assert_eq!(status, 404, "{method} {path} at the Service of the api");
    }
    // So these are not 404 because they are wrong.
    for path in ["/api/v1/events", "/console/log-in"] {
        assert_eq!(
            node.ask(&node.management, "GET", path, &key).await,
            200,
            "{path} at the management Service"
        );
    }
    format!("{} management routes are 404", managed.len())
}

fn apply_as_user(text: &str) {
    let mut kubectl = Command::new(variable("KUBECTL"))
        .args(["apply", "--request-timeout", "30s", "--namespace", SHOP, "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("kubectl starts");
    kubectl.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("kubectl reads");
    assert!(kubectl.wait().expect("kubectl ends").success(), "kubectl apply failed");
}

/// A webhook is accepted once, and delivered once with a signature. Forged ones and those of unknown routes are refused.
pub(crate) async fn webhook(node: &Node) -> String {
    let event = node.unique("contract");
    let id = node.post("acme", &event).await.event_id(202);
    assert_eq!(node.post("acme", &event).await.event_id(200), id, "a repeat has the id of the first");
    node.post_signed("acme", &node.unique("forged"), "wrong-secret").await.expect(401);
    node.post("nowhere", &node.unique("lost")).await.expect(404);
    wait_for("the delivery", seconds(180), async || Ok(!node.received(&id).await?.is_empty())).await;
    wait_for("the event to be processed", seconds(180), async || {
        Ok(node.management(&format!("events/{id}/status")).await?["data"]["status"] == "processed")
    })
    .await;
    let lines = node.received(&id).await.expect("read the receiver's log");
    assert_eq!(lines.len(), 1, "exactly one delivery: {lines:?}");
    assert!(lines[0].contains("webhook-signature: v1,"), "the delivery is not signed: {}", lines[0]);
    String::new()
}
