//! `GET /rejections`.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::authorize::Grant;
use super::query::Query;
use super::{MAX_NAME_CHARS, ManagementState, answer};
use crate::http::envelope::{ApiError, Envelope, ErrorEnvelope, success_with_meta};
use crate::rejections::Rejection;
use grapnel_store::views::owner_of_route;

/// `meta` of the rejections.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RejectionsMeta {
    /// False where Redis, in which they are kept, does not answer or is not known: then there may be some, and none are listed.
    pub(crate) available: bool,
}

/// Returns the route that a query names.
pub(super) fn route(raw: Option<&str>) -> Result<String, ApiError> {
    let query = Query::of_item(raw, &["route"])?;
    query.text("route", MAX_NAME_CHARS)?.ok_or_else(|| ApiError::invalid("route", "is required"))
}

/// List the last webhooks that a route refused
///
/// The latest come first, at most 100, of the last seven days. Each process notes at most ten in a second. Never a body or the value of a header.
#[utoipa::path(
    get, path = "/rejections", tag = "Webhooks", operation_id = "listRejections",
    params(("route" = String, Query, min_length = 1, max_length = 100, description = "The integration's route")),
    responses(
        (status = 200, description = "The refused webhooks", body = Envelope<Vec<Rejection>, RejectionsMeta>),
        (status = 404, description = "There is no integration at this route", body = ErrorEnvelope),
    ),
)]
pub(super) async fn list(
    State(state): State<ManagementState>,
    grant: Grant,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let (rejections, meta) = read(&state, &grant, &route(raw.as_deref())?).await?;
    Ok(success_with_meta(StatusCode::OK, &rejections, &meta))
}

/// Reads the last refused webhooks of a route, which the grant is for.
pub(super) async fn read(
    state: &ManagementState,
    grant: &Grant,
    route: &str,
) -> Result<(Vec<Rejection>, RejectionsMeta), ApiError> {
    let id = match grant.visible.only() {
        Some(id) => id,
        None => {
            let owner = owner_of_route(&state.db, route).await?;
            owner.ok_or_else(|| answer::not_found("route"))?.id
        }
    };
    let rejections = match &state.rejections {
        Some(rejections) => rejections.read(id).await,
        None => None,
    };
    let meta = RejectionsMeta { available: rejections.is_some() };
    Ok((rejections.unwrap_or_default(), meta))
}
