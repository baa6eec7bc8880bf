//! Replays.

use grapnel_core::replay::{ReplaySpec, ReplayState};
use grapnel_store::replay_jobs::{DestinationProgress, ReplayJob, ReplayProgress};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Rfc3339Millis;

/// A job that delivers many deliveries again.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Replay)]
pub(crate) struct ReplayView {
    /// Deliveries of it carry this in the header `grapnel-replay-id`.
    pub(crate) id: Uuid,
    pub(crate) namespace: String,
    pub(crate) integration_ids: Vec<Uuid>,
    pub(crate) state: ReplayStateView,
    /// Why it is in this state, where nobody asked for it: `TooManyFailures`, `IntegrationDisabled` or `LimitReached`.
    #[schema(required)]
    pub(crate) state_reason: Option<String>,
    #[schema(required)]
    pub(crate) state_message: Option<String>,
    /// What it selects and how it began, as it was asked for.
    #[schema(value_type = serde_json::Map<String, serde_json::Value>)]
    pub(crate) spec: ReplaySpec,
    /// As it is now.
    pub(crate) rate_per_second: u32,
    pub(crate) counters: ReplayCountersView,
    /// How long it still feeds at this rate, at least; null when it does not.
    #[schema(required)]
    pub(crate) eta_seconds: Option<u64>,
    pub(crate) reason: String,
    /// The one who asked, as the caller said.
    #[schema(required)]
    pub(crate) requested_by: Option<String>,
    /// The one who was authenticated.
    pub(crate) actor: String,
    /// The name of the Kubernetes object that it was made for.
    #[schema(required)]
    pub(crate) object_name: Option<String>,
    pub(crate) created_at: Rfc3339Millis,
    #[schema(required)]
    pub(crate) started_at: Option<Rfc3339Millis>,
    #[schema(required)]
    pub(crate) finished_at: Option<Rfc3339Millis>,
    pub(crate) updated_at: Rfc3339Millis,
    /// How far it is with each destination. Absent in lists, and where a replay was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) destinations: Option<Vec<ReplayDestinationView>>,
}

/// What has become of a replay, in deliveries.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReplayCounters)]
pub(crate) struct ReplayCountersView {
    /// Those that it selects.
    pub(crate) matched: u64,
    /// False: there are at least so many.
    pub(crate) matched_is_exact: bool,
    /// Those that were made due again.
    pub(crate) fed: u64,
    pub(crate) skipped: ReplaySkipsView,
    /// Those of the fed ones that have ended. The others are under way, or wait for a retry.
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) under_way: u64,
    /// Those that are still to be fed or skipped.
    pub(crate) remaining: u64,
}

/// What a replay left out, by cause.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReplaySkips)]
pub(crate) struct ReplaySkipsView {
    pub(crate) total: u64,
    /// Another replay was delivering them.
    pub(crate) unfinished: u64,
    /// They succeeded, or no longer matched, after the replay was created.
    pub(crate) succeeded: u64,
    /// The event, its content, its day, its Integration or the destination is no longer there.
    pub(crate) gone: u64,
}

/// How far a replay is with a destination.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReplayDestination)]
pub(crate) struct ReplayDestinationView {
    pub(crate) integration_id: Uuid,
    pub(crate) name: String,
    pub(crate) matched: u64,
    pub(crate) fed: u64,
    pub(crate) skipped: u64,
    /// Whether all of it was fed or skipped.
    pub(crate) is_done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ReplayState)]
pub(crate) enum ReplayStateView {
    /// Nothing was fed yet.
    Pending,
    Running,
    /// Nothing is fed until it is resumed.
    Paused,
    /// Nothing more is fed, and some of what was fed is under way.
    Cancelling,
    Cancelled,
    /// Everything was fed or skipped, and has ended.
    Completed,
    /// It could not go on.
    Failed,
}

impl From<ReplayState> for ReplayStateView {
    fn from(state: ReplayState) -> Self {
        match state {
            ReplayState::Pending => Self::Pending,
            ReplayState::Running => Self::Running,
            ReplayState::Paused => Self::Paused,
            ReplayState::Cancelling => Self::Cancelling,
            ReplayState::Cancelled => Self::Cancelled,
            ReplayState::Completed => Self::Completed,
            ReplayState::Failed => Self::Failed,
        }
    }
}

impl From<ReplayJob> for ReplayView {
    fn from(job: ReplayJob) -> Self {
        let counters = job.counters;
        let eta = counters.remaining().div_ceil(u64::from(job.rate_per_second.max(1)));
        Self {
            id: job.id.uuid(),
            namespace: job.namespace,
            integration_ids: job.integration_ids.into_iter().map(Into::into).collect(),
            state: job.state.into(),
            state_reason: job.state_reason,
            state_message: job.state_message,
            reason: job.spec.reason.clone(),
            spec: job.spec,
            rate_per_second: job.rate_per_second,
            counters: ReplayCountersView {
                matched: counters.matched,
                matched_is_exact: counters.matched_is_exact,
                fed: counters.fed,
                skipped: ReplaySkipsView {
                    total: counters.skipped.sum(),
                    unfinished: counters.skipped.unfinished,
                    succeeded: counters.skipped.succeeded,
                    gone: counters.skipped.gone,
                },
                succeeded: counters.succeeded,
                failed: counters.failed,
                under_way: counters.under_way(),
                remaining: counters.remaining(),
            },
            eta_seconds: job.state.is_feeding().then_some(eta),
            requested_by: job.requested_by,
            actor: job.actor,
            object_name: job.object_name,
            created_at: job.created_at.into(),
            started_at: job.started_at.map(Rfc3339Millis),
            finished_at: job.finished_at.map(Rfc3339Millis),
            updated_at: job.updated_at.into(),
            destinations: None,
        }
    }
}

impl From<ReplayProgress> for ReplayView {
    fn from(progress: ReplayProgress) -> Self {
        let destinations = progress.destinations.into_iter().map(ReplayDestinationView::from).collect();
        Self { destinations: Some(destinations), ..Self::from(progress.job) }
    }
}

impl From<DestinationProgress> for ReplayDestinationView {
    fn from(progress: DestinationProgress) -> Self {
        let DestinationProgress { integration_id, name, matched, fed, skipped, is_done } = progress;
        Self { integration_id: integration_id.uuid(), name, matched, fed, skipped, is_done }
    }
}
