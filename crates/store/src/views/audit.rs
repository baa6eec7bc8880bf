//! The audit trail.

use grapnel_core::ids::AuditEntryId;
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::CLOCK_SKEW_MILLISECONDS;
use super::id_time::{id_floor, time_of_id};
use super::list_page::{ListStatements, list_page};
use super::page::{Page, PageRequest, Position};
use crate::columns::Columns;
use crate::database::Database;
use crate::error::{Error, Result};

/// A record of a lifecycle action. Entries are only ever added.
#[derive(Debug)]
pub struct AuditEntryRow {
    pub id: AuditEntryId,
    pub entity_type: AuditEntity,
    pub entity_id: Uuid,
    /// The action, such as `replay.requested`.
    pub action: String,
    /// The one who did it.
    pub actor: String,
    /// JSON text.
    pub details: String,
    /// The time in the id, which the list is sorted by.
    pub created_at: Timestamp,
}

/// The kind of thing that an audit entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditEntity {
    Integration,
    Event,
    ReplayRequest,
}

impl AuditEntity {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Integration, Self::Event, Self::ReplayRequest];

    /// The stored form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Integration => "integration",
            Self::Event => "event",
            Self::ReplayRequest => "replay_request",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|entity| entity.as_str() == text)
    }
}

/// The entries that a list has. Absent filters restrict nothing.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub entity_type: Option<AuditEntity>,
    pub entity_id: Option<Uuid>,
    pub action: Option<String>,
}

// $1 the entity, $2 the smallest id that an entry about it can have, $3 the type, $4 the action. The clauses with
// literals only repeat what the parameters select; they let the planner prove that a partial index applies.
pub(super) const LIST: ListStatements = ListStatements {
    list: "/* views::list_audit_entries */
        SELECT a.id, a.entity_type::text AS entity_type, a.entity_id, a.action, a.actor,
            COALESCE(a.details::text, '{}') AS details
        FROM audit_entries a
        WHERE ($1::uuid IS NULL OR a.entity_id = $1 AND a.id >= $2)
            AND ($3::text IS NULL OR a.entity_type::text = $3)
            AND ($3::text IS NULL OR $3 = 'event' OR a.entity_type <> 'event')
            AND ($4::text IS NULL OR a.action = $4)
            AND ($4::text IS NULL OR $4 IN ('webhook.received', 'event.processed')
                OR a.action NOT IN ('webhook.received', 'event.processed'))
            AND ($5::uuid IS NULL OR a.id < $5)
        ORDER BY a.id DESC LIMIT $6 OFFSET $7",
    count: "/* views::count_audit_entries */
        SELECT count(*) FROM (
            SELECT FROM audit_entries a
            WHERE ($1::uuid IS NULL OR a.entity_id = $1 AND a.id >= $2)
                AND ($3::text IS NULL OR a.entity_type::text = $3)
                AND ($3::text IS NULL OR $3 = 'event' OR a.entity_type <> 'event')
                AND ($4::text IS NULL OR a.action = $4)
                AND ($4::text IS NULL OR $4 IN ('webhook.received', 'event.processed')
                    OR a.action NOT IN ('webhook.received', 'event.processed'))
            LIMIT 10001
        ) AS counted",
    sorted_by_time: false,
};

/// Reads one page of audit entries, the latest first.
pub async fn list_audit_entries(
    db: &Database,
    filter: &AuditFilter,
    request: PageRequest,
) -> Result<Page<AuditEntryRow>> {
    let oldest = filter.entity_id.map(|entity_id| id_floor(entity_id, CLOCK_SKEW_MILLISECONDS));
    let entity_type = filter.entity_type.map(AuditEntity::as_str);
    list_page(
        db,
        LIST,
        request,
        |statement| {
            statement.bind(filter.entity_id).bind(oldest).bind(entity_type).bind(filter.action.as_deref())
        },
        audit_entry_row,
        |entry| Position { key: 0, id: entry.id.uuid() },
    )
    .await
}

fn audit_entry_row(row: &PgRow) -> Result<AuditEntryRow> {
    let id = row.id("id", AuditEntryId::new)?;
    let corrupt = |column| move || Error::Corrupt { table: "audit_entries", column, id: id.uuid() };
    Ok(AuditEntryRow {
        id,
        entity_type: AuditEntity::parse(row.try_get("entity_type")?).ok_or_else(corrupt("entity_type"))?,
        entity_id: row.try_get("entity_id")?,
        action: row.try_get("action")?,
        actor: row.try_get("actor")?,
        details: row.try_get("details")?,
        created_at: time_of_id(id.uuid()).ok_or_else(corrupt("id"))?,
    })
}
