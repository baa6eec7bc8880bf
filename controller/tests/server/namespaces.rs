//! A controller that watches some namespaces does not touch the others.

use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::{IntegrationRow, RowState};
use grapnel_crds::Integration;
use grapnel_store::integrations::{self as rows, UpsertOutcome};
use grapnel_testing::{ACME_SECRET, wait_until};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Installation, access, acme_spec, has_condition, setup};

/// Applies an Integration and its Secret in a namespace.
async fn apply_in(installation: &Installation, namespace: &str, name: &str) -> Api<Integration> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "acme"}, "stringData": {"secret": ACME_SECRET},
    });
    let object = json!({
        "apiVersion": grapnel_crds::API_VERSION, "kind": grapnel_crds::KIND, "metadata": {"name": name},
        "spec": acme_spec(name),
    });
    let parameters = PatchParams::apply("kubectl").force();
    let secrets: Api<k8s_openapi::api::core::v1::Secret> =
        Api::namespaced(installation.client.clone(), namespace);
    secrets.patch("acme", &parameters, &Patch::Apply(&secret)).await.expect("apply a Secret");
    let objects: Api<Integration> = Api::namespaced(installation.client.clone(), namespace);
    objects.patch(name, &parameters, &Patch::Apply(&object)).await.expect("apply an Integration");
    objects
}

/// Returns the row of an Integration that belongs to another controller.
fn foreign_row(namespace: &str) -> IntegrationRow {
    let id = Uuid::now_v7();
    IntegrationRow {
        id: IntegrationId::new(id),
        uid: id.to_string(),
        namespace: namespace.to_owned(),
        name: "orders".to_owned(),
        generation: 1,
        writer_epoch: 0,
        provider: "acme".to_owned(),
        route: "foreign".to_owned(),
        display_name: "orders".to_owned(),
        state: RowState::Active,
        spec: "{}".to_owned(),
        secrets: vec![1],
        gone: Vec::new(),
        endpoints: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_namespaces_are_watched_and_a_third_is_left_alone() {
    let mut installation = Installation::new().await;
    let first = installation.namespace.clone();
    let (second, third) = (format!("{first}-second"), format!("{first}-third"));
    for namespace in [&second, &third] {
        setup::create_namespace(&installation.client, namespace).await;
    }
    let rules = access::rules_of_watched();
    access::bind(&installation.client, &installation.platform, Some(&second), &rules).await;
    installation.set("GRAPNEL_WATCH_NAMESPACES", &format!("{first},{second}"));
    let foreign = foreign_row(&third);
    let written = rows::upsert(&installation.db, &foreign, &[], "test").await.expect("write a row");
    assert_eq!(written, UpsertOutcome::Applied);
    let left_alone = apply_in(&installation, &third, "elsewhere").await;

    let _controller = installation.start_leader().await;
    for (namespace, name) in [(&first, "one"), (&second, "two")] {
        let objects = apply_in(&installation, namespace, name).await;
        wait_until(name, async || {
            has_condition(
                &objects.get(name).await.expect("read an Integration"),
                "Ready",
                "True",
                "AsDesired",
            )
        })
        .await;
    }

    // A watched namespace is swept; the others are not.
    installation.delete("one").await;
    let one = installation.get("one").await.map(|object| object.id());
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    installation
        .integrations()
        .patch_metadata("one", &PatchParams::default(), &release)
        .await
        .expect("release");
    let one = one.expect("it existed");
    wait_until("the row to be retired", async || {
        installation.row(one).await.is_some_and(|row| row["deleted"] == json!(true))
    })
    .await;
    let row = installation.row(foreign.id.uuid()).await.expect("the foreign row stays");
    assert_eq!(row["deleted"], json!(false));
    let object = left_alone.get("elsewhere").await.expect("read an Integration");
    assert!(object.finalizers().is_empty() && object.status.is_none());
    assert!(installation.row(object.id()).await.is_none());
}
