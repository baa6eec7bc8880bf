//! The audit trail: the entries that are stored, and those that are derived from events and attempts ([`derived`]), in one order.

use grapnel_core::ids::{AuditEntryId, IntegrationId};
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::CLOCK_SKEW_MILLISECONDS;
use super::id_time::{id_floor, time_of_id};
use super::integration_scope::IntegrationSelection;
use super::page::{Page, PageRequest};
use crate::columns::Columns;
use crate::database::Database;
use crate::error::{Error, Result};

mod count;
mod derived;
pub(super) mod list;
mod search;

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
    pub actor: Option<String>,
    /// Entries about these integrations, their events and the replays of these.
    pub integrations: IntegrationSelection,
    /// The earliest time.
    pub from: Option<Timestamp>,
    /// The end of the times, exclusive.
    pub until: Option<Timestamp>,
    /// Only about these integrations, their events and the replays of these: what the caller may see.
    pub visible: Option<Vec<IntegrationId>>,
}

impl AuditFilter {
    /// Whether it has a filter that only a search knows.
    fn needs_search(&self) -> bool {
        self.actor.is_some() || !self.integrations.is_any() || self.from.is_some() || self.until.is_some()
    }

    fn entity_type(&self) -> Option<&'static str> {
        self.entity_type.map(AuditEntity::as_str)
    }
}

/// The integration that an entry `a` is about, itself or by its event.
macro_rules! integration_of_entry {
    () => {
        "CASE a.entity_type
                WHEN 'integration' THEN a.entity_id
                WHEN 'event' THEN (SELECT e.integration_id FROM events e WHERE e.id = a.entity_id)
                ELSE (
                    SELECT (SELECT e.integration_id FROM events e WHERE e.id = r.event_id)
                    FROM replay_requests r WHERE r.id = a.entity_id
                ) END"
    };
}
use integration_of_entry;

/// Whether a stored entry `a` passes the filters that have an index: `$1` the entity, `$2` the smallest id that an entry about it can have, `$3` the
/// type, `$4` the action. The clauses with literals only repeat what the parameters select; they let the planner prove that a partial index applies.
macro_rules! is_listed {
    () => {
        "($1::uuid IS NULL OR a.entity_id = $1 AND a.id >= $2)
                AND ($3::text IS NULL OR a.entity_type::text = $3)
                AND ($3::text IS NULL OR $3 = 'event' OR a.entity_type <> 'event')
                AND ($4::text IS NULL OR a.action = $4)
                AND ($4::text IS NULL OR $4 IN ('webhook.received', 'event.processed')
                    OR a.action NOT IN ('webhook.received', 'event.processed'))"
    };
}
use is_listed;

/// Reads one page of audit entries, the latest first.
pub async fn list_audit_entries(
    db: &Database,
    filter: &AuditFilter,
    request: PageRequest,
) -> Result<Page<AuditEntryRow>> {
    if filter.needs_search() {
        search::search(db, filter, request, audit_entry_row).await
    } else {
        list::list(db, filter, request, audit_entry_row).await
    }
}

/// Returns the smallest id that a stored entry about the entity of a filter can have.
fn oldest_about(filter: &AuditFilter) -> Option<Uuid> {
    filter.entity_id.map(|entity_id| id_floor(entity_id, CLOCK_SKEW_MILLISECONDS))
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
