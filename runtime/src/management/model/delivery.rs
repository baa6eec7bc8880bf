//! Deliveries: an event on its way to one destination.

use grapnel_core::delivery::state::DeliveryState;
use grapnel_store::views::DeliveryRow;
use serde::Serialize;
use utoipa::ToSchema;

use super::Rfc3339Millis;

/// The delivery of an event to one destination, as of now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Delivery)]
pub(crate) struct DeliveryView {
    pub(crate) destination: String,
    pub(crate) status: DeliveryStatusView,
    /// Attempts so far.
    #[schema(minimum = 0)]
    pub(crate) attempts: i32,
    /// The error of the last attempt, or why it was given up.
    #[schema(required)]
    pub(crate) last_error: Option<String>,
    /// When the attempt under way began, or the last one.
    #[schema(required)]
    pub(crate) started_at: Option<Rfc3339Millis>,
    #[schema(required)]
    pub(crate) finished_at: Option<Rfc3339Millis>,
    pub(crate) updated_at: Rfc3339Millis,
}

/// The status of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = DeliveryStatus)]
pub(crate) enum DeliveryStatusView {
    /// Waiting for its first attempt, or for the first attempt of a replay.
    Pending,
    /// An attempt is under way.
    Processing,
    /// Waiting for another attempt.
    Retrying,
    /// The receiver accepted it.
    Succeeded,
    /// Given up.
    Failed,
    /// The filter of the destination left the event out. A replay that names the destination delivers it.
    Filtered,
}

impl From<DeliveryRow> for DeliveryView {
    fn from(row: DeliveryRow) -> Self {
        let status = match row.state {
            _ if row.is_filtered => DeliveryStatusView::Filtered,
            DeliveryState::Pending => DeliveryStatusView::Pending,
            DeliveryState::Processing => DeliveryStatusView::Processing,
            DeliveryState::Retrying => DeliveryStatusView::Retrying,
            DeliveryState::Succeeded => DeliveryStatusView::Succeeded,
            DeliveryState::Failed => DeliveryStatusView::Failed,
        };
        Self {
            status,
            destination: row.destination,
            attempts: row.attempts,
            last_error: row.last_error,
            started_at: row.started_at.map(Rfc3339Millis),
            finished_at: row.finished_at.map(Rfc3339Millis),
            updated_at: row.updated_at.into(),
        }
    }
}
