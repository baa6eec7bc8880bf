//! The configured integrations, without their secrets. Removed ones are history and not listed.

use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::RowState;
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::list_page::{ListStatements, list_page};
use super::page::{Page, PageRequest, Position};
use crate::columns::Columns;
use crate::database::Database;
use crate::error::{Error, Result};

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
}

/// The integrations that a list has. Absent filters restrict nothing.
#[derive(Debug, Clone, Default)]
pub struct IntegrationFilter {
    pub provider: Option<String>,
    /// Only those that accept webhooks.
    pub active_only: bool,
}

// There are as many rows as there are objects in the cluster: they are read and sorted.
pub(super) const LIST: ListStatements = ListStatements {
    list: "/* views::list_integrations */
        SELECT i.id, i.namespace, i.name, i.display_name, i.provider, i.route, i.state, i.created_at, i.updated_at,
            COALESCE(i.spec -> 'destinations', '[]')::text AS destinations
        FROM integrations i
        WHERE i.deleted_at IS NULL
            AND ($1::text IS NULL OR i.provider = $1)
            AND (NOT $2 OR i.state NOT IN ('Disabled', 'Draining'))
            AND ($3::uuid IS NULL OR (i.created_at, i.id) < ($4, $3))
        ORDER BY i.created_at DESC, i.id DESC LIMIT $5 OFFSET $6",
    count: "/* views::count_integrations */
        SELECT count(*) FROM (
            SELECT FROM integrations i
            WHERE i.deleted_at IS NULL
                AND ($1::text IS NULL OR i.provider = $1)
                AND (NOT $2 OR i.state NOT IN ('Disabled', 'Draining'))
            LIMIT 10001
        ) AS counted",
    sorted_by_time: true,
};

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
        |statement| statement.bind(filter.provider.as_deref()).bind(filter.active_only),
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
    })
}
