//! `GET /deliveries`: delivery attempts.

use axum::extract::{RawQuery, State};
use axum::response::Response;

use super::ManagementState;
use super::answer::{self, ListMeta};
use super::cursor::ListOrder;
use super::query::Query;
use crate::http::envelope::{ApiError, Envelope};
use crate::management::openapi::PagingParameters;
use grapnel_store::views::{Attempt, AttemptFilter, AttemptStatus, list_attempts};

const STATUSES: [(&str, AttemptStatus); 2] =
    [("success", AttemptStatus::Success), ("failed", AttemptStatus::Failed)];

/// List delivery attempts
///
/// The latest come first.
#[utoipa::path(
    get, path = "/deliveries", tag = "Deliveries", operation_id = "listDeliveries",
    params(
        ("status" = Option<AttemptStatus>, Query, description = "Only those that ended so"),
        ("eventId" = Option<uuid::Uuid>, Query, description = "Only of this event"),
        PagingParameters,
    ),
    responses((status = 200, description = "A page of attempts", body = Envelope<Vec<Attempt>, ListMeta>)),
)]
pub(super) async fn list(
    State(state): State<ManagementState>,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let query = Query::of_list(raw.as_deref(), &["status", "eventId"])?;
    let filter =
        AttemptFilter { event_id: query.uuid("eventId")?, status: query.choice("status", &STATUSES)? };
    let page = list_attempts(&state.db, &filter, query.page(ListOrder::Attempts)?).await?;
    Ok(answer::list(&page, ListOrder::Attempts))
}
