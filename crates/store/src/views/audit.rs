//! The audit trail.

use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::Row;
use sqlx::postgres::PgRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::instant::id_floor;
use super::page::{Page, PageRequest, Position, Total};
use super::snapshot::Snapshot;
use super::{CLOCK_SLACK_MILLISECONDS, Instant, known};
use crate::database::Database;
use crate::error::{Error, Result};

/// A record of a lifecycle action. Entries are only ever added.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    pub id: Uuid,
    pub entity_type: AuditEntity,
    pub entity_id: Uuid,
    /// What was done, such as `replay.requested`.
    pub action: String,
    /// Who did it.
    pub actor: String,
    #[schema(value_type = Object)]
    pub details: Box<RawValue>,
    pub created_at: Instant,
}

/// What an audit entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditEntity {
    Integration,
    Event,
    ReplayRequest,
}

impl AuditEntity {
    pub const ALL: [Self; 3] = [Self::Integration, Self::Event, Self::ReplayRequest];

    /// As the API and the statements have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Integration => "integration",
            Self::Event => "event",
            Self::ReplayRequest => "replay_request",
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub entity_type: Option<AuditEntity>,
    pub entity_id: Option<Uuid>,
    pub action: Option<String>,
}

// $1 the entity, $2 the smallest id that an entry about it can have, $3 the type, $4 the action. The clauses with
// literals say nothing that the parameters do not say; they let the planner prove that a partial index applies.
macro_rules! filters {
    () => {
        "($1::uuid IS NULL OR a.entity_id = $1 AND a.id >= $2)
        AND ($3::text IS NULL OR a.entity_type::text = $3)
        AND ($3::text IS NULL OR $3 = 'event' OR a.entity_type <> 'event')
        AND ($4::text IS NULL OR a.action = $4)
        AND ($4::text IS NULL OR $4 IN ('webhook.received', 'event.processed')
            OR a.action NOT IN ('webhook.received', 'event.processed'))"
    };
}

const LIST: &str = concat!(
    "/* views::list_audit_entries */
    SELECT a.id, a.entity_type::text AS entity_type, a.entity_id, a.action, a.actor,
        COALESCE(a.details::text, '{}') AS details
    FROM audit_entries a WHERE ",
    filters!(),
    " AND ($5::uuid IS NULL OR a.id < $5) ORDER BY a.id DESC LIMIT $6 OFFSET $7"
);

const COUNT: &str = concat!(
    "/* views::count_audit_entries */ SELECT count(*) FROM (SELECT FROM audit_entries a WHERE ",
    filters!(),
    " LIMIT 10001) AS counted"
);

/// One page of audit entries, the latest first.
pub async fn list_audit_entries(
    db: &Database,
    filter: &AuditFilter,
    request: PageRequest,
) -> Result<Page<AuditEntry>> {
    db.bounded(async {
        let oldest = filter.entity_id.map(|entity_id| id_floor(entity_id, CLOCK_SLACK_MILLISECONDS));
        let entity_type = filter.entity_type.map(AuditEntity::as_str);
        let mut snapshot = Snapshot::take(db).await?;
        let rows = sqlx::query(LIST)
            .bind(filter.entity_id)
            .bind(oldest)
            .bind(entity_type)
            .bind(filter.action.as_deref())
            .bind(request.after_id())
            .bind(request.limit())
            .bind(request.offset())
            .fetch_all(snapshot.connection())
            .await?;
        let counted = sqlx::query_scalar(COUNT)
            .bind(filter.entity_id)
            .bind(oldest)
            .bind(entity_type)
            .bind(filter.action.as_deref())
            .fetch_one(snapshot.connection())
            .await?;
        snapshot.release().await?;
        let entries = rows.iter().map(entry_of).collect::<Result<Vec<_>>>()?;
        Ok(request.page(entries, Total::of(counted), |entry| Position { key: 0, id: entry.id }))
    })
    .await
}

fn entry_of(row: &PgRow) -> Result<AuditEntry> {
    let id: Uuid = row.try_get("id")?;
    let entity_type: &str = row.try_get("entity_type")?;
    let entity_type = AuditEntity::ALL.into_iter().find(|known| known.as_str() == entity_type);
    let details: String = row.try_get("details")?;
    Ok(AuditEntry {
        id,
        entity_type: known(entity_type, "audit_entries", "entity_type", id)?,
        entity_id: row.try_get("entity_id")?,
        action: row.try_get("action")?,
        actor: row.try_get("actor")?,
        details: RawValue::from_string(details).map_err(|source| Error::Corrupt {
            table: "audit_entries",
            column: "details",
            id,
            source: Some(source),
        })?,
        created_at: known(Instant::of_id(id), "audit_entries", "id", id)?,
    })
}
