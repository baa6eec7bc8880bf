//! A pod as far as the judgement of an endpoint needs it. The rest is not decoded: there may be many pods.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

#[derive(Debug, Clone, Deserialize, Resource)]
#[resource(inherit = Pod)]
pub struct WatchedPod {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: WatchedPodSpec,
    #[serde(default)]
    pub status: WatchedPodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchedPodSpec {
    #[serde(default)]
    pub host_network: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchedPodStatus {
    #[serde(default)]
    phase: String,
    #[serde(default, rename = "podIPs")]
    pod_ips: Vec<WatchedAddress>,
    #[serde(default, rename = "hostIPs")]
    host_ips: Vec<WatchedAddress>,
    #[serde(default)]
    conditions: Vec<WatchedPodCondition>,
}

#[derive(Debug, Clone, Deserialize)]
struct WatchedAddress {
    ip: String,
}

#[derive(Debug, Clone, Deserialize)]
struct WatchedPodCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

impl WatchedPod {
    /// Returns whether the pod runs and is ready. The addresses of one that has ended may be another pod's by now.
    pub fn is_ready(&self) -> bool {
        let status = &self.status;
        self.metadata.deletion_timestamp.is_none()
            && status.phase == "Running"
            && status.conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True")
    }

    pub fn has_address(&self, address: IpAddr) -> bool {
        is_among(&self.status.pod_ips, address)
    }

    /// Returns whether the address is that of its node, on which other things listen too.
    pub fn is_of_node(&self, address: IpAddr) -> bool {
        self.spec.host_network || is_among(&self.status.host_ips, address)
    }

    /// Removes what is not needed, to keep the cache small.
    pub fn trim(&mut self) {
        let meta = std::mem::take(&mut self.metadata);
        self.metadata = ObjectMeta {
            name: meta.name,
            namespace: meta.namespace,
            uid: meta.uid,
            resource_version: meta.resource_version,
            deletion_timestamp: meta.deletion_timestamp,
            ..ObjectMeta::default()
        };
        self.status.conditions.retain(|condition| condition.type_ == "Ready");
    }
}

fn is_among(addresses: &[WatchedAddress], address: IpAddr) -> bool {
    addresses.iter().any(|known| known.ip.parse() == Ok(address))
}
