//! Secrets that providers sent in handshakes, kept sealed until they are in the Secrets of their Integrations.

use grapnel_core::ids::IntegrationId;
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::columns::Columns;
use crate::database::Database;
use crate::error::Result;

/// A captured secret that is not in its Secret yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedSecret {
    pub integration_id: IntegrationId,
    pub handshake: String,
    /// Sealed with the id of the integration as associated data.
    pub sealed: Vec<u8>,
    pub captured_at: Timestamp,
}

/// Stores the secret unless the integration has one already; returns whether it was stored.
pub async fn insert(
    db: &Database,
    integration_id: IntegrationId,
    handshake: &str,
    sealed: &[u8],
) -> Result<bool> {
    db.bounded(async {
        let done = sqlx::query(
            "/* captured_secrets::insert */
            INSERT INTO captured_secrets (integration_id, handshake, sealed) VALUES ($1, $2, $3)
            ON CONFLICT (integration_id) DO NOTHING",
        )
        .bind(integration_id.uuid())
        .bind(handshake)
        .bind(sealed)
        .execute(db.pool())
        .await?;
        Ok(done.rows_affected() == 1)
    })
    .await
}

/// Returns the integrations that have one.
pub async fn waiting(db: &Database) -> Result<Vec<IntegrationId>> {
    db.bounded(async {
        let ids: Vec<Uuid> = sqlx::query_scalar(
            "/* captured_secrets::waiting */
            SELECT integration_id FROM captured_secrets",
        )
        .fetch_all(db.pool())
        .await?;
        Ok(ids.into_iter().map(IntegrationId::new).collect())
    })
    .await
}

/// Returns the one of an integration.
pub async fn find(db: &Database, integration_id: IntegrationId) -> Result<Option<CapturedSecret>> {
    db.bounded(async {
        let row = sqlx::query(
            "/* captured_secrets::find */
            SELECT integration_id, handshake, sealed, captured_at FROM captured_secrets WHERE integration_id = $1",
        )
        .bind(integration_id.uuid())
        .fetch_optional(db.pool())
        .await?;
        row.as_ref().map(captured_secret).transpose()
    })
    .await
}

/// Returns all of them.
pub async fn load_all(db: &Database) -> Result<Vec<CapturedSecret>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* captured_secrets::load_all */
            SELECT integration_id, handshake, sealed, captured_at FROM captured_secrets",
        )
        .fetch_all(db.pool())
        .await?;
        rows.iter().map(captured_secret).collect()
    })
    .await
}

fn captured_secret(row: &PgRow) -> Result<CapturedSecret> {
    Ok(CapturedSecret {
        integration_id: row.id("integration_id", IntegrationId::new)?,
        handshake: row.try_get("handshake")?,
        sealed: row.try_get("sealed")?,
        captured_at: row.time("captured_at")?,
    })
}

/// Deletes this one, and not another that came meanwhile. Returns whether it was still there.
pub async fn delete(db: &Database, captured: &CapturedSecret) -> Result<bool> {
    db.bounded(async {
        let done = sqlx::query(
            "/* captured_secrets::delete */
            DELETE FROM captured_secrets WHERE integration_id = $1 AND sealed = $2",
        )
        .bind(captured.integration_id.uuid())
        .bind(&captured.sealed)
        .execute(db.pool())
        .await?;
        Ok(done.rows_affected() == 1)
    })
    .await
}

/// Replaces it, sealed under another key, unless it was deleted or changed meanwhile. Returns whether it did.
pub async fn reseal(db: &Database, old: &CapturedSecret, sealed: &[u8]) -> Result<bool> {
    db.bounded(async {
        let done = sqlx::query(
            "/* captured_secrets::reseal */
            UPDATE captured_secrets SET sealed = $3 WHERE integration_id = $1 AND sealed = $2",
        )
        .bind(old.integration_id.uuid())
        .bind(&old.sealed)
        .bind(sealed)
        .execute(db.pool())
        .await?;
        Ok(done.rows_affected() == 1)
    })
    .await
}
