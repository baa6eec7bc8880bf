//! `GET /replay-requests` and `GET /replay-requests/{id}`.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use uuid::Uuid;

use super::ManagementState;
use super::answer::{self, ListMeta, Listed};
use super::authorize::Grant;
use super::cursor::ListOrder;
use super::model::{ReplayRequestView, ReplayStatusView};
use super::path::PathId;
use super::query::{PagingParameters, Query};
use crate::http::envelope::{ApiError, Envelope, ErrorEnvelope};
use grapnel_core::ids::{EventId, ReplayId};
use grapnel_store::views::{ReplayFilter, ReplayStatus, list_replay_requests, load_replay_request};

/// List replay requests
///
/// The latest come first.
#[utoipa::path(
    get, path = "/replay-requests", tag = "Replays", operation_id = "listReplayRequests",
    params(
        ("status" = Option<ReplayStatusView>, Query, description = "Only in this status"),
        ("eventId" = Option<uuid::Uuid>, Query, description = "Only of this event"),
        PagingParameters,
    ),
    responses((status = 200, description = "A page of requests", body = Envelope<Vec<ReplayRequestView>, ListMeta>)),
)]
pub(super) async fn list(
    State(state): State<ManagementState>,
    grant: Grant,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    Ok(find(&state, &grant, raw.as_deref()).await?.respond())
}

/// Reads the page that a query asks for.
pub(super) async fn find(
    state: &ManagementState,
    grant: &Grant,
    raw: Option<&str>,
) -> Result<Listed<ReplayRequestView>, ApiError> {
    let query = Query::of_list(raw, &["status", "eventId"])?;
    let filter = ReplayFilter {
        event_id: query.uuid("eventId")?.map(EventId::new),
        status: query.choice("status", &ReplayStatus::ALL.map(|status| (status.as_str(), status)))?,
        visible: grant.visible.filter(),
    };
    let page = list_replay_requests(&state.db, &filter, query.page(ListOrder::ReplayRequests)?).await?;
    answer::list(page, ListOrder::ReplayRequests, |row| Ok(ReplayRequestView::from(row)))
}

/// Read a replay request
#[utoipa::path(
    get, path = "/replay-requests/{id}", tag = "Replays", operation_id = "readReplayRequest",
    params(("id" = uuid::Uuid, Path, description = "The request's id")),
    responses(
        (status = 200, description = "The request", body = Envelope<ReplayRequestView>),
        (status = 404, description = "There is no such request", body = ErrorEnvelope),
    ),
)]
pub(super) async fn read(
    State(state): State<ManagementState>,
    PathId(id): PathId,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    Query::none(raw.as_deref())?;
    Ok(answer::item(&load(&state, id).await?))
}

/// Reads a replay request.
pub(super) async fn load(state: &ManagementState, id: Uuid) -> Result<ReplayRequestView, ApiError> {
    let replay = load_replay_request(&state.db, ReplayId::new(id)).await?;
    replay.map(ReplayRequestView::from).ok_or_else(|| answer::not_found("replay request"))
}
