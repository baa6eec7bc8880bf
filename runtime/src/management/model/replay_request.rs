//! Replay requests.

use grapnel_store::views::{ReplayRequestRow, ReplayStatus};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Rfc3339Millis;

/// An operator's request to deliver an event again.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReplayRequest)]
pub(crate) struct ReplayRequestView {
    pub(crate) id: Uuid,
    pub(crate) event_id: Uuid,
    /// The only destination that is delivered to; null is all of the event's.
    #[schema(required)]
    pub(crate) destination: Option<String>,
    pub(crate) requested_by: String,
    pub(crate) reason: String,
    pub(crate) status: ReplayStatusView,
    pub(crate) created_at: Rfc3339Millis,
    /// When the request was completed or failed.
    #[schema(required)]
    pub(crate) processed_at: Option<Rfc3339Millis>,
}

impl From<ReplayRequestRow> for ReplayRequestView {
    fn from(row: ReplayRequestRow) -> Self {
        Self {
            id: row.id.uuid(),
            event_id: row.event_id.uuid(),
            destination: row.destination,
            requested_by: row.requested_by,
            reason: row.reason,
            status: row.status.into(),
            created_at: row.created_at.into(),
            processed_at: row.processed_at.map(Rfc3339Millis),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ReplayStatus)]
pub(crate) enum ReplayStatusView {
    /// Stored; a delivery waits to be handed to its queue.
    Queued,
    /// Every delivery was handed to its queue.
    Dispatched,
    /// Every delivery succeeded.
    Completed,
    /// No delivery is unfinished, and one failed.
    Failed,
}

impl From<ReplayStatus> for ReplayStatusView {
    fn from(status: ReplayStatus) -> Self {
        match status {
            ReplayStatus::Queued => Self::Queued,
            ReplayStatus::Dispatched => Self::Dispatched,
            ReplayStatus::Completed => Self::Completed,
            ReplayStatus::Failed => Self::Failed,
        }
    }
}
