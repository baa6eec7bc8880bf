//! Datastores that the chart brings as pods, for a first try. Their data outlives the pods and the release. The Helm here
//! is the older one.

use std::os::unix::fs::chown;
use std::time::Instant;

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::Api;
use serde_json::{Value, json};

use crate::harness::cluster::{apply, delete};
use crate::harness::database::Database;
use crate::harness::output;
use crate::harness::release::{RELEASE, chart};
use crate::harness::traffic::Traffic;
use crate::harness::wait::seconds;
use crate::harness::{Node, PLATFORM, SHOP};

/// The variable that names the older Helm.
const HELM3: &str = "HELM3";
/// The datastores that keep data.
const STORES: [&str; 2] = ["postgres", "rabbitmq"];
/// The user that the images of the datastores run as.
const DATASTORE_USER: u32 = 999;

pub(crate) async fn bundled(node: &Node) -> String {
    start_from_nothing(node).await;
    let started = Instant::now();
    deploy(node, "install");
    let version = node.helm_of(HELM3, "version --template {{.Version}}", &[]);
    let all_ready =
        format!("all ready in {} with Helm {}", output::seconds(started.elapsed()), version.trim());
    node.test_release(HELM3);
    let sealing_keys = sealing_keys(node).await;

    let traffic = Traffic::start(node, Database::Bundled).await;
    traffic.disturb("helm upgrade", async || deploy(node, "upgrade")).await;
    assert_eq!(self::sealing_keys(node).await, sealing_keys, "an upgrade keeps the credentials");
    traffic.disturb("RabbitMQ's pod deleted", async || replace_datastore(node, "rabbitmq").await).await;
    traffic.disturb("Redis' pod deleted", async || replace_datastore(node, "redis").await).await;
    traffic.disturb("PostgreSQL's pod deleted", async || replace_datastore(node, "postgres").await).await;
    let ledger = traffic.finish().await;

    node.uninstall_release(HELM3, &[]);
    deploy(node, "install");
    assert_eq!(
        self::sealing_keys(node).await,
        sealing_keys,
        "a new release uses the sealing key of the data"
    );
    node.test_release(HELM3);
    node.uninstall_release(HELM3, &[]);
    node.delete_namespaces(&[SHOP, PLATFORM], seconds(180)).await;
    format!("{all_ready}; {ledger}")
}

/// Removes what earlier cases have left: one controller serves the whole cluster, and new credentials need new data.
async fn start_from_nothing(node: &Node) {
    node.uninstall_release("HELM", &["--ignore-not-found"]);
    node.delete_namespaces(&[SHOP, PLATFORM], seconds(180)).await;
    for store in STORES {
        delete(&volumes(node), &volume_name(store), seconds(180)).await;
    }
    if node.volumes.exists() {
        std::fs::remove_dir_all(&node.volumes).expect("remove the volumes");
    }
    for namespace in [PLATFORM, SHOP] {
        node.create_namespace(namespace).await;
    }
    for store in STORES {
        create_volume(node, store).await;
    }
}

fn volumes(node: &Node) -> Api<PersistentVolume> {
    Api::all(node.client.clone())
}

fn volume_name(store: &str) -> String {
    format!("{PLATFORM}-{store}")
}

/// A folder of this machine as a volume, since nothing provisions volumes here.
async fn create_volume(node: &Node, store: &str) {
    let folder = node.volumes.join(store);
    std::fs::create_dir_all(&folder).expect("create a folder");
    chown(&folder, Some(DATASTORE_USER), Some(DATASTORE_USER)).expect("change the owner, as root");
    let volume: Value = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume_name(store)},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "10Gi"},
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": PLATFORM, "name": format!("data-{RELEASE}-{store}-0")},
            "hostPath": {"path": folder, "type": "Directory"},
        },
    });
    apply(&volumes(node), &volume).await;
}

/// Installs or upgrades the release. The definition may be there already, from a release of an earlier case.
fn deploy(node: &Node, command: &str) {
    let values = node.bundled_values.to_str().expect("a path in UTF-8");
    let line = format!("{command} {RELEASE} --namespace {PLATFORM} --take-ownership --wait --timeout 240s");
    node.helm_of(HELM3, &line, &[&chart(), "--values", values]);
}

async fn sealing_keys(node: &Node) -> String {
    node.credential("sealing-keys").await.expect("the credentials of the platform")
}

/// Deletes the pod of a datastore and waits for its successor.
async fn replace_datastore(node: &Node, store: &str) {
    node.delete_pods_of(store).await;
    node.wait_for_stateful_rollout(&format!("grapnel-{store}")).await;
}
