//! `GET /integrations`.

use axum::extract::{RawQuery, State};
use axum::response::Response;

use super::answer::{self, ListMeta};
use super::cursor::ListOrder;
use super::model::IntegrationView;
use super::query::{PagingParameters, Query};
use super::{MAX_NAME_CHARS, ManagementState};
use crate::http::envelope::{ApiError, Envelope};
use grapnel_store::views::{IntegrationFilter, list_integrations};

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
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let query = Query::of_list(raw.as_deref(), &["provider", "activeOnly"])?;
    let filter = IntegrationFilter {
        provider: query.text("provider", MAX_NAME_CHARS)?,
        active_only: query.choice("activeOnly", &[("true", true), ("false", false)])?.unwrap_or(false),
    };
    let page = list_integrations(&state.db, &filter, query.page(ListOrder::Integrations)?).await?;
    answer::list(page, ListOrder::Integrations, IntegrationView::from_summary)
}
