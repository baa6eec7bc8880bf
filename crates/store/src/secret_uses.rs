//! The last use of each verification secret, and the time since which each previous one has been listed.

use grapnel_core::ids::IntegrationId;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::Row;

use crate::columns::Columns;
use crate::database::Database;
use crate::error::Result;

/// The last use of a secret, which is named by its reference `name/key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUse {
    pub integration_id: IntegrationId,
    pub secret: String,
    pub last_used_at: Timestamp,
}

/// Records the uses, unless a later one is recorded already.
pub async fn note(db: &Database, uses: &[SecretUse]) -> Result<()> {
    db.bounded(async {
        sqlx::query(
            "/* secret_uses::note */
            INSERT INTO verification_secret_uses AS recorded (integration_id, secret, last_used_at)
            SELECT used.id, used.secret, used.at
            FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS used (id, secret, at)
            -- The integration may have been purged meanwhile.
            JOIN integrations USING (id)
            ON CONFLICT (integration_id, secret)
            DO UPDATE SET last_used_at = greatest(recorded.last_used_at, excluded.last_used_at)",
        )
        .bind(uses.iter().map(|used| used.integration_id.uuid()).collect::<Vec<_>>())
        .bind(uses.iter().map(|used| used.secret.as_str()).collect::<Vec<_>>())
        .bind(uses.iter().map(|used| used.last_used_at.to_sqlx()).collect::<Vec<_>>())
        .execute(db.pool())
        .await?;
        Ok(())
    })
    .await
}

/// A previous secret that an integration lists. Secrets are named by their references, `name/key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSecret {
    pub integration_id: IntegrationId,
    pub secret: String,
    /// The current secret of the same list.
    pub current: String,
}

/// A previous secret with the times that decide whether it can be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousSecret {
    pub integration_id: IntegrationId,
    pub secret: String,
    /// Since when it has been listed without interruption.
    pub listed_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
    /// When the current secret last verified a webhook.
    pub current_used_at: Option<Timestamp>,
}

/// Records which previous secrets these integrations list, and returns those that were listed before. Writes only when
/// one is listed that was not, or the other way round.
pub async fn follow_previous(
    db: &Database,
    integrations: &[IntegrationId],
    listed: &[ListedSecret],
) -> Result<Vec<PreviousSecret>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* secret_uses::follow_previous */
            WITH listed AS MATERIALIZED (
                SELECT listed.id, listed.secret, listed.current_secret
                FROM unnest($2::uuid[], $3::text[], $4::text[]) AS listed (id, secret, current_secret)
                -- An integration that is not registered yet has no row to refer to.
                JOIN integrations USING (id)
            ), begun AS (
                INSERT INTO previous_secrets (integration_id, secret)
                SELECT id, secret FROM listed
                WHERE NOT EXISTS (
                    SELECT FROM previous_secrets AS known
                    WHERE known.integration_id = listed.id AND known.secret = listed.secret
                )
                ON CONFLICT DO NOTHING
            ), ended AS (
                DELETE FROM previous_secrets AS known
                WHERE known.integration_id = ANY($1) AND NOT EXISTS (
                    SELECT FROM listed WHERE listed.id = known.integration_id AND listed.secret = known.secret
                )
            )
            SELECT listed.id, listed.secret, known.listed_at, used.last_used_at, newest.last_used_at AS current_used_at
            FROM listed
            JOIN previous_secrets AS known ON known.integration_id = listed.id AND known.secret = listed.secret
            LEFT JOIN verification_secret_uses AS used
                ON used.integration_id = listed.id AND used.secret = listed.secret
            LEFT JOIN verification_secret_uses AS newest
                ON newest.integration_id = listed.id AND newest.secret = listed.current_secret",
        )
        .bind(integrations.iter().map(|id| id.uuid()).collect::<Vec<_>>())
        .bind(listed.iter().map(|listed| listed.integration_id.uuid()).collect::<Vec<_>>())
        .bind(listed.iter().map(|listed| listed.secret.as_str()).collect::<Vec<_>>())
        .bind(listed.iter().map(|listed| listed.current.as_str()).collect::<Vec<_>>())
        .fetch_all(db.pool())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(PreviousSecret {
                    integration_id: row.id("id", IntegrationId::new)?,
                    secret: row.try_get("secret")?,
                    listed_at: row.time("listed_at")?,
                    last_used_at: row.optional_time("last_used_at")?,
                    current_used_at: row.optional_time("current_used_at")?,
                })
            })
            .collect()
    })
    .await
}
