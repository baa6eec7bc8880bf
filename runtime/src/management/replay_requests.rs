//! `GET /replay-requests` and `GET /replay-requests/{id}`.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::StatusCode;

use super::ManagementState;
use super::answer::{self, ListMeta};
use super::cursor::ListOrder;
use super::path::PathId;
use super::query::Query;
use crate::http::envelope::{ApiError, Envelope, success};
use crate::management::openapi::PagingParameters;
use grapnel_store::views::{
    ReplayFilter, ReplayRequest, ReplayStatus, list_replay_requests, load_replay_request,
};

/// List replay requests
///
/// The latest come first.
#[utoipa::path(
    get, path = "/replay-requests", tag = "Replays", operation_id = "listReplayRequests",
    params(
        ("status" = Option<ReplayStatus>, Query, description = "Only in this status"),
        ("eventId" = Option<uuid::Uuid>, Query, description = "Only of this event"),
        PagingParameters,
    ),
    responses((status = 200, description = "A page of requests", body = Envelope<Vec<ReplayRequest>, ListMeta>)),
)]
pub(super) async fn list(
    State(state): State<ManagementState>,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let query = Query::of_list(raw.as_deref(), &["status", "eventId"])?;
    let filter = ReplayFilter {
        event_id: query.uuid("eventId")?,
        status: query.choice("status", &ReplayStatus::ALL.map(|status| (status.as_str(), status)))?,
    };
    let page = list_replay_requests(&state.db, &filter, query.page(ListOrder::ReplayRequests)?).await?;
    Ok(answer::list(&page, ListOrder::ReplayRequests))
}

/// Read a replay request
#[utoipa::path(
    get, path = "/replay-requests/{id}", tag = "Replays", operation_id = "readReplayRequest",
    params(("id" = uuid::Uuid, Path, description = "The request's id")),
    responses(
        (status = 200, description = "The request", body = Envelope<ReplayRequest>),
        (status = 404, description = "There is no such request", body = crate::http::envelope::ErrorEnvelope),
    ),
)]
pub(super) async fn read(
    State(state): State<ManagementState>,
    PathId(id): PathId,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    Query::none(raw.as_deref())?;
    let replay = load_replay_request(&state.db, id).await?;
    Ok(success(StatusCode::OK, &replay.ok_or_else(|| answer::unknown("replay request"))?))
}
