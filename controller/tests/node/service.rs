//! A destination that is a Service of the cluster, in an installation that allows no private network.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::harness::cluster::delete;
use crate::harness::wait::{seconds, wait_for};
use crate::harness::{Node, SHOP};

pub(crate) async fn service(node: &Node) -> String {
    node.install_release(&["--set", "allowedDestinationCidrs=null"]);
    let target = json!({"service": {"name": "receiver", "port": 80}});
    node.apply_acme_to("service", "service", target).await;
    node.wait_until_ready("service").await;
    deliver(node, "service").await;

    // The pod that replaces the only one has another address.
    let pods = node.in_namespace::<Pod>(SHOP);
    let before = pods.list(&ListParams::default().labels("app=receiver")).await.expect("list pods");
    for pod in before {
        delete(&pods, &pod.name_any(), seconds(180)).await;
    }
    node.wait_for_rollout_in(SHOP, "receiver").await;
    deliver(node, "service-moved").await;

    node.remove("service").await;
    node.install_release(&[]);
    String::new()
}

async fn deliver(node: &Node, event: &str) {
    let id = node.post("service", &node.unique(event)).await.event_id(202);
    wait_for("a delivery to the Service", seconds(180), async || Ok(!node.received(&id).await?.is_empty()))
        .await;
}
