//! A receiver of deliveries in the shop: a pod that prints one line for each request.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::{ListParams, LogParams};
use serde_json::json;

use super::cluster::apply;
use super::{Node, SHOP};

/// The receiver, as a destination.
pub(crate) const URL: &str = "http://receiver.shop.svc/";

impl Node {
    pub(crate) async fn start_receiver(&self) {
        let container = json!({
            "name": "receiver", "image": self.receiver_image, "ports": [{"containerPort": 8080}],
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
            },
        });
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "receiver"},
            "spec": {
                "selector": {"matchLabels": {"app": "receiver"}},
                "template": {
                    "metadata": {"labels": {"app": "receiver"}},
                    "spec": {
                        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                        "terminationGracePeriodSeconds": 1,
                        "containers": [container],
                    },
                },
            },
        });
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "receiver"},
            "spec": {"selector": {"app": "receiver"}, "ports": [{"port": 80, "targetPort": 8080}]},
        });
        apply(&self.in_namespace::<Deployment>(SHOP), &deployment).await;
        apply(&self.in_namespace::<Service>(SHOP), &service).await;
        self.wait_for_rollout_in(SHOP, "receiver").await;
    }

    /// The lines of the receiver about an event: its headers `webhook-id` and `webhook-signature`, and its body.
    pub(crate) async fn received(&self, event_id: &str) -> anyhow::Result<Vec<String>> {
        let pods = self.in_namespace::<Pod>(SHOP);
        let mut lines = Vec::new();
        for pod in pods.list(&ListParams::default().labels("app=receiver")).await? {
            let log = pods.logs(&pod.name_any(), &LogParams::default()).await?;
            lines.extend(
                log.lines()
                    .filter(|line| line.contains(&format!("webhook-id: {event_id}")))
                    .map(str::to_owned),
            );
        }
        Ok(lines)
    }
}
