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
pub(crate) struct AttemptView {
    pub(crate) id: Uuid,
    pub(crate) event_id: Uuid,
    pub(crate) integration_id: Uuid,
    pub(crate) destination: String,
    /// Counts from 1 within the delivery, replays included.
    #[schema(minimum = 1)]
    pub(crate) attempt_no: i32,
    pub(crate) status: AttemptStatusView,
    /// Null when there was no answer.
    #[schema(required)]
    pub(crate) http_status: Option<i16>,
    /// The beginning of the receiver's answer; null without the right to see payloads.
    #[schema(required)]
    pub(crate) response_body: Option<String>,
    /// In place of `responseBody` that is withheld: its length in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) response_body_bytes: Option<usize>,
    #[schema(required)]
    pub(crate) error_message: Option<String>,
    #[schema(minimum = 0)]
    pub(crate) duration_ms: i32,
    pub(crate) created_at: Rfc3339Millis,
}

impl AttemptView {
    /// Renders a row.
    pub(in crate::management) fn from_row(row: AttemptRow, shows_payload: bool) -> Self {
        let withheld = row.response_body.as_ref().filter(|_| !shows_payload).map(String::len);
        Self {
            id: row.id.uuid(),
            event_id: row.event_id.uuid(),
            integration_id: row.integration_id.uuid(),
            destination: row.destination,
            attempt_no: row.attempt_no,
            status: if row.succeeded { AttemptStatusView::Success } else { AttemptStatusView::Failed },
            http_status: row.http_status,
            response_body: row.response_body.filter(|_| shows_payload),
            response_body_bytes: withheld,
            error_message: row.error_message,
            duration_ms: row.duration_ms,
            created_at: row.created_at.into(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AttemptStatus)]
pub(crate) enum AttemptStatusView {
    Success,
    Failed,
}
