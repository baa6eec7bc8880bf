//! The setup of a test: the custom resource and namespaces.

use futures::StreamExt;
use grapnel_controller::api::Kind;
use grapnel_crds::{Integration, Replay};
use grapnel_testing::wait_until;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;

pub(crate) async fn install_crd(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in grapnel_crds::definitions() {
        let name = definition.name_any();
        api.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&definition))
            .await
            .expect("install the CRD");
        wait_until("the CRD", async || {
            let found = api.get(&name).await.expect("read the CRD");
            let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
            conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
        })
        .await;
    }
}

/// Removes finalizers too: no controller is running yet that would.
pub(crate) async fn remove_all_objects(client: &Client) {
    remove_all::<Integration>(client).await;
    remove_all::<Replay>(client).await;
}

async fn remove_all<K: Kind>(client: &Client) {
    let all: Api<K> = Api::all(client.clone());
    let found = all.list_metadata(&ListParams::default()).await.expect("list objects").items;
    futures::stream::iter(found)
        .for_each_concurrent(16, async |object| {
            let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().expect("a namespace"));
            let (name, release) = (object.name_any(), json!({"metadata": {"finalizers": null}}));
            // Parallel tests may still be cleaning up theirs.
            for outcome in [
                api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&release)).await.map(drop),
                api.delete(&name, &DeleteParams::default()).await.map(drop),
            ] {
                match outcome {
                    Ok(()) => {}
                    Err(kube::Error::Api(status)) if status.is_not_found() => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await;
}

pub(crate) async fn remove_crd(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = grapnel_crds::crd().name_any();
    api.delete(&name, &DeleteParams::default()).await.expect("delete the CRD");
    wait_until("the CRD to be gone", async || api.get_opt(&name).await.expect("ask for the CRD").is_none())
        .await;
}

pub(crate) async fn create_namespace(client: &Client, name: &str) {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    api.create(&PostParams::default(), &namespace).await.expect("create a namespace");
}
