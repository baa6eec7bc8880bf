//! Secrets that providers gave in handshakes, sealed, until they are in the Secrets of their Integrations.

use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::{PgPool, PgRow};
use uuid::Uuid;

/// A captured secret that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    pub integration_id: Uuid,
    pub handshake: String,
    /// The id of the integration is the associated data.
    pub sealed: Vec<u8>,
    pub captured_at: Timestamp,
}

/// Keeps the secret unless one is kept; answers whether it was.
pub async fn insert(
    pool: &PgPool,
    integration_id: Uuid,
    handshake: &str,
    sealed: &[u8],
) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "/* captured::insert */
        INSERT INTO captured_secrets (integration_id, handshake, sealed) VALUES ($1, $2, $3)
        ON CONFLICT (integration_id) DO NOTHING",
    )
    .bind(integration_id)
    .bind(handshake)
    .bind(sealed)
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The integrations for which one waits.
pub async fn waiting(pool: &PgPool) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar(
        "/* captured::waiting */
        SELECT integration_id FROM captured_secrets",
    )
    .fetch_all(pool)
    .await
}

/// The one that waits for an integration.
pub async fn find(pool: &PgPool, integration_id: Uuid) -> sqlx::Result<Option<Captured>> {
    let row = sqlx::query(
        "/* captured::find */
        SELECT integration_id, handshake, sealed, captured_at FROM captured_secrets WHERE integration_id = $1",
    )
    .bind(integration_id)
    .fetch_optional(pool)
    .await?;
    row.as_ref().map(captured).transpose()
}

/// All that wait.
pub async fn load_all(pool: &PgPool) -> sqlx::Result<Vec<Captured>> {
    let rows = sqlx::query(
        "/* captured::load_all */
        SELECT integration_id, handshake, sealed, captured_at FROM captured_secrets",
    )
    .fetch_all(pool)
    .await?;
    rows.iter().map(captured).collect()
}

fn captured(row: &PgRow) -> sqlx::Result<Captured> {
    Ok(Captured {
        integration_id: row.try_get("integration_id")?,
        handshake: row.try_get("handshake")?,
        sealed: row.try_get("sealed")?,
        captured_at: row.try_get::<jiff_sqlx::Timestamp, _>("captured_at")?.to_jiff(),
    })
}

/// Deletes this one, and not another that came meanwhile. Answers whether it was still there.
pub async fn delete(pool: &PgPool, captured: &Captured) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "/* captured::delete */
        DELETE FROM captured_secrets WHERE integration_id = $1 AND sealed = $2",
    )
    .bind(captured.integration_id)
    .bind(&captured.sealed)
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Seals it anew under another key, unless it went or changed meanwhile.
pub async fn reseal(pool: &PgPool, old: &Captured, sealed: &[u8]) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "/* captured::reseal */
        UPDATE captured_secrets SET sealed = $3 WHERE integration_id = $1 AND sealed = $2",
    )
    .bind(old.integration_id)
    .bind(&old.sealed)
    .bind(sealed)
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}
