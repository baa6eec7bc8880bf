//! `/replays`: jobs that deliver many deliveries again. How one begins is in [`start`].

use axum::extract::{RawQuery, Request, State};
use axum::response::Response;
use grapnel_core::ids::ReplayJobId;
use grapnel_core::replay::{DesiredState, MAX_RATE, ReplayState};
use grapnel_store::replay_jobs::{
    self, ReplayJobFilter, RequestOutcome, list_jobs, load_progress, request_state, set_rate,
};
use http::StatusCode;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer::{self, ListMeta, Listed};
use super::authorize::Grant;
use super::cursor::ListOrder;
use super::model::{ReplayStateView, ReplayView};
use super::path::PathId;
use super::query::{PagingParameters, Query};
use super::{MAX_NAME_CHARS, ManagementState, body};
use crate::http::envelope::{ApiError, Envelope, ErrorCode, ErrorEnvelope, success};

pub(super) mod start;

pub(super) const MAX_BODY_BYTES: usize = 16 * 1024;

/// What a path names here.
pub(super) const KIND: &str = "replay";

/// List replays
///
/// The latest come first. Those of several Integrations are shown to who may see all of these.
#[utoipa::path(
    get, path = "/replays", tag = "Replays", operation_id = "listReplays",
    params(
        ("state" = Option<ReplayStateView>, Query, description = "Only in this state"),
        ("namespace" = Option<String>, Query, min_length = 1, max_length = 100, description = "Only of Integrations in this namespace"),
        ("integration" = Option<String>, Query, min_length = 3, max_length = 507,
            description = "Only those that are about this integration: its id, or `namespace/name`"),
        PagingParameters,
    ),
    responses((status = 200, description = "A page of replays", body = Envelope<Vec<ReplayView>, ListMeta>)),
)]
pub(super) async fn list(
    State(state): State<ManagementState>,
    grant: Grant,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    Ok(find(&state, &grant, raw.as_deref()).await?.respond())
}

pub(super) async fn find(
    state: &ManagementState,
    grant: &Grant,
    raw: Option<&str>,
) -> Result<Listed<ReplayView>, ApiError> {
    let query = Query::of_list(raw, &["state", "namespace", "integration"])?;
    let filter = ReplayJobFilter {
        state: query.choice("state", &ReplayState::ALL.map(|state| (state.as_str(), state)))?,
        namespace: query.text("namespace", MAX_NAME_CHARS)?,
        integration: query.integration("integration")?,
        visible: grant.visible.filter(),
    };
    let page = list_jobs(&state.db, &filter, query.page(ListOrder::Replays)?).await?;
    answer::list(page, ListOrder::Replays, |job| Ok(ReplayView::from(job)))
}

/// Read a replay
///
/// With how far it is with each destination.
#[utoipa::path(
    get, path = "/replays/{id}", tag = "Replays", operation_id = "readReplay",
    params(("id" = uuid::Uuid, Path, description = "The replay's id")),
    responses(
        (status = 200, description = "The replay", body = Envelope<ReplayView>),
        (status = 404, description = "There is no such replay", body = ErrorEnvelope),
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

pub(super) async fn load(state: &ManagementState, id: Uuid) -> Result<ReplayView, ApiError> {
    let progress = load_progress(&state.db, ReplayJobId::new(id)).await?;
    progress.map(ReplayView::from).ok_or_else(|| answer::not_found(KIND))
}

/// Pause a replay
///
/// Nothing more is fed within two seconds. What was fed goes on.
#[utoipa::path(
    post, path = "/replays/{id}/pause", tag = "Replays", operation_id = "pauseReplay",
    params(("id" = uuid::Uuid, Path, description = "The replay's id")),
    responses(
        (status = 200, description = "The replay is paused", body = Envelope<ReplayView>),
        (status = 404, description = "There is no such replay", body = ErrorEnvelope),
        (status = 409, description = "It has ended, or is being cancelled", body = ErrorEnvelope),
    ),
)]
pub(super) async fn pause(
    state: State<ManagementState>,
    grant: Grant,
    id: PathId,
    raw: RawQuery,
) -> Result<Response, ApiError> {
    ask(state, grant, id, raw, DesiredState::Paused).await
}

/// Resume a replay
///
/// Also one that has paused itself. It is judged by its attempts from then on.
#[utoipa::path(
    post, path = "/replays/{id}/resume", tag = "Replays", operation_id = "resumeReplay",
    params(("id" = uuid::Uuid, Path, description = "The replay's id")),
    responses(
        (status = 200, description = "The replay goes on", body = Envelope<ReplayView>),
        (status = 404, description = "There is no such replay", body = ErrorEnvelope),
        (status = 409, description = "It has ended, or is being cancelled", body = ErrorEnvelope),
    ),
)]
pub(super) async fn resume(
    state: State<ManagementState>,
    grant: Grant,
    id: PathId,
    raw: RawQuery,
) -> Result<Response, ApiError> {
    ask(state, grant, id, raw, DesiredState::Running).await
}

