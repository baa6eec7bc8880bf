//! `uninstall` removes the workers and the finalizers, and leaves the rest.

use grapnel_crds::ReplayPhase;
use grapnel_testing::{ACME_SECRET, wait_until};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::replays::failed_spec;
use crate::harness::{Installation, acme_spec};

const CONTROLLER: &str = "grapnel-controller";

/// Creates a Deployment in the platform's namespace that is not one of the controller's.
async fn create_deployment(installation: &Installation, name: &str) {
    let labels = json!({"app": name});
    let deployment: Value = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "grapnel:test"}]},
            },
        },
    });
    let parameters = PatchParams::apply("helm");
    installation
        .deployments()
        .patch(name, &parameters, &Patch::Apply(&deployment))
        .await
        .expect("a Deployment");
}

async fn deployments(installation: &Installation) -> Vec<String> {
    let found = installation.deployments().list(&Default::default()).await.expect("list Deployments");
    found.items.iter().map(ResourceExt::name_any).collect()
}

async fn finalizers(installation: &Installation, name: &str) -> Vec<String> {
    installation.get(name).await.expect("the object stays").finalizers().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstall_leaves_objects_that_can_be_deleted_and_a_new_installation_continues_with_them() {
    let installation = Installation::new().await;
    let mut controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    for name in ["orders", "shared"] {
        installation.apply(name, acme_spec(name)).await;
        installation.wait_until_ready(name).await;
    }
    installation.apply_replay("outage", &failed_spec("of-nobody")).await;
    installation.wait_for_replay("outage", ReplayPhase::Pending, "IntegrationNotFound").await;
    let foreign = "example.com/mine";
    let mut both = finalizers(&installation, "shared").await;
    both.push(foreign.to_owned());
    let patch = Patch::Merge(json!({"metadata": {"finalizers": both}}));
    installation
        .integrations()
        .patch_metadata("shared", &Default::default(), &patch)
        .await
        .expect("a finalizer");
    for name in [CONTROLLER, "of-someone-else"] {
        create_deployment(&installation, name).await;
    }
    assert_eq!(deployments(&installation).await.len(), 4);
    let id = installation.get("orders").await.expect("the object").id();
    let row = installation.row(id).await.expect("a row");

    // Its Deployment is deleted in the foreground, which stops the process.
    controller.signal("TERM");
    assert!(controller.wait().await.success());
    for _ in ["first", "once more"] {
        installation.run(CONTROLLER, &["uninstall", "--controller-deployment", CONTROLLER]).await;
        wait_until("the Deployments to go", async || deployments(&installation).await == ["of-someone-else"])
            .await;
        assert_eq!(finalizers(&installation, "orders").await, Vec::<String>::new());
        assert_eq!(finalizers(&installation, "shared").await, [foreign]);
        let replay = installation.replay("outage").await.expect("the object stays");
        assert_eq!(replay.finalizers(), Vec::<String>::new());
        assert_eq!(installation.row(id).await.expect("the row stays"), row);
    }

    let _controller = installation.start_leader().await;
    wait_until("the workers to be back", async || deployments(&installation).await.len() == 3).await;
    wait_until("the finalizer to be back", async || finalizers(&installation, "orders").await.len() == 1)
        .await;
    assert_eq!(installation.get("orders").await.expect("the object").id(), id);
    installation.wait_until_ready("orders").await;

    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    installation
        .integrations()
        .patch_metadata("shared", &Default::default(), &release)
        .await
        .expect("release");
}
