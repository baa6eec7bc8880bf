//! The configured integrations, without their secrets. Removed ones are history and not listed.

use jiff_sqlx::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::postgres::PgRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::page::{Page, PageRequest, Position, Total};
use super::snapshot::Snapshot;
use super::{Instant, known};
use crate::database::Database;
use crate::error::{Error, Result};

/// A configured source and its destinations.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Integration {
    pub id: Uuid,
    pub namespace: String,
    pub name: String,
    pub display_name: String,
    pub provider: String,
    /// The last segment of the path that the provider posts to.
    pub route: String,
    pub state: IntegrationState,
    /// Webhooks are accepted: the state is `Active` or `DeliveryPaused`.
    pub is_active: bool,
    pub destinations: Vec<Destination>,
    pub created_at: Instant,
    pub updated_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub enum IntegrationState {
    /// Webhooks are accepted and delivered.
    Active,
    /// Webhooks are accepted and stored, and nothing is delivered.
    DeliveryPaused,
    /// Webhooks are refused.
    Disabled,
    /// Its object is being deleted: webhooks are refused, and what was accepted is still delivered.
    Draining,
}

/// A named callback URL.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Destination {
    pub name: String,
    pub url: String,
}

#[derive(Debug, Clone, Default)]
pub struct IntegrationFilter {
    pub provider: Option<String>,
    pub active_only: bool,
}

macro_rules! filters {
    () => {
        "i.deleted_at IS NULL
        AND ($1::text IS NULL OR i.provider = $1)
        AND (NOT $2 OR i.state NOT IN ('Disabled', 'Draining'))"
    };
}

// There are as many rows as there are objects in the cluster: they are read and sorted.
const LIST: &str = concat!(
    "/* views::list_integrations */
    SELECT i.id, i.namespace, i.name, i.display_name, i.provider, i.route, i.state, i.created_at, i.updated_at,
        COALESCE(i.spec -> 'destinations', '[]')::text AS destinations
    FROM integrations i WHERE ",
    filters!(),
    " AND ($3::uuid IS NULL OR (i.created_at, i.id) < ($4, $3))
    ORDER BY i.created_at DESC, i.id DESC LIMIT $5 OFFSET $6"
);

const COUNT: &str = concat!(
    "/* views::count_integrations */ SELECT count(*) FROM (SELECT FROM integrations i WHERE ",
    filters!(),
    " LIMIT 10001) AS counted"
);

/// One page of integrations, the latest first.
pub async fn list_integrations(
    db: &Database,
    filter: &IntegrationFilter,
    request: PageRequest,
) -> Result<Page<Integration>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let rows = sqlx::query(LIST)
            .bind(filter.provider.as_deref())
            .bind(filter.active_only)
            .bind(request.after_id())
            .bind(request.after_time())
            .bind(request.limit())
            .bind(request.offset())
            .fetch_all(snapshot.connection())
            .await?;
        let counted = sqlx::query_scalar(COUNT)
            .bind(filter.provider.as_deref())
            .bind(filter.active_only)
            .fetch_one(snapshot.connection())
            .await?;
        snapshot.release().await?;
        let integrations = rows.iter().map(integration_of).collect::<Result<Vec<_>>>()?;
        Ok(request.page(integrations, Total::of(counted), |integration| Position {
            key: integration.created_at.0.as_microsecond(),
            id: integration.id,
        }))
    })
    .await
}

fn integration_of(row: &PgRow) -> Result<Integration> {
    let id: Uuid = row.try_get("id")?;
    let state: &str = row.try_get("state")?;
    let state = match state {
        "Active" => Some(IntegrationState::Active),
        "DeliveryPaused" => Some(IntegrationState::DeliveryPaused),
        "Disabled" => Some(IntegrationState::Disabled),
        "Draining" => Some(IntegrationState::Draining),
        _ => None,
    };
    let state = known(state, "integrations", "state", id)?;
    let destinations: &str = row.try_get("destinations")?;
    let destinations = serde_json::from_str(destinations).map_err(|source| Error::Corrupt {
        table: "integrations",
        column: "spec",
        id,
        source: Some(source),
    })?;
    Ok(Integration {
        id,
        namespace: row.try_get("namespace")?,
        name: row.try_get("name")?,
        display_name: row.try_get("display_name")?,
        provider: row.try_get("provider")?,
        route: row.try_get("route")?,
        state,
        is_active: matches!(state, IntegrationState::Active | IntegrationState::DeliveryPaused),
        destinations,
        created_at: row.try_get::<Timestamp, _>("created_at")?.into(),
        updated_at: row.try_get::<Timestamp, _>("updated_at")?.into(),
    })
}
