//! Removal in either order: objects first, or the release first. Nothing hangs, and nothing is left except the
//! definition and what is worth keeping.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::Api;

use crate::harness::cluster::delete;
use crate::harness::wait::{seconds, wait_for};
use crate::harness::{Node, PLATFORM, SHOP, receiver};

pub(crate) async fn uninstall(node: &Node) -> String {
    for name in node.integration_names().await.expect("list Integrations") {
        node.remove(&name).await;
    }
    node.apply_acme("orders", "acme", receiver::URL).await;
    node.wait_until_ready("orders").await;
    let kept = node.unique("kept");
    node.post("acme", &kept).await.expect(202);
    node.uninstall_release("HELM", &[]);
    wait_for("everything of the release to be removed", seconds(180), async || nothing_is_left(node)).await;
    check_kept(node).await;

    // Back again, with the same data and the same keys.
    node.install_release(&[]);
    node.wait_until_ready("orders").await;
    node.post("acme", &kept).await.expect(200);

    // The release goes first, and then the object, without a controller to clean up.
    node.uninstall_release("HELM", &[]);
    delete(&node.integrations(), "orders", seconds(180)).await;
    node.delete_namespaces(&[SHOP, PLATFORM], seconds(180)).await;
    String::new()
}

/// The definition, the sealing key and the Integrations outlive the release.
async fn check_kept(node: &Node) {
    let definitions: Api<CustomResourceDefinition> = Api::all(node.client.clone());
    definitions.get("integrations.grapnel.dev").await.expect("the definition is kept");
    node.in_namespace::<Secret>(PLATFORM).get("grapnel-credentials").await.expect("the sealing key is kept");
    node.integrations().get("orders").await.expect("the Integration is kept");
}

/// Whether nothing is left of the release. The controller's Lease is kept: it tells the next controller who wrote last.
fn nothing_is_left(node: &Node) -> anyhow::Result<bool> {
    let kinds = "all,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets,ingresses";
    let kept = ["configmap/kube-root-ca.crt", "serviceaccount/default", "secret/grapnel-credentials"];
    let in_platform = node.try_kubectl(&format!("get {kinds} --namespace {PLATFORM} -o name"), &[])?;
    let everywhere = node.try_kubectl(
        "get clusterroles,clusterrolebindings -o name",
        &["--selector", "app.kubernetes.io/part-of=grapnel"],
    )?;
    let left = in_platform.lines().filter(|name| !kept.contains(name)).count();
    anyhow::ensure!(left == 0 && everywhere.is_empty(), "{in_platform}{everywhere}");
    Ok(true)
}
