//! `GET /deliveries`: delivery attempts.

use axum::extract::{RawQuery, State};
use axum::response::Response;

use super::answer::{self, ListMeta, Listed};
use super::authorize::Grant;
use super::cursor::ListOrder;
use super::model::{AttemptStatusView, AttemptView};
use super::query::{PagingParameters, Query};
use super::{MAX_FILTER_CHARS, MAX_NAME_CHARS, ManagementState, time_bounds};
use crate::http::envelope::{ApiError, Envelope};
use grapnel_core::ids::EventId;
use grapnel_store::views::{AttemptFilter, IntegrationSelection, list_attempts};

/// The values of `status`, as whether the attempt succeeded.
const STATUSES: [(&str, bool); 2] = [("success", true), ("failed", false)];

const PARAMETERS: [&str; 8] =
    ["status", "eventId", "integration", "destination", "from", "to", "httpStatus", "errorContains"];

/// The parameters that no index serves, unless an event is given.
const WALKED: [&str; 3] = ["destination", "httpStatus", "errorContains"];

/// List delivery attempts
///
/// The latest come first. `destination`, `httpStatus` and `errorContains` have no index: without `eventId` the list is walked for at most two
/// seconds. A page that ran out of time has `meta.scannedThrough`, and `meta.nextCursor` goes on from there.
#[utoipa::path(
    get, path = "/deliveries", tag = "Deliveries", operation_id = "listDeliveries",
    params(
        ("status" = Option<AttemptStatusView>, Query, description = "Only those with this outcome"),
        ("eventId" = Option<uuid::Uuid>, Query, description = "Only of this event"),
        ("integration" = Option<String>, Query, min_length = 3, max_length = 507,
            description = "Only of this integration: its id, or `namespace/name`, also of one that was deleted"),
        ("destination" = Option<String>, Query, min_length = 1, max_length = 100, description = "Only to destinations of this name"),
        ("from" = Option<String>, Query, format = DateTime, description = "Only those recorded at this time or later (`createdAt`)"),
        ("to" = Option<String>, Query, format = DateTime, description = "Only those recorded at this time or earlier"),
        ("httpStatus" = Option<i16>, Query, minimum = 100, maximum = 599, description = "Only those answered with this status"),
        ("errorContains" = Option<String>, Query, min_length = 1, max_length = 255,
            description = "Only with this text anywhere in the error, in upper or lower case"),
        PagingParameters,
    ),
    responses((status = 200, description = "A page of attempts", body = Envelope<Vec<AttemptView>, ListMeta>)),
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
) -> Result<Listed<AttemptView>, ApiError> {
    let query = Query::of_list(raw, &PARAMETERS)?;
    let filter = AttemptFilter {
        event_id: query.uuid("eventId")?.map(EventId::new),
        succeeded: query.choice("status", &STATUSES)?,
        integrations: IntegrationSelection {
            integration: query.integration("integration")?,
            namespaces: None,
        },
        destination: query.text("destination", MAX_NAME_CHARS)?,
        from: time_bounds::from(&query, "from")?,
        until: time_bounds::until(&query, "to")?,
        http_status: query.http_status("httpStatus")?,
        error: query.text("errorContains", MAX_FILTER_CHARS)?,
        visible: grant.visible_with(&query, &["errorContains"])?.filter(),
    };
    let walked = query.first_of(&WALKED).filter(|_| filter.event_id.is_none());
    let request = query.page_of_search(ListOrder::Attempts, walked)?;
    let page = list_attempts(&state.db, &filter, request).await?;
    answer::list(page, ListOrder::Attempts, |row| {
        let shows_payload = grant.payloads.includes(row.integration_id);
        Ok(AttemptView::from_row(row, shows_payload))
    })
}
