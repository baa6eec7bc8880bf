//! Tests that affect the whole cluster: its API server, the resource definition, and objects of another definition.

use grapnel_crds::Integration;
use grapnel_testing::{ACME_SECRET, wait_until};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::{Installation, acme_spec, merged, setup, variable};

/// Runs a command of the script that manages the cluster.
fn cluster(arguments: &[&str]) {
    let script = variable("GRAPNEL_CLUSTER");
    let mut command = std::process::Command::new(script);
    let output = command
        .args(["--state", &variable("GRAPNEL_CLUSTER_STATE")])
        .args(arguments)
        .output()
        .expect("the script starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_recovers_from_a_killed_api_server() {
    let installation = Installation::of_the_cluster().await;
    let api = installation.start_api();
    let mut controller = installation.start_leader_in("pod-1").await;
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply("orders", acme_spec("acme")).await;
    installation.wait_until_ready("orders").await;
    wait_until("the api to know it", async || {
        installation.post(api.port, "acme", ACME_SECRET, "1").await == 202
    })
    .await;
    cluster(&["kill", "apiserver"]);
    assert_eq!(
        installation.post(api.port, "acme", ACME_SECRET, "2").await,
        202,
        "the data plane keeps running"
    );
    cluster(&["start", "apiserver"]);
    let came_back = std::time::Instant::now();
    installation.apply("new", acme_spec("new")).await;
    installation.apply("orders", merged(acme_spec("acme"), json!({"displayName": "later"}))).await;
    for name in ["new", "orders"] {
        wait_until(name, async || {
            // A controller that could not renew its Lease for too long exits, and its container is restarted.
            if !controller.is_running() {
                controller = installation.start_controller_in("pod-1");
            }
            let found = installation.get(name).await;
            found.is_some_and(|object| crate::harness::has_condition(&object, "Ready", "True", "AsDesired"))
        })
        .await;
    }
    println!("both ready {:?} after the API server was back", came_back.elapsed());
    // No worker delivers the accepted webhooks.
    installation.delete("orders").await;
    installation.wait_for_condition("orders", "Ready", "False", "Draining").await;
    assert_eq!(
        installation.row(installation.get("orders").await.expect("it drains").id()).await.expect("a row")["state"],
        json!("Draining")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_waits_for_the_definition_of_its_resource() {
    let installation = Installation::of_the_cluster().await;
    setup::remove_crd(&installation.client).await;
    let controller = installation.start_controller();
    wait_until("it to log that the definition is missing", async || {
        controller.log().contains("is not installed")
    })
    .await;
    assert_eq!((controller.probe("/livez").await, controller.probe("/readyz").await), (200, 503));
    assert_eq!(controller.counter("grapnel_controller_crd_missing", &[], &[]).await, 1);
    setup::install_crd(&installation.client).await;
    wait_until("it to be ready", async || controller.leads() && controller.probe("/readyz").await == 200)
        .await;
    assert_eq!(controller.counter("grapnel_controller_crd_missing", &[], &[]).await, 0);
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply("orders", acme_spec("acme")).await;
    installation.wait_until_ready("orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_definition_cleans_up_its_objects_and_does_not_stop_the_controller() {
    let installation = Installation::of_the_cluster().await;
    let api = installation.start_api();
    let mut controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply("orders", acme_spec("acme")).await;
    let first = installation.wait_until_ready("orders").await.id();
    // The API server deletes every object with it, and waits for their finalizers.
    setup::remove_crd(&installation.client).await;
    assert_eq!(installation.row(first).await.expect("the row stays")["deleted"], json!(true));
    wait_until("the workers to go", async || installation.replicas(first).await.is_none()).await;
    wait_until("it to be noticed", async || {
        controller.counter("grapnel_controller_crd_missing", &[], &[]).await == 1
    })
    .await;
    assert!(controller.is_running(), "{}", controller.log());
    assert_eq!(controller.probe("/livez").await, 200);

    setup::install_crd(&installation.client).await;
    installation.apply("orders", acme_spec("acme")).await;
    let again = installation.wait_until_ready("orders").await.id();
    assert_ne!(again, first);
    wait_until("the api to know it", async || {
        installation.post(api.port, "acme", ACME_SECRET, "1").await == 202
    })
    .await;
    wait_until("it to be noticed", async || {
        controller.counter("grapnel_controller_crd_missing", &[], &[]).await == 0
    })
    .await;
    assert!(controller.is_running(), "{}", controller.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_workers_stay_while_the_definition_is_missing() {
    let installation = Installation::of_the_cluster().await;
    let api = installation.start_api();
    let mut controller = installation.start_leader_in("pod-1").await;
    installation.apply_secret("acme", ACME_SECRET).await;
    for name in ["orders", "others"] {
        installation.apply(name, acme_spec(name)).await;
    }
    let orders = installation.wait_until_ready("orders").await.id();
    let others = installation.wait_until_ready("others").await.id();
    wait_until("the api to know them", async || {
        installation.post(api.port, "orders", ACME_SECRET, "0").await == 202
    })
    .await;
    // Without any cleanup, as when a cluster is restored from a backup.
    controller.kill();
    setup::remove_all_objects(&installation.client).await;
    setup::remove_crd(&installation.client).await;
    let controller = installation.start_controller_in("pod-1");
    wait_until("it to log that the definition is missing", async || {
        controller.log().contains("is not installed")
    })
    .await;
    for id in [orders, others] {
        assert_eq!(installation.row(id).await.expect("a row")["deleted"], json!(false));
        assert!(installation.replicas(id).await.is_some());
    }
    assert_eq!(
        installation.post(api.port, "orders", ACME_SECRET, "1").await,
        202,
        "the data plane keeps running"
    );

    // An object that is created again takes its route over; the leftovers of the others are removed.
    setup::install_crd(&installation.client).await;
    installation.apply("orders", acme_spec("orders")).await;
    assert_ne!(installation.wait_until_ready("orders").await.id(), orders);
    for id in [orders, others] {
        wait_until("the row and the workers of the old object to be removed", async || {
            let row = installation.row(id).await.expect("a row");
            row["deleted"] == json!(true) && installation.replicas(id).await.is_none()
        })
        .await;
    }
    wait_until("the api to know it", async || {
        installation.post(api.port, "orders", ACME_SECRET, "2").await == 202
    })
    .await;
}

/// Applies a definition that accepts any spec, as one of another version may.
async fn loosen_definition(installation: &Installation) {
    let mut definition = serde_json::to_value(grapnel_crds::crd()).expect("JSON");
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"] = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    schema.as_object_mut().expect("an object").remove("x-kubernetes-validations");
    let version = definition["spec"]["versions"][0].as_object_mut().expect("a version");
    version.remove("selectableFields");
    let api: Api<CustomResourceDefinition> = Api::all(installation.client.clone());
    let name = grapnel_crds::crd().name_any();
    api.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&definition))
        .await
        .expect("loosen the definition");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_decoded_is_reported_and_does_not_stop_the_others() {
    let installation = Installation::of_the_cluster().await;
    loosen_definition(&installation).await;
    let resource = ApiResource::erase::<Integration>(&());
    let objects: Api<DynamicObject> =
        Api::namespaced_with(installation.client.clone(), &installation.namespace, &resource);
    let strange = json!({
        "apiVersion": grapnel_crds::API_VERSION, "kind": grapnel_crds::KIND, "metadata": {"name": "strange"},
        "spec": {"provider": {"is": "not a string"}, "destinations": 7},
    });
    let parameters = PatchParams::apply("kubectl");
    wait_until("the loose definition to be in force", async || {
        objects.patch("strange", &parameters, &Patch::Apply(&strange)).await.is_ok()
    })
    .await;
    let controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply("orders", acme_spec("acme")).await;
    installation.wait_until_ready("orders").await;

    let condition = async |type_: &str| -> Value {
        let found = objects.get("strange").await.expect("read the object");
        let conditions = found.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default()
    };
    wait_until("the condition", async || condition("Stalled").await["reason"] == "InvalidSpec").await;
    for type_ in ["Ready", "Accepted"] {
        let condition = condition(type_).await;
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("InvalidSpec")));
        assert!(
            condition["message"].as_str().is_some_and(|text| text.contains("cannot be decoded")),
            "{condition}"
        );
    }
    wait_until("the Event", async || installation.event_reasons("strange").await == ["InvalidSpec"]).await;
    assert!(controller.counter("grapnel_controller_undecodable_objects_total", &[], &[]).await >= 1);

    objects.delete("strange", &Default::default()).await.expect("delete the object");
    wait_until("it to go", async || objects.get_opt("strange").await.expect("ask for it").is_none()).await;
}
