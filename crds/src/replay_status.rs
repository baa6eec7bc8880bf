//! The status that the controller reports about a Replay. All counts are deliveries.
//!
//! Unlike that of an Integration it changes while the Replay runs, at most every few seconds: its progress is what the object is
//! watched for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The observed state of the Replay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// What the Replay is doing, or how it ended. One of Pending, Running, Paused, Cancelling, Cancelled, Completed, Failed and
    /// Rejected (it does not run; the condition Accepted says why).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ReplayPhase>,

    /// The conditions: Accepted, Running, Complete and Failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::conditions::schema")]
    pub conditions: Vec<Condition>,

    /// The id of the Replay in the HTTP API, in the header grapnel-replay-id of deliveries, and in the audit trail; absent until it
    /// is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub replay_id: Option<String>,

    /// Deliveries per second, as the Replay has it now: its rate may be changed through the API too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<i32>,

    /// How many of the matched deliveries are done with, such as 1200/5000: delivered, failed again, or skipped. A + at its end says
    /// that at least so many match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub progress: Option<String>,

    /// Deliveries that match, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<i64>,

    /// Deliveries that were made due again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fed: Option<i64>,

    /// Deliveries that were left out, by cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<SkippedDeliveries>,

    /// Deliveries that were made due and succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded: Option<i64>,

    /// Deliveries that were made due and failed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<i64>,

    /// Deliveries that are still to be made due or skipped, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<i64>,

    /// When the first delivery was made due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,

    /// When the Replay ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}

/// Deliveries that were left out, by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SkippedDeliveries {
    /// They succeeded after the Replay was created.
    #[serde(default)]
    pub succeeded: i64,

    /// They are unfinished: another replay was delivering them.
    #[serde(default)]
    pub unfinished: i64,

    /// Their event, its content, its day, the Integration or the destination is gone.
    #[serde(default)]
    pub gone: i64,
}

/// What the Replay is doing, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ReplayPhase {
    /// It has not begun.
    Pending,
    /// Deliveries are made due.
    Running,
    /// It waits to be resumed.
    Paused,
    /// It was cancelled, and what it has made due is still being delivered.
    Cancelling,
    /// It was cancelled.
    Cancelled,
    /// Everything that matched was delivered, failed again, or was skipped.
    Completed,
    /// It ended before that.
    Failed,
    /// It does not run.
    Rejected,
}

impl ReplayPhase {
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Running,
        Self::Paused,
        Self::Cancelling,
        Self::Cancelled,
        Self::Completed,
        Self::Failed,
        Self::Rejected,
    ];

    /// Returns the phase as the object has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::Cancelling => "Cancelling",
            Self::Cancelled => "Cancelled",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Rejected => "Rejected",
        }
    }

    /// Returns whether nothing more happens.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Cancelled | Self::Completed | Self::Failed | Self::Rejected)
    }
}
