//! `GET /audit-entries`.

use axum::extract::{RawQuery, State};
use axum::response::Response;

use super::answer::{self, ListMeta};
use super::cursor::ListOrder;
use super::model::{AuditEntityView, AuditEntryView};
use super::query::{PagingParameters, Query};
use super::{MAX_NAME_CHARS, ManagementState};
use crate::http::envelope::{ApiError, Envelope};
use grapnel_store::views::{AuditEntity, AuditFilter, list_audit_entries};

/// List audit entries
///
/// The latest come first.
#[utoipa::path(
    get, path = "/audit-entries", tag = "Audit", operation_id = "listAuditEntries",
    params(
        ("entityType" = Option<AuditEntityView>, Query, description = "Only about entities of this type"),
        ("entityId" = Option<uuid::Uuid>, Query, description = "Only about this entity"),
        ("action" = Option<String>, Query, min_length = 1, max_length = 100,
            description = "Only of this action, such as `replay.requested`"),
        PagingParameters,
    ),
    responses((status = 200, description = "A page of entries", body = Envelope<Vec<AuditEntryView>, ListMeta>)),
)]
pub(super) async fn list(
    State(state): State<ManagementState>,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let query = Query::of_list(raw.as_deref(), &["entityType", "entityId", "action"])?;
    let filter = AuditFilter {
        entity_type: query.choice("entityType", &AuditEntity::ALL.map(|entity| (entity.as_str(), entity)))?,
        entity_id: query.uuid("entityId")?,
        action: query.text("action", MAX_NAME_CHARS)?,
    };
    let page = list_audit_entries(&state.db, &filter, query.page(ListOrder::AuditEntries)?).await?;
    answer::list(page, ListOrder::AuditEntries, AuditEntryView::from_row)
}
