//! The configuration of the controller, parsed and validated before the first connection.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use grapnel_platform::args::{CommonArgs, DatabaseArgs, QueueArgs, QueueManagementArgs, SealingArgs};
use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, LocalObjectReference, ResourceRequirements, Toleration, Volume, VolumeMount,
};
use serde::Deserialize;
use url::Url;

use crate::worker_policy::WorkerPolicy;

#[derive(Debug, Args)]
pub struct RunArgs {
    /// The namespace of the platform, where the worker Deployments and the Lease are. Default: the one that the process
    /// runs in
    #[arg(long, env = "GRAPNEL_NAMESPACE")]
    pub namespace: Option<String>,
    /// YAML file that describes worker pods: image, env, envFrom, resources and more
    #[arg(long, env = "GRAPNEL_WORKER_POD_FILE")]
    pub worker_pod_file: PathBuf,
    /// The maximum number of workers of one Integration, regardless of its spec
    #[arg(long, env = "GRAPNEL_MAX_WORKERS_PER_INTEGRATION", default_value = "100", value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub max_workers: i32,
    /// The maximum number of Integrations in a namespace. More are not accepted until older ones are deleted
    #[arg(long, env = "GRAPNEL_MAX_INTEGRATIONS_PER_NAMESPACE", default_value = "250", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_integrations_per_namespace: u32,
    /// The maximum number of workers of all Integrations of a namespace together; older Integrations come first
    #[arg(long, env = "GRAPNEL_MAX_WORKERS_PER_NAMESPACE", default_value = "100", value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pub max_workers_per_namespace: i32,
    /// The longest retention of events in days, as the api has it; the status says where it shortens that of an Integration
    #[arg(long, env = "GRAPNEL_MAX_RETENTION_DAYS", default_value = "3650", value_parser = clap::value_parser!(i32).range(1..=3650))]
    pub max_retention_days: i32,
    /// Base of the URL that providers call, without a path; shown in the status
    #[arg(long, env = "GRAPNEL_PUBLIC_URL")]
    pub public_url: Option<Url>,
    /// Namespaces whose Integrations are watched, separated by commas. Default: all of the cluster
    #[arg(long, env = "GRAPNEL_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// The uid of the pod, which distinguishes this replica from all others and survives a restart in place. A
    /// restarted process takes over the Lease of the previous one at once, without waiting for it to expire
    #[arg(long, env = "GRAPNEL_POD_UID")]
    pub pod_uid: Option<String>,
    /// The name of the Lease that elects the replica that writes
    #[arg(long, env = "GRAPNEL_LEASE_NAME", default_value = "grapnel-controller")]
    pub lease_name: String,
    /// The number of objects that are reconciled concurrently
    #[arg(long, env = "GRAPNEL_RECONCILE_CONCURRENCY", default_value = "16", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub queue: QueueArgs,
    #[command(flatten)]
    pub management: QueueManagementArgs,
    #[command(flatten)]
    pub sealing: SealingArgs,
}

/// The configuration of worker pods. It belongs to the platform: an Integration changes only what `permitted` lists.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkerPod {
    /// The image of the grapnel binary.
    pub image: String,
    #[serde(default)]
    pub image_pull_policy: Option<String>,
    #[serde(default)]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    #[serde(default)]
    pub service_account_name: Option<String>,
    /// Variables such as DATABASE_URL, from Secrets of the platform's namespace.
    #[serde(default)]
    pub env: Vec<EnvVar>,
    #[serde(default)]
    pub env_from: Vec<EnvFromSource>,
    #[serde(default)]
    pub resources: Option<ResourceRequirements>,
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
    #[serde(default)]
    pub tolerations: Vec<Toleration>,
    #[serde(default)]
    pub priority_class_name: Option<String>,
    #[serde(default)]
    pub volumes: Vec<Volume>,
    #[serde(default)]
    pub volume_mounts: Vec<VolumeMount>,
    /// The user and group of the process. Default: 65532.
    #[serde(default)]
    pub run_as_user: Option<i64>,
    /// What Integrations may set.
    #[serde(default)]
    pub permitted: WorkerPolicy,
}

impl WorkerPod {
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let name = || format!("GRAPNEL_WORKER_POD_FILE: {}", path.display());
        let text = std::fs::read_to_string(path).with_context(name)?;
        Self::parse(&text).with_context(name)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let pod: Self = serde_saphyr::from_str(text).map_err(|error| anyhow::anyhow!("{error}"))?;
        anyhow::ensure!(!pod.image.is_empty(), "image must not be empty");
        Ok(pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_pod_is_read_strictly() {
        let pod = WorkerPod::parse(
            "image: grapnel:1\nenv: [{name: DATABASE_URL, valueFrom: {secretKeyRef: {name: db, key: url}}}]\n",
        );
        assert_eq!(pod.unwrap().env[0].name, "DATABASE_URL");
        for text in
            ["env: []", "image: ''", "image: a\nhostNetwork: true", "image: a\npermitted: {images: [b]}"]
        {
            assert!(WorkerPod::parse(text).is_err(), "{text}");
        }
    }
}
