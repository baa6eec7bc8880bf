//! The status that the controller reports about an Integration.
//!
//! Nothing here changes while nothing happens: live numbers are metrics, because a status that changes by itself
//! would wake every watcher of the object, including the controller.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The observed state of the Integration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IntegrationStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The conditions. Ready summarizes whether webhooks are accepted and delivered as the spec requires. Accepted,
    /// SecretsResolved, Registered, QueuesReady, WorkersAvailable and ScalingActive explain why not, and ServicesResolved,
    /// which is present only if a destination is a Service. Reconciling, Stalled and CaptureWaiting are present only while
    /// they are True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::conditions::schema")]
    pub conditions: Vec<Condition>,

    /// The id of the Integration in the HTTP API, in metrics and in logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub integration_id: Option<String>,

    /// The endpoint that the provider posts to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteStatus>,

    /// The secrets that webhooks are verified with; absent when there is nothing to report about them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<VerificationStatus>,

    /// The worker pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<WorkersStatus>,

    /// The latest decision about the number of workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,
}

/// The endpoint that the provider posts to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// The path of the webhook endpoint, such as /api/v1/webhooks/acme.
    #[schemars(length(max = 128))]
    pub path: String,

    /// The URL to configure at the provider; absent when the platform's public address is not configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
}

/// The secrets that webhooks are verified with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerificationStatus {
    /// Secrets that can be removed from spec.verification.previousSecretRefs: they have been listed for 24 hours or
    /// more and have verified no webhook in that time, and the current secret has verified one since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into(), "key".into()]))]
    pub unused_previous_secrets: Vec<UnusedSecret>,

    /// The same as a sentence, with what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,
}

/// A previous secret that is no longer needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnusedSecret {
    /// The name of the Secret.
    #[schemars(length(max = 253))]
    pub name: String,

    /// The key in the Secret.
    #[schemars(length(max = 253))]
    pub key: String,

    /// Time since which it has not verified any webhook: that of its last webhook, or when it was first listed,
    /// whichever is later.
    pub unused_since: Time,

    /// When it last verified a webhook; absent when it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_time: Option<Time>,
}

/// The worker pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkersStatus {
    /// The name of the Deployment in the platform's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub deployment: Option<String>,

    /// The label selector of the worker pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,

    /// The number of worker pods that exist.
    #[serde(default)]
    pub replicas: i32,

    /// The number of worker pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
}

/// The latest decision about the number of workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingStatus {
    /// The number of workers requested last.
    #[serde(default)]
    pub desired_replicas: i32,

    /// When the number of workers last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,

    /// The limit that keeps the number from following the backlog alone, such as MaxReplicas; absent when there is
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub limited_by: Option<String>,

    /// The last change and its reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<ScalingDecision>,
}

/// A change of the number of workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingDecision {
    /// The time of the decision.
    pub time: Time,

    /// The number of workers before.
    pub from: i32,

    /// The number of workers requested.
    pub to: i32,

    /// The reason, as one CamelCase word.
    #[schemars(length(max = 64))]
    pub reason: String,

    /// A human-readable explanation, with the numbers behind the decision.
    #[schemars(length(max = 1024))]
    pub message: String,
}
