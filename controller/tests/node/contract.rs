//! The contract with providers and destinations, from outside.

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
    wait_for("the delivery", seconds(60), async || Ok(!node.received(&id).await?.is_empty())).await;
    wait_for("the event to be processed", seconds(60), async || {
        Ok(node.management(&format!("events/{id}/status")).await?["data"]["status"] == "processed")
    })
    .await;
    let lines = node.received(&id).await.expect("read the receiver's log");
    assert_eq!(lines.len(), 1, "exactly one delivery: {lines:?}");
    assert!(lines[0].contains("webhook-signature: v1,"), "the delivery is not signed: {}", lines[0]);
    String::new()
}