/// Cancel a replay
///
/// Nothing more is fed. What is under way is delivered, at most a window for each destination; what waits for a retry ends as failed.
#[utoipa::path(
    post, path = "/replays/{id}/cancel", tag = "Replays", operation_id = "cancelReplay",
    params(("id" = uuid::Uuid, Path, description = "The replay's id")),
    responses(
        (status = 200, description = "The replay is being cancelled", body = Envelope<ReplayView>),
        (status = 404, description = "There is no such replay", body = ErrorEnvelope),
        (status = 409, description = "It has ended", body = ErrorEnvelope),
    ),
)]
pub(super) async fn cancel(
    state: State<ManagementState>,
    grant: Grant,
    id: PathId,
    raw: RawQuery,
) -> Result<Response, ApiError> {
    ask(state, grant, id, raw, DesiredState::Cancelled).await
}

async fn ask(
    State(state): State<ManagementState>,
    grant: Grant,
    PathId(id): PathId,
    RawQuery(raw): RawQuery,
    desired: DesiredState,
) -> Result<Response, ApiError> {
    Query::none(raw.as_deref())?;
    Ok(success(StatusCode::OK, &ask_for(&state, &grant, id, desired).await?))
}

pub(super) async fn ask_for(
    state: &ManagementState,
    grant: &Grant,
    id: Uuid,
    desired: DesiredState,
) -> Result<ReplayView, ApiError> {
    answered(request_state(&state.db, ReplayJobId::new(id), desired, &grant.requester).await?)
}

/// The body of a change.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
struct ReplayChange {
    /// Deliveries per second.
    #[schema(minimum = 1, maximum = 5000)]
    rate_per_second: u32,
}

impl ReplayChange {
    fn of(mut members: Map<String, Value>) -> Result<Self, ApiError> {
        let rate = members.remove("ratePerSecond").ok_or("is required");
        let rate = rate.and_then(|rate| match rate.as_u64().and_then(|rate| u32::try_from(rate).ok()) {
            Some(rate) if (1..=MAX_RATE).contains(&rate) => Ok(rate),
            _ => Err("must be a whole number from 1 to 5000"),
        });
        let rate_per_second = rate.map_err(|message| ApiError::invalid("ratePerSecond", message))?;
        refuse_others(&members)?;
        Ok(Self { rate_per_second })
    }
}

/// Change the rate of a replay
///
/// It holds within two seconds.
#[utoipa::path(
    patch, path = "/replays/{id}", tag = "Replays", operation_id = "changeReplay",
    params(("id" = uuid::Uuid, Path, description = "The replay's id")),
    request_body(content = ReplayChange, description = "At most 16 KiB"),
    responses(
        (status = 200, description = "The replay has this rate", body = Envelope<ReplayView>),
        (status = 404, description = "There is no such replay", body = ErrorEnvelope),
        (status = 409, description = "It has ended, or is being cancelled", body = ErrorEnvelope),
        (status = 413, description = "The body is too large", body = ErrorEnvelope),
        (status = 415, description = "The content-type is not JSON", body = ErrorEnvelope),
    ),
)]
pub(super) async fn change(
    State(state): State<ManagementState>,
    grant: Grant,
    PathId(id): PathId,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Response, ApiError> {
    Query::none(raw.as_deref())?;
    let (parts, stream) = request.into_parts();
    let bytes = body::read_json(&parts.headers, stream, MAX_BODY_BYTES).await?;
    Ok(success(StatusCode::OK, &change_to(&state, &grant, id, body::members(&bytes)?).await?))
}

pub(super) async fn change_to(
    state: &ManagementState,
    grant: &Grant,
    id: Uuid,
    members: Map<String, Value>,
) -> Result<ReplayView, ApiError> {
    let ReplayChange { rate_per_second } = ReplayChange::of(members)?;
    answered(set_rate(&state.db, ReplayJobId::new(id), rate_per_second, &grant.requester).await?)
}

fn answered(outcome: RequestOutcome) -> Result<ReplayView, ApiError> {
    match outcome {
        RequestOutcome::Done(job) => Ok(ReplayView::from(*job)),
        RequestOutcome::TooLate(job) => {
            let message = format!("The replay is {}", job.state.as_str());
            Err(ApiError::new(ErrorCode::Conflict, message))
        }
        RequestOutcome::Unknown => Err(answer::not_found(KIND)),
    }
}

/// Refuses what is left of a body when its fields were taken out.
fn refuse_others(members: &Map<String, Value>) -> Result<(), ApiError> {
    match members.keys().next() {
        Some(unknown) => Err(ApiError::invalid(unknown, "is not a field of this body")),
        None => Ok(()),
    }
}

/// Reads whose rights count for a replay.
pub(super) async fn owner(
    state: &ManagementState,
    id: uuid::Uuid,
) -> Result<Option<replay_jobs::ReplayOwner>, ApiError> {
    Ok(replay_jobs::owner(&state.db, ReplayJobId::new(id)).await?)
}
