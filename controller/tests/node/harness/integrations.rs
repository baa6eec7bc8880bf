//! Integrations of the shop, as untyped objects: the cases see them as kubectl does.

use anyhow::Context;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use serde_json::{Value, json};

use super::cluster::{apply, delete};
use super::wait::{seconds, wait_for};
use super::{Node, PATIENCE, PLATFORM, SHOP};

const API_VERSION: &str = "grapnel.dev/v1alpha1";
const KIND: &str = "Integration";

impl Node {
    pub(crate) fn integrations(&self) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: "grapnel.dev".to_owned(),
            version: "v1alpha1".to_owned(),
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            plural: "integrations".to_owned(),
        };
        Api::namespaced_with(self.client.clone(), SHOP, &resource)
    }

    pub(crate) async fn integration_names(&self) -> anyhow::Result<Vec<String>> {
        let list = self.integrations().list(&ListParams::default()).await?;
        Ok(list.iter().map(ResourceExt::name_any).collect())
    }

    /// Applies an Integration of Acme whose secret is `secret-of-ROUTE` and whose only destination is this URL.
    pub(crate) async fn apply_acme(&self, name: &str, route: &str, url: &str) {
        self.apply_acme_to(name, route, json!({ "url": url })).await;
    }

    /// The same with `url` or `service` as the target of the destination.
    pub(crate) async fn apply_acme_to(&self, name: &str, route: &str, target: Value) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {
                "secret": secret_of(route), "signing": "whsec_ZXhhbXBsZS1zaWduaW5nLXNlY3JldC1vZi1hY21l",
            },
        });
        apply(&self.in_namespace::<Secret>(SHOP), &secret).await;
        let integration = json!({
            "apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": acme_spec(name, route, target),
        });
        apply(&self.integrations(), &integration).await;
    }

    /// Waits until an Integration is ready at its present generation.
    pub(crate) async fn wait_until_ready(&self, name: &str) {
        let api = self.integrations();
        wait_for(&format!("{name} to be ready"), PATIENCE, async || {
            let object = api.get(name).await?;
            let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            Ok(conditions.iter().any(|condition| {
                condition["type"] == "Ready"
                    && condition["status"] == "True"
                    && condition["observedGeneration"].as_i64() == object.metadata.generation
            }))
        })
        .await;
    }

    /// Deletes an Integration and waits until it is gone.
    pub(crate) async fn remove(&self, name: &str) {
        delete(&self.integrations(), name, seconds(60)).await;
    }

    /// The worker Deployment of an Integration.
    pub(crate) async fn workers(&self, integration: &str) -> anyhow::Result<Deployment> {
        let uid = self.integrations().get(integration).await?.uid().context("the object has no uid")?;
        Ok(self.in_namespace::<Deployment>(PLATFORM).get(&format!("grapnel-worker-{uid}")).await?)
    }
}

/// What Acme signs with, at this route.
pub(crate) fn secret_of(route: &str) -> String {
    format!("secret-of-{route}")
}

fn acme_spec(secret: &str, route: &str, target: Value) -> Value {
    let mut destination = json!({
        "name": "receiver",
        "timeoutSeconds": 5,
        "maxConcurrency": 4,
        "retry": {"maxAttempts": 20, "backoff": "Linear", "initialDelaySeconds": 1, "maxDelaySeconds": 3},
        "signingSecretRef": {"name": secret, "key": "signing"},
    });
    let fields = destination.as_object_mut().expect("an object");
    fields.extend(target.as_object().expect("an object").clone());
    json!({
        "provider": "acme",
        "route": route,
        "ingress": {"rateLimitPerMinute": 0},
        "verification": {"secretRef": {"name": secret}},
        "destinations": [destination],
        "workers": {"scaling": {
            "minReplicas": 0, "maxReplicas": 4, "targetBacklogPerReplica": 50,
            "cooldownSeconds": 10, "stabilizationWindowSeconds": 10,
        }},
        "drainTimeoutSeconds": 20,
    })
}
