//! The configured integrations, without their secrets. Removed ones are history and not listed.

use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::RowState;
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::list_page::{ListStatements, list_page};
use super::owners::bare;
use super::page::{Page, PageRequest, Position};
use crate::columns::Columns;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::integrations::status::{ReadyCondition, WorkerNumbers};

/// The part of a live row that is shown.
#[derive(Debug)]
pub struct IntegrationSummary {
    pub id: IntegrationId,
    pub namespace: String,
    pub name: String,
    pub display_name: String,
    pub provider: String,
    pub route: String,
    pub state: RowState,
    /// JSON text: the `destinations` of the spec.
    pub destinations: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Absent where no controller has reported.
    pub status: Option<StatusSummary>,
}

/// The state of an object that was reported last.
#[derive(Debug)]
pub struct StatusSummary {
    pub ready: Option<ReadyCondition>,
    pub workers: WorkerNumbers,
    pub limited_by: Option<String>,
    /// Deliveries in the queues; absent: they could not be read.
    pub backlog: Option<i64>,
    /// When it was reported, or was last found to be reported.
    pub as_of: Timestamp,
}

/// A live row with its object's spec, which names secrets and has none, and with its conditions.
#[derive(Debug)]
pub struct IntegrationObject {
    pub summary: IntegrationSummary,
    pub generation: i64,
    /// JSON text, as validated.
    pub spec: String,
    /// Absent where no controller has reported.
    pub conditions: Option<ObjectConditions>,
}

/// The conditions of an object that were reported last.
#[derive(Debug)]
pub struct ObjectConditions {
    pub observed_generation: Option<i64>,
    /// JSON text.
    pub conditions: String,
    /// JSON text: the last change of the number of workers.
    pub last_scaling: Option<String>,
}

/// The integrations that a list has. Absent filters restrict nothing.
#[derive(Debug, Clone, Default)]
pub struct IntegrationFilter {
    pub provider: Option<String>,
    /// Only those that accept webhooks.
    pub active_only: bool,
    /// Only these: those that the caller may see.
    pub visible: Option<Vec<IntegrationId>>,
}

/// What a summary is read from: `i` is the row, `s` what was reported.
macro_rules! summary_columns {
    () => {
        "i.id, i.namespace, i.name, i.display_name, i.provider, i.route, i.state, i.created_at, i.updated_at,
        COALESCE(i.spec -> 'destinations', '[]')::text AS destinations,
        s.ready, s.ready_reason, s.ready_message, s.ready_since, s.desired_workers, s.workers, s.ready_workers, s.limited_by, s.backlog,
        GREATEST(s.reported_at, CASE WHEN s.integration_id IS NOT NULL THEN (SELECT confirmed_at FROM status_confirmed) END) AS as_of"
    };
}

// There are as many rows as there are objects in the cluster: they are read and sorted.
pub(super) const LIST: ListStatements = ListStatements {
    list: concat!(
        "/* views::list_integrations */
        SELECT ",
        summary_columns!(),
        "
        FROM integrations i LEFT JOIN integration_statuses s ON s.integration_id = i.id
        WHERE i.deleted_at IS NULL
            AND ($1::text IS NULL OR i.provider = $1)
            AND (NOT $2 OR i.state NOT IN ('Disabled', 'Draining'))
            AND ($3::uuid[] IS NULL OR i.id = ANY($3))
            AND ($4::uuid IS NULL OR (i.created_at, i.id) < ($5, $4))
        ORDER BY i.created_at DESC, i.id DESC LIMIT $6 OFFSET $7"
    ),
    count: "/* views::count_integrations */
        SELECT count(*) FROM (
            SELECT FROM integrations i
            WHERE i.deleted_at IS NULL
                AND ($1::text IS NULL OR i.provider = $1)
                AND (NOT $2 OR i.state NOT IN ('Disabled', 'Draining'))
                AND ($3::uuid[] IS NULL OR i.id = ANY($3))
            LIMIT 10001
        ) AS counted",
    sorted_by_time: true,
};

const LOAD: &str = concat!(
    "/* views::load_integration */
    SELECT ",
    summary_columns!(),
    ", i.generation, i.spec::text AS spec, s.observed_generation, s.conditions::text AS conditions,
        s.last_scaling::text AS last_scaling
    FROM integrations i LEFT JOIN integration_statuses s ON s.integration_id = i.id
    WHERE i.id = $1 AND i.deleted_at IS NULL"
);

/// Reads an integration that was not removed.
pub async fn load_integration(db: &Database, id: IntegrationId) -> Result<Option<IntegrationObject>> {
    db.bounded(async {
        let row = sqlx::query(LOAD).bind(id.uuid()).fetch_optional(db.pool()).await?;
        let Some(row) = row else { return Ok(None) };
        let conditions = match row.try_get::<Option<String>, _>("conditions")? {
            Some(conditions) => Some(ObjectConditions {
                observed_generation: row.try_get("observed_generation")?,
                conditions,
                last_scaling: row.try_get("last_scaling")?,
            }),
            None => None,
        };
        Ok(Some(IntegrationObject {
            summary: integration_summary(&row)?,
            generation: row.try_get("generation")?,
            spec: row.try_get("spec")?,
            conditions,
        }))
    })
    .await
}

/// Reads one page of integrations, the latest first.
pub async fn list_integrations(
    db: &Database,
    filter: &IntegrationFilter,
    request: PageRequest,
) -> Result<Page<IntegrationSummary>> {
    list_page(
        db,
        LIST,
        request,
        |statement| {
            let statement = statement.bind(filter.provider.as_deref()).bind(filter.active_only);
            statement.bind(bare(filter.visible.as_deref()))
        },
        integration_summary,
        |integration| Position { key: integration.created_at.as_microsecond(), id: integration.id.uuid() },
    )
    .await
}

fn integration_summary(row: &PgRow) -> Result<IntegrationSummary> {
    let id = row.id("id", IntegrationId::new)?;
    let corrupt = || Error::Corrupt { table: "integrations", column: "state", id: id.uuid() };
    Ok(IntegrationSummary {
        id,
        namespace: row.try_get("namespace")?,
        name: row.try_get("name")?,
        display_name: row.try_get("display_name")?,
        provider: row.try_get("provider")?,
        route: row.try_get("route")?,
        state: RowState::parse(row.try_get("state")?).ok_or_else(corrupt)?,
        destinations: row.try_get("destinations")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
        status: status_summary(row)?,
    })
}

fn status_summary(row: &PgRow) -> Result<Option<StatusSummary>> {
    let Some(as_of) = row.optional_time("as_of")? else { return Ok(None) };
    let text = |column: &str| -> Result<String> {
        Ok(row.try_get::<Option<String>, _>(column)?.unwrap_or_default())
    };
    let ready = match (row.try_get("ready")?, row.optional_time("ready_since")?) {
        (Some(status), Some(since)) => Some(ReadyCondition {
            status,
            reason: text("ready_reason")?,
            message: text("ready_message")?,
            since,
        }),
        _ => None,
    };
    Ok(Some(StatusSummary {
        ready,
        workers: WorkerNumbers {
            desired: row.try_get("desired_workers")?,
            existing: row.try_get("workers")?,
            ready: row.try_get("ready_workers")?,
        },
        limited_by: row.try_get("limited_by")?,
        backlog: row.try_get("backlog")?,
        as_of,
    }))
}
