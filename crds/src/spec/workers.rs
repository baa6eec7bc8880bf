//! The worker pods of an Integration, and how their number follows the backlog.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults::{int, section};
use super::resources::{Resources, Toleration};
use crate::rules;

/// The pods that deliver the events of an Integration, and how many of them run. They run in the platform's namespace,
/// so the platform decides which labels, annotations, nodes, taints and priority classes may be chosen: by default none.
/// What it does not permit has no effect, and the condition Restricted names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workers {
    /// How the number of workers is decided.
    #[serde(default)]
    pub scaling: Scaling,

    /// The number of workers in the modes Manual and External; ignored in the mode Auto. This is the field that
    /// kubectl scale and an autoscaler set through the scale subresource. Default: 1. 0 to 1000. Leave it out of
    /// manifests in the mode External, so that applying them does not undo the autoscaler.
    #[serde(default = "int::<1>")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,

    /// CPU, memory and ephemeral storage of a worker. Default: the platform's.
    #[serde(default)]
    pub resources: Resources,

    /// Labels that a node must have to run workers, in addition to the platform's: at most 16. The platform decides which
    /// keys have an effect. Default: none.
    #[serde(default)]
    #[schemars(extend(
        "maxProperties" = 16,
        "additionalProperties" = serde_json::json!({"type": "string", "maxLength": 63})
    ))]
    #[x_kube(validation = rules::LABEL_VALUES)]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that workers tolerate, in addition to the platform's: at most 16. The platform decides which keys have an
    /// effect. Default: none.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub tolerations: Vec<Toleration>,

    /// The name of the PriorityClass of the workers. The platform decides which ones have an effect. Default: the
    /// platform's. At most 253 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::DNS_SUBDOMAIN)]
    pub priority_class_name: Option<String>,

    /// Labels added to the worker pods: at most 16, values of at most 63 characters. Keys that begin with grapnel.dev/
    /// or app.kubernetes.io/ are set by Grapnel. The platform decides which keys have an effect. Default: none.
    #[serde(default)]
    #[schemars(extend(
        "maxProperties" = 16,
        "additionalProperties" = serde_json::json!({"type": "string", "maxLength": 63})
    ))]
    #[x_kube(validation = rules::RESERVED_LABELS, validation = rules::LABEL_VALUES)]
    pub pod_labels: BTreeMap<String, String>,

    /// Annotations added to the worker pods: at most 16, values of at most 1024 characters. Keys that begin with
    /// grapnel.dev/ are set by Grapnel. The platform decides which keys have an effect. Default: none.
    #[serde(default)]
    #[schemars(extend(
        "maxProperties" = 16,
        "additionalProperties" = serde_json::json!({"type": "string", "maxLength": 1024})
    ))]
    #[x_kube(validation = rules::RESERVED_ANNOTATIONS)]
    pub pod_annotations: BTreeMap<String, String>,
}

/// How the number of workers is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::REPLICA_RANGE)]
pub struct Scaling {
    /// How the number of workers is controlled. Default: Auto. One of Auto (by Grapnel, from the backlog), Manual (by
    /// spec.workers.replicas) and External (by an autoscaler that sets spec.workers.replicas through the scale
    /// subresource).
    #[serde(default)]
    pub mode: ScalingMode,

    /// The minimum number of workers in the mode Auto. Default: 0. 0 to 1000, and not more than maxReplicas. With 0,
    /// the workers are stopped while there is nothing to deliver.
    #[serde(default = "int::<0>")]
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: i32,

    /// The maximum number of workers in the mode Auto. Default: 5. 1 to 1000. The platform may have a lower limit.
    #[serde(default = "int::<5>")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,

    /// The target number of queued and unacknowledged deliveries per worker. Default: 100. 1 to 1000000.
    #[serde(default = "int::<100>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub target_backlog_per_replica: i32,

    /// The first worker is started when the backlog exceeds this number of deliveries. Default: 0. 0 to 1000000. It has
    /// no effect when minReplicas is not 0.
    #[serde(default = "int::<0>")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub activation_backlog: i32,

    /// How long the backlog must have been empty before the last worker is stopped, in seconds. Default: 300.
    /// 0 to 86400.
    #[serde(default = "int::<300>")]
    #[schemars(range(min = 0, max = 86_400))]
    pub cooldown_seconds: i32,

    /// The number of workers is lowered only to the highest number that was needed within this time, in seconds, so
    /// that a short lull stops no worker. Default: 300. 0 to 3600.
    #[serde(default = "int::<300>")]
    #[schemars(range(min = 0, max = 3600))]
    pub stabilization_window_seconds: i32,
}

/// The control of the number of workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ScalingMode {
    /// By Grapnel, from the backlog. The scale subresource is accepted and has no effect.
    #[default]
    Auto,
    /// By the user, who sets spec.workers.replicas.
    Manual,
    /// By an autoscaler, which sets spec.workers.replicas through the scale subresource.
    External,
}

impl Default for Workers {
    fn default() -> Self {
        section()
    }
}

impl Default for Scaling {
    fn default() -> Self {
        section()
    }
}

impl Scaling {
    /// Returns how long the backlog must have been empty before the last worker is stopped.
    pub fn cooldown(&self) -> Duration {
        Duration::from_secs(self.cooldown_seconds.max(0).unsigned_abs().into())
    }

    /// Returns how far back the number of workers that was needed is considered before it is lowered.
    pub fn stabilization_window(&self) -> Duration {
        Duration::from_secs(self.stabilization_window_seconds.max(0).unsigned_abs().into())
    }
}
