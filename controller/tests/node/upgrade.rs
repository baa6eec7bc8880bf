//! No event is lost while everything under the traffic is replaced, deleted and restarted.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node as ClusterNode, Pod};
use kube::ResourceExt;
use kube::api::{Api, EvictParams, ListParams};

use crate::harness::cluster::{delete, wait_until_gone};
use crate::harness::database::Database;
use crate::harness::release::{RELEASE, patience};
use crate::harness::traffic::Traffic;
use crate::harness::{Node, PATIENCE, PLATFORM};

pub(crate) async fn upgrade(node: &Node) -> String {
    let traffic = Traffic::start(node, Database::Outside).await;
    traffic.disturb("helm upgrade, with a migration", async || upgrade_release(node)).await;
    traffic.disturb("helm rollback, without undoing the migration", async || roll_back(node)).await;
    traffic.disturb("controller deleted", async || node.delete_pods_of("controller").await).await;
    traffic.disturb("api pods deleted, one by one", async || delete_api_pods(node).await).await;
    traffic.disturb("worker evicted", async || evict_worker(node).await).await;
    traffic.disturb("node drained", async || drain_node(node).await).await;
    traffic.disturb("RabbitMQ restarted", async || node.services_script("restart rabbitmq")).await;
    traffic.disturb("Redis restarted", async || node.services_script("restart redis")).await;
    traffic.disturb("PostgreSQL restarted", async || node.services_script("restart postgres")).await;
    traffic.disturb("API server restarted", async || node.cluster_script("restart apiserver")).await;
    traffic.finish().await
}

/// The new images bring a migration, unless images were given that add none.
fn upgrade_release(node: &Node) {
    let tag = &node.next_tag;
    node.install_release(&["--set", &format!("images.runtime.tag={tag},images.controller.tag={tag}")]);
    if let Some(migration) = &node.next_migration {
        let newest = Database::Outside.query(node, "SELECT max(version) FROM _sqlx_migrations");
        assert_eq!(
            &newest.expect("PostgreSQL answers"),
            migration,
            "the migration of the new image is missing"
        );
    }
}

/// The older release works with the newer schema.
fn roll_back(node: &Node) {
    node.helm(&format!("rollback {RELEASE} --namespace {PLATFORM} --wait --timeout {}", patience()), &[]);
}

async fn delete_api_pods(node: &Node) {
    for pod in node.pods_of("api").await {
        delete(&node.in_namespace::<Pod>(PLATFORM), &pod.name_any(), PATIENCE).await;
        node.wait_for_rollout("grapnel-api").await;
    }
}

async fn evict_worker(node: &Node) {
    let workers = node.pods_of("worker").await;
    let name = workers.first().expect("a worker").name_any();
    let pods = node.in_namespace::<Pod>(PLATFORM);
    pods.evict(&name, &EvictParams::default()).await.expect("the worker can be evicted");
    wait_until_gone(&pods, &name, PATIENCE).await;
}

/// There is no other node to move to. So the disruption budget keeps the last ready api pod until the drain gives up, and
/// webhooks are accepted while everything else is away.
async fn drain_node(node: &Node) {
    let nodes: Api<ClusterNode> = Api::all(node.client.clone());
    let name = nodes.list(&ListParams::default()).await.expect("list nodes").items[0].name_any();
    let drain = format!("drain {name} --ignore-daemonsets --delete-emptydir-data --timeout 20s");
    let error =
        node.try_kubectl(&drain, &[]).expect_err("the drain evicted the last api pod too").to_string();
    assert!(error.contains("violate the pod's disruption budget"), "the drain failed: {error}");
    let api = node
        .in_namespace::<Deployment>(PLATFORM)
        .get("grapnel-api")
        .await
        .expect("the Deployment of the api");
    let ready = api.status.and_then(|status| status.ready_replicas);
    assert_eq!(ready, Some(1), "the budget keeps one api pod");
    node.post("acme", &node.unique("drained")).await.expect(202);
    node.kubectl(&format!("uncordon {name}"), &[]);
}
