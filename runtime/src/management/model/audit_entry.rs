//! Entries of the audit trail.

use grapnel_store::views::{AuditEntity, AuditEntryRow};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{InvalidJson, Rfc3339Millis};

/// A record of a lifecycle action. Entries are only ever added.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry)]
pub(crate) struct AuditEntryView {
    pub(crate) id: Uuid,
    pub(crate) entity_type: AuditEntityView,
    pub(crate) entity_id: Uuid,
    /// The action, such as `replay.requested`.
    pub(crate) action: String,
    /// The one who did it.
    pub(crate) actor: String,
    #[schema(value_type = Object)]
    pub(crate) details: Box<RawValue>,
    pub(crate) created_at: Rfc3339Millis,
}

impl AuditEntryView {
    /// Renders a row.
    pub(in crate::management) fn from_row(row: AuditEntryRow) -> Result<Self, InvalidJson> {
        let id = row.id.uuid();
        let details = RawValue::from_string(row.details).map_err(|source| InvalidJson {
            table: "audit_entries",
            column: "details",
            id,
            source,
        })?;
        Ok(Self {
            id,
            entity_type: row.entity_type.into(),
            entity_id: row.entity_id,
            action: row.action,
            actor: row.actor,
            details,
            created_at: row.created_at.into(),
        })
    }
}

/// The kind of thing that an audit entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditEntity)]
pub(crate) enum AuditEntityView {
    Integration,
    Event,
    ReplayRequest,
}

impl From<AuditEntity> for AuditEntityView {
    fn from(entity: AuditEntity) -> Self {
        match entity {
            AuditEntity::Integration => Self::Integration,
            AuditEntity::Event => Self::Event,
            AuditEntity::ReplayRequest => Self::ReplayRequest,
        }
    }
}
