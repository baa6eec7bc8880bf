//! `GET /integrations`, and one with its conditions and its statistics.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer::{self, ListMeta, Listed};
use super::authorize::Grant;
use super::cursor::ListOrder;
use super::model::{IntegrationRecordView, IntegrationStatsView, IntegrationView};
use super::path::PathId;
use super::query::{PagingParameters, Query};
use super::{MAX_NAME_CHARS, ManagementState};
use crate::http::envelope::{ApiError, Envelope, ErrorEnvelope};
use grapnel_core::ids::IntegrationId;
use grapnel_store::views::{IntegrationFilter, list_integrations, load_integration, load_traffic};

/// List the configured integrations
///
/// Removed integrations are not listed, and secrets are never shown. The latest come first.
#[utoipa::path(
    get, path = "/integrations", tag = "Integrations", operation_id = "listIntegrations",
    params(
        ("provider" = Option<String>, Query, min_length = 1, max_length = 100, description = "Only of this provider"),
        ("activeOnly" = Option<bool>, Query, description = "`true`: only those that accept webhooks. `false` restricts nothing"),
        PagingParameters,
    ),
    responses((status = 200, description = "A page of integrations", body = Envelope<Vec<IntegrationView>, ListMeta>)),
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
) -> Result<Listed<IntegrationView>, ApiError> {
    let query = Query::of_list(raw, &["provider", "activeOnly"])?;
    let filter = IntegrationFilter {
        provider: query.text("provider", MAX_NAME_CHARS)?,
        active_only: query.choice("activeOnly", &[("true", true), ("false", false)])?.unwrap_or(false),
        visible: grant.visible.filter(),
    };
    let page = list_integrations(&state.db, &filter, query.page(ListOrder::Integrations)?).await?;
    answer::list(page, ListOrder::Integrations, IntegrationView::from_summary)
}

/// Read an integration
///
/// With the conditions of its object, as the controller reported them.
#[utoipa::path(
    get, path = "/integrations/{id}", tag = "Integrations", operation_id = "readIntegration",
    params(("id" = uuid::Uuid, Path, description = "The integration's id")),
    responses(
        (status = 200, description = "The integration", body = Envelope<IntegrationRecordView>),
        (status = 404, description = "There is no such integration", body = ErrorEnvelope),
    ),
)]
pub(super) async fn read(
    State(state): State<ManagementState>,
    PathId(id): PathId,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    Query::none(raw.as_deref())?;
    Ok(answer::item(&load(&state, id).await?.0))
}

/// Reads an Integration and its spec, as it was validated last. Secrets are in it as references.
pub(super) async fn load(
    state: &ManagementState,
    id: Uuid,
) -> Result<(IntegrationRecordView, serde_json::Value), ApiError> {
    let object = load_integration(&state.db, IntegrationId::new(id)).await?;
    let object = object.ok_or_else(|| answer::not_found("integration"))?;
    let spec = serde_json::from_str(&object.spec).map_err(|error| {
        tracing::error!(%error, integration.id = %id, "the spec of an integration is no JSON");
        ApiError::internal()
    })?;
    Ok((IntegrationRecordView::from_object(object)?, spec))
}

/// Values of `window`.
#[expect(dead_code, reason = "only described, never made")]
#[derive(Debug, Clone, Copy, ToSchema)]
enum Window {
    #[schema(rename = "1h")]
    Hour,
    #[schema(rename = "24h")]
    Day,
    #[schema(rename = "7d")]
    Week,
}

/// The values of `window`, as hours.
const WINDOWS: [(&str, i64); 3] = [("1h", 1), ("24h", 24), ("7d", 7 * 24)];

/// Read the statistics of an integration
///
/// Counted by the minute, so the window begins with a whole one. What the processes counted in the last five seconds is missing, and so is what one
/// that was killed had counted in its own; `accepted` and `delivered` of minutes that ended two minutes ago are exact.
#[utoipa::path(
    get, path = "/integrations/{id}/stats", tag = "Integrations", operation_id = "readIntegrationStats",
    params(
        ("id" = uuid::Uuid, Path, description = "The integration's id"),
        ("window" = inline(Option<Window>), Query, description = "How far back; `1h` by default"),
    ),
    responses(
        (status = 200, description = "The statistics", body = Envelope<IntegrationStatsView>),
        (status = 404, description = "There is no such integration", body = ErrorEnvelope),
    ),
)]
pub(super) async fn stats(
    State(state): State<ManagementState>,
    PathId(id): PathId,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    Ok(answer::item(&count(&state, id, raw.as_deref()).await?))
}

/// Reads the statistics that a query asks for.
pub(super) async fn count(
    state: &ManagementState,
    id: Uuid,
    raw: Option<&str>,
) -> Result<IntegrationStatsView, ApiError> {
    let query = Query::of_item(raw, &["window"])?;
    let hours = query.choice("window", &WINDOWS)?.unwrap_or(1);
    let minute = TimestampRound::new().smallest(Unit::Minute).mode(RoundMode::Floor);
    let from = Timestamp::now() - SignedDuration::from_hours(hours);
    let from = from.round(minute).unwrap_or(from);
    let stats = load_traffic(&state.db, IntegrationId::new(id), from).await?;
    stats.map(|stats| IntegrationStatsView::new(from, stats)).ok_or_else(|| answer::not_found("integration"))
}
