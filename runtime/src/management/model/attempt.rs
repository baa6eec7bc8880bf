//! Delivery attempts.

use grapnel_store::views::AttemptRow;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Rfc3339Millis;

/// One HTTP request of a delivery.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Attempt)]
pub(in crate::management) struct AttemptView {
    id: Uuid,
    event_id: Uuid,
    integration_id: Uuid,
    destination: String,
    /// Counts from 1 within the delivery, replays included.
    #[schema(minimum = 1)]
    attempt_no: i32,
    status: AttemptStatusView,
    /// Null when there was no answer.
    #[schema(required)]
    http_status: Option<i16>,
    /// The beginning of the receiver's answer.
    #[schema(required)]
    response_body: Option<String>,
    #[schema(required)]
    error_message: Option<String>,
    #[schema(minimum = 0)]
    duration_ms: i32,
    created_at: Rfc3339Millis,
}

impl From<AttemptRow> for AttemptView {
    fn from(row: AttemptRow) -> Self {
        Self {
            id: row.id.uuid(),
            event_id: row.event_id.uuid(),
            integration_id: row.integration_id.uuid(),
            destination: row.destination,
            attempt_no: row.attempt_no,
            status: if row.succeeded { AttemptStatusView::Success } else { AttemptStatusView::Failed },
            http_status: row.http_status,
            response_body: row.response_body,
            error_message: row.error_message,
            duration_ms: row.duration_ms,
            created_at: row.created_at.into(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AttemptStatus)]
pub(in crate::management) enum AttemptStatusView {
    Success,
    Failed,
}
