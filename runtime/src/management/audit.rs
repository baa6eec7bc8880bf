//! `GET /audit-entries`.

use axum::extract::{RawQuery, State};
use axum::response::Response;

use super::answer::{self, ListMeta, Listed};
use super::authorize::Grant;
use super::cursor::ListOrder;
use super::model::{AuditEntityView, AuditEntryView};
use super::query::{PagingParameters, Query};
use super::{MAX_FILTER_CHARS, MAX_NAME_CHARS, ManagementState, time_bounds};
use crate::http::envelope::{ApiError, Envelope};
use grapnel_store::views::{AuditEntity, AuditFilter, IntegrationSelection, list_audit_entries};

const PARAMETERS: [&str; 7] = ["entityType", "entityId", "action", "actor", "from", "to", "integration"];

/// List audit entries
///
/// The latest come first. `actor` and `integration` have no index: the list is walked for at most two seconds. A page that ran out of time has
/// `meta.scannedThrough`, and `meta.nextCursor` goes on from there.
#[utoipa::path(
    get, path = "/audit-entries", tag = "Audit", operation_id = "listAuditEntries",
    params(
        ("entityType" = Option<AuditEntityView>, Query, description = "Only about entities of this type"),
        ("entityId" = Option<uuid::Uuid>, Query, description = "Only about this entity"),
        ("action" = Option<String>, Query, min_length = 1, max_length = 100,
            description = "Only of this action, such as `replay.requested`"),
        ("actor" = Option<String>, Query, min_length = 1, max_length = 255, description = "Only by this actor"),
        ("from" = Option<String>, Query, format = DateTime, description = "Only of this time or later"),
        ("to" = Option<String>, Query, format = DateTime, description = "Only of this time or earlier"),
        ("integration" = Option<String>, Query, min_length = 3, max_length = 507,
            description = "Only about this integration, its events and their replays: its id, or `namespace/name`, also of one that was deleted"),
        PagingParameters,
    ),
    responses((status = 200, description = "A page of entries", body = Envelope<Vec<AuditEntryView>, ListMeta>)),
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
) -> Result<Listed<AuditEntryView>, ApiError> {
    let query = Query::of_list(raw, &PARAMETERS)?;
    let filter = AuditFilter {
        entity_type: query.choice("entityType", &AuditEntity::ALL.map(|entity| (entity.as_str(), entity)))?,
        entity_id: query.uuid("entityId")?,
        action: query.text("action", MAX_NAME_CHARS)?,
        actor: query.text("actor", MAX_FILTER_CHARS)?,
        integrations: IntegrationSelection {
            integration: query.integration("integration")?,
            namespaces: None,
        },
        from: time_bounds::from(&query, "from")?,
        until: time_bounds::until(&query, "to")?,
        visible: grant.visible.filter(),
    };
    let walked = query.first_of(&["actor", "integration"]).filter(|_| filter.entity_id.is_none());
    let request = query.page_of_search(ListOrder::AuditEntries, walked)?;
    let page = list_audit_entries(&state.db, &filter, request).await?;
    answer::list(page, ListOrder::AuditEntries, AuditEntryView::from_row)
}
