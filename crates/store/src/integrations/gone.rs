//! Destinations that answered 410: nothing more is sent to them until their Integration changes.

use grapnel_core::ids::IntegrationId;
use sqlx::Row;

use crate::columns::Columns;
use crate::database::Database;
use crate::error::Result;

/// Marks a destination as gone while the row has its present generation. Marking it again changes nothing.
pub async fn mark(db: &Database, id: IntegrationId, destination: &str) -> Result<()> {
    db.bounded(async {
        sqlx::query(
            "/* gone::mark */
            UPDATE integrations
            SET gone = jsonb_build_object($2::text, generation) || (
                -- Marks of earlier generations mean nothing any more.
                SELECT COALESCE(jsonb_object_agg(key, value), '{}')
                FROM jsonb_each(gone) WHERE value = to_jsonb(generation)
            )
            WHERE id = $1 AND deleted_at IS NULL AND (gone -> $2) IS DISTINCT FROM to_jsonb(generation)",
        )
        .bind(id.uuid())
        .bind(destination)
        .execute(db.pool())
        .await?;
        Ok(())
    })
    .await
}

/// Returns the integrations that have destinations which are gone, with their names in order.
pub async fn all(db: &Database) -> Result<Vec<(IntegrationId, Vec<String>)>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* gone::all */
            SELECT id, names FROM integrations, LATERAL (
                SELECT array_agg(key ORDER BY key) AS names FROM jsonb_each(gone) WHERE value = to_jsonb(generation)
            ) AS marks
            WHERE gone IS NOT NULL AND deleted_at IS NULL AND names IS NOT NULL",
        )
        .fetch_all(db.pool())
        .await?;
        rows.iter().map(|row| Ok((row.id("id", IntegrationId::new)?, row.try_get("names")?))).collect()
    })
    .await
}
