//! `GET /deliveries`: delivery attempts.

use axum::extract::{RawQuery, State};
use axum::response::Response;

use super::ManagementState;
use super::answer::{self, ListMeta};
use super::cursor::ListOrder;
use super::model::{AttemptStatusView, AttemptView};
use super::query::{PagingParameters, Query};
use crate::http::envelope::{ApiError, Envelope};
use grapnel_core::ids::EventId;
use grapnel_store::views::{AttemptFilter, list_attempts};

/// The values of `status`, as whether the attempt succeeded.
const STATUSES: [(&str, bool); 2] = [("success", true), ("failed", false)];

/// List delivery attempts
///
/// The latest come first.
#[utoipa::path(
    get, path = "/deliveries", tag = "Deliveries", operation_id = "listDeliveries",
    params(
        ("status" = Option<AttemptStatusView>, Query, description = "Only those with this outcome"),
        ("eventId" = Option<uuid::Uuid>, Query, description = "Only of this event"),
        PagingParameters,
    ),
    responses((status = 200, description = "A page of attempts", body = Envelope<Vec<AttemptView>, ListMeta>)),
)]
pub(super) async fn list(
    State(state): State<ManagementState>,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let query = Query::of_list(raw.as_deref(), &["status", "eventId"])?;
    let filter = AttemptFilter {
        event_id: query.uuid("eventId")?.map(EventId::new),
        succeeded: query.choice("status", &STATUSES)?,
    };
    let page = list_attempts(&state.db, &filter, query.page(ListOrder::Attempts)?).await?;
    answer::list(page, ListOrder::Attempts, |row| Ok(AttemptView::from(row)))
}
