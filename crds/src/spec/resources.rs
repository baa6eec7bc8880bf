//! The requirements that worker pods have of their nodes. These are bounded types of our own: the Kubernetes types
//! bring unbounded maps and fields that a tenant must not set.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{formats, rules};

/// CPU, memory and ephemeral storage of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::REQUESTS_WITHIN_LIMITS)]
pub struct Resources {
    /// The resources reserved for a worker, by name: cpu, memory, ephemeral-storage. The values are quantities such as
    /// 250m or 128Mi, of at most 32 characters. Quote those that look like numbers: "1", "0.5". Default: the
    /// platform's, for each name. The platform has a maximum, to which larger values are lowered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "maxProperties" = 8,
        "additionalProperties" = serde_json::json!({"type": "string", "maxLength": 32})
    ))]
    #[x_kube(validation = rules::RESOURCE_NAMES, validation = rules::RESOURCE_QUANTITIES)]
    pub requests: Option<BTreeMap<String, String>>,

    /// The most that a worker may use, in the same form as requests. Default: the platform's, for each name. The platform
    /// has a maximum, to which larger values are lowered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "maxProperties" = 8,
        "additionalProperties" = serde_json::json!({"type": "string", "maxLength": 32})
    ))]
    #[x_kube(validation = rules::RESOURCE_NAMES, validation = rules::RESOURCE_QUANTITIES)]
    pub limits: Option<BTreeMap<String, String>>,
}

/// Returns whether two quantities are the same amount: 1000m and 1, 1024Mi and 1Gi. The API server writes them in its
/// own form.
pub fn same_quantity(one: &str, other: &str) -> bool {
    one == other
        || matches!((formats::parse_quantity(one), formats::parse_quantity(other)), (Some(one), Some(other)) if one == other)
}

/// Returns whether a quantity is more than another. Text that is not a quantity exceeds everything, so that it passes no bound.
pub fn exceeds_quantity(quantity: &str, most: &str) -> bool {
    match (formats::parse_quantity(quantity), formats::parse_quantity(most)) {
        (Some(quantity), Some(most)) => quantity > most,
        _ => true,
    }
}

/// A taint that workers tolerate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::TOLERATION_KEY,
    validation = rules::TOLERATION_VALUE,
    validation = rules::TOLERATION_SECONDS
)]
pub struct Toleration {
    /// The key of the taint, of at most 317 characters. Default: every key, which needs operator Exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    #[x_kube(validation = rules::TAINT_KEY)]
    pub key: Option<String>,

    /// How the taint's value is compared. Default: Equal. One of Equal (it equals value) and Exists (any value).
    #[serde(default)]
    pub operator: TolerationOperator,

    /// The value of the taint, of at most 63 characters. Default: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = rules::TAINT_VALUE)]
    pub value: Option<String>,

    // An optional enum is described by the enum's own documentation, in the schema too.
    /// The effect of the taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TolerationEffect>,

    /// How long a NoExecute taint is tolerated, in seconds. Default: forever. 0 to 604800 (a week).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 604_800))]
    pub toleration_seconds: Option<i32>,
}

/// The comparison of a taint's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// The taint has this value.
    #[default]
    Equal,
    /// The taint has any value.
    Exists,
}

/// The effect of the taint. Default: every effect. One of NoSchedule, PreferNoSchedule and NoExecute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TolerationEffect {
    /// New pods are not scheduled on the node.
    NoSchedule,
    /// New pods are scheduled elsewhere when that is possible.
    PreferNoSchedule,
    /// New pods are not scheduled on the node, and running ones are evicted.
    NoExecute,
}
