//! Objects of Kubernetes itself: applied, deleted and waited for.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::Resource;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::wait::wait_for;
use super::{Node, PATIENCE, PLATFORM};

impl Node {
    /// The objects of one kind in a namespace.
    pub(crate) fn in_namespace<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates a namespace in which nothing may run that the restricted Pod Security Standard refuses.
    pub(crate) async fn create_namespace(&self, name: &str) {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        });
        apply(&self.namespaces(), &namespace).await;
    }

    /// Deletes namespaces that may be missing, and waits until they and everything in them are gone.
    pub(crate) async fn delete_namespaces(&self, names: &[&str], limit: Duration) {
        for name in names {
            request_deletion(&self.namespaces(), name).await;
        }
        for name in names {
            wait_until_gone(&self.namespaces(), name, limit).await;
        }
    }

    pub(crate) fn namespaces(&self) -> Api<Namespace> {
        Api::all(self.client.clone())
    }

    /// The value of a key of the platform's credentials.
    pub(crate) async fn credential(&self, key: &str) -> anyhow::Result<String> {
        let secret = self.in_namespace::<Secret>(PLATFORM).get("grapnel-credentials").await?;
        let value = secret.data.unwrap_or_default().remove(key).with_context(|| format!("no {key}"))?;
        Ok(String::from_utf8(value.0)?)
    }

    /// The pods of a component of the platform.
    pub(crate) async fn pods_of(&self, component: &str) -> Vec<Pod> {
        let selector = format!("app.kubernetes.io/component={component}");
        let pods = self.in_namespace::<Pod>(PLATFORM).list(&ListParams::default().labels(&selector)).await;
        pods.expect("list pods").items
    }

    /// Deletes the pods of a component, all at once, and waits until they are gone.
    pub(crate) async fn delete_pods_of(&self, component: &str) {
        let api = self.in_namespace::<Pod>(PLATFORM);
        let names: Vec<String> = self.pods_of(component).await.iter().map(ResourceExt::name_any).collect();
        assert!(!names.is_empty(), "no pod of {component}");
        for name in &names {
            request_deletion(&api, name).await;
        }
        for name in &names {
            wait_until_gone_or_replaced(&api, name).await;
        }
    }

    /// Waits until a Deployment of the platform has as many ready replicas as it wants, all of its newest template.
    pub(crate) async fn wait_for_rollout(&self, deployment: &str) {
        self.wait_for_rollout_in(PLATFORM, deployment).await;
    }

    pub(crate) async fn wait_for_rollout_in(&self, namespace: &str, deployment: &str) {
        let api = self.in_namespace::<Deployment>(namespace);
        wait_for(&format!("the rollout of {deployment}"), PATIENCE, async || {
            Ok(is_rolled_out(&api.get(deployment).await?))
        })
        .await;
    }

    /// The same for a StatefulSet of the platform.
    pub(crate) async fn wait_for_stateful_rollout(&self, stateful_set: &str) {
        let api = self.in_namespace::<StatefulSet>(PLATFORM);
        wait_for(&format!("the rollout of {stateful_set}"), PATIENCE, async || {
            let object = api.get(stateful_set).await?;
            let wanted = object.spec.and_then(|spec| spec.replicas).unwrap_or(1);
            let Some(status) = object.status else { return Ok(false) };
            Ok(status.observed_generation >= object.metadata.generation
                && status.current_revision == status.update_revision
                && status.ready_replicas == Some(wanted))
        })
        .await;
    }
}

/// The condition that `kubectl rollout status` waits for.
fn is_rolled_out(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    deployment.status.as_ref().is_some_and(|status| {
        status.observed_generation >= deployment.metadata.generation
            && status.updated_replicas.unwrap_or(0) == wanted
            && status.replicas.unwrap_or(0) == wanted
            && status.available_replicas.unwrap_or(0) == wanted
    })
}

/// Applies an object, taking over all fields that it sets.
pub(crate) async fn apply<K>(api: &Api<K>, object: &Value)
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let name = object["metadata"]["name"].as_str().expect("the object has a name");
    let parameters = PatchParams::apply("node-tests").force();
    let result = api.patch(name, &parameters, &Patch::Apply(object)).await;
    result.unwrap_or_else(|error| panic!("cannot apply {name}: {error}"));
}

/// Deletes an object that exists, and waits until it is gone.
pub(crate) async fn delete<K>(api: &Api<K>, name: &str, limit: Duration)
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    request_deletion(api, name).await;
    wait_until_gone(api, name, limit).await;
}

/// Deletes an object, which may be missing, without waiting for its finalizers.
pub(crate) async fn request_deletion<K>(api: &Api<K>, name: &str)
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => panic!("cannot delete {name}: {error}"),
    }
}

pub(crate) async fn wait_until_gone<K>(api: &Api<K>, name: &str, limit: Duration)
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    wait_for(&format!("{name} to be removed"), limit, async || Ok(api.get_opt(name).await?.is_none())).await;
}

/// A pod of a StatefulSet comes back under its old name.
async fn wait_until_gone_or_replaced(api: &Api<Pod>, name: &str) {
    wait_for(&format!("{name} to be removed"), PATIENCE, async || {
        let found = api.get_opt(name).await?;
        Ok(found.is_none_or(|pod| pod.metadata.deletion_timestamp.is_none()))
    })
    .await;
}
