//! When each verification secret last proved a webhook.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::postgres::PgPool;
use uuid::Uuid;

/// A secret, by its reference `name/key`, and when it was last used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUse {
    pub integration_id: Uuid,
    pub secret: String,
    pub last_used_at: Timestamp,
}

/// Notes the uses; a later one that is noted already stays.
pub async fn note(pool: &PgPool, uses: &[SecretUse]) -> sqlx::Result<()> {
    sqlx::query(
        "/* secret_uses::note */
        INSERT INTO verification_secret_uses AS known (integration_id, secret, last_used_at)
        SELECT used.id, used.secret, used.at
        FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS used (id, secret, at)
        -- It may have been purged meanwhile.
        JOIN integrations USING (id)
        ON CONFLICT (integration_id, secret)
        DO UPDATE SET last_used_at = greatest(known.last_used_at, excluded.last_used_at)",
    )
    .bind(uses.iter().map(|used| used.integration_id).collect::<Vec<_>>())
    .bind(uses.iter().map(|used| used.secret.as_str()).collect::<Vec<_>>())
    .bind(uses.iter().map(|used| used.last_used_at.to_sqlx()).collect::<Vec<_>>())
    .execute(pool)
    .await?;
    Ok(())
}
