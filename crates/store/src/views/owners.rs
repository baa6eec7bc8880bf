//! Which integration something belongs to: whoever reads it needs rights there.
//!
//! The rows of removed integrations stay, so what they left behind belongs to the namespace and the name that they had.

use grapnel_core::ids::{EventId, IntegrationId, ReplayId};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::integration_scope::IntegrationRef;
use crate::columns::Columns;
use crate::database::Database;
use crate::error::Result;

/// An integration, and where its object is or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub id: IntegrationId,
    pub namespace: String,
    pub name: String,
}

const OF_INTEGRATION: &str = "/* views::owner_of_integration */
    SELECT i.id, i.namespace, i.name FROM integrations i WHERE i.id = $1";

const OF_NAME: &str = "/* views::owner_of_named */
    SELECT i.id, i.namespace, i.name FROM integrations i
    WHERE i.namespace = $1 AND i.name = $2 AND i.deleted_at IS NULL";

const OF_ROUTE: &str = "/* views::owner_of_route */
    SELECT i.id, i.namespace, i.name FROM integrations i WHERE i.route = $1 AND i.deleted_at IS NULL";

const OF_EVENT: &str = "/* views::owner_of_event */
    SELECT i.id, i.namespace, i.name FROM integrations i
    WHERE i.id = (SELECT e.integration_id FROM events e WHERE e.id = $1)";

const OF_REPLAY_REQUEST: &str = "/* views::owner_of_replay_request */
    SELECT i.id, i.namespace, i.name FROM integrations i
    WHERE i.id = (
        SELECT e.integration_id FROM events e
        WHERE e.id = (SELECT r.event_id FROM replay_requests r WHERE r.id = $1)
    )";

const ALL: &str = "/* views::owners */
    SELECT i.id, i.namespace, i.name FROM integrations i";

/// Reads an integration, also a removed one.
pub async fn owner_of_integration(db: &Database, id: IntegrationId) -> Result<Option<Owner>> {
    find(db, OF_INTEGRATION, id.uuid()).await
}

/// Reads the integration that is named so: by its id also a removed one.
pub async fn owner_of_named(db: &Database, named: &IntegrationRef) -> Result<Option<Owner>> {
    let (namespace, name) = match named {
        IntegrationRef::Id(id) => return owner_of_integration(db, IntegrationId::new(*id)).await,
        IntegrationRef::Name { namespace, name } => (namespace, name),
    };
    db.bounded(async {
        let row = sqlx::query(OF_NAME).bind(namespace).bind(name).fetch_optional(db.pool()).await?;
        row.as_ref().map(owner).transpose()
    })
    .await
}

/// Reads the integration at a route.
pub async fn owner_of_route(db: &Database, route: &str) -> Result<Option<Owner>> {
    db.bounded(async {
        let row = sqlx::query(OF_ROUTE).bind(route).fetch_optional(db.pool()).await?;
        row.as_ref().map(owner).transpose()
    })
    .await
}

/// Reads the integration of an event.
pub async fn owner_of_event(db: &Database, id: EventId) -> Result<Option<Owner>> {
    find(db, OF_EVENT, id.uuid()).await
}

/// Reads the integration of the event of a replay request.
pub async fn owner_of_replay_request(db: &Database, id: ReplayId) -> Result<Option<Owner>> {
    find(db, OF_REPLAY_REQUEST, id.uuid()).await
}

/// Reads all integrations, the removed ones included.
pub async fn owners(db: &Database) -> Result<Vec<Owner>> {
    db.bounded(async {
        let rows = sqlx::query(ALL).fetch_all(db.pool()).await?;
        rows.iter().map(owner).collect()
    })
    .await
}

async fn find(db: &Database, statement: &'static str, id: Uuid) -> Result<Option<Owner>> {
    db.bounded(async {
        let row = sqlx::query(statement).bind(id).fetch_optional(db.pool()).await?;
        row.as_ref().map(owner).transpose()
    })
    .await
}

fn owner(row: &PgRow) -> Result<Owner> {
    Ok(Owner {
        id: row.id("id", IntegrationId::new)?,
        namespace: row.try_get("namespace")?,
        name: row.try_get("name")?,
    })
}

/// Returns the ids as a statement takes them.
pub(crate) fn bare(ids: Option<&[IntegrationId]>) -> Option<Vec<Uuid>> {
    ids.map(|ids| ids.iter().map(|id| id.uuid()).collect())
}
