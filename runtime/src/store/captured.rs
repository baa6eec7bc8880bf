//! Secrets that providers gave in handshakes, sealed.

use sqlx::postgres::PgPool;
use uuid::Uuid;

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
