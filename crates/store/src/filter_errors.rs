//! The filters that could not be evaluated for some event: the last error of each destination.

use grapnel_core::ids::{EventId, IntegrationId};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::columns::Columns;
use crate::database::Database;
use crate::error::Result;

/// The last error of the filter of a destination, and how many there were for its generation of the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterErrorRow {
    pub integration_id: IntegrationId,
    pub destination: String,
    pub generation: i64,
    pub error: String,
    /// The event of the last error.
    pub sample_event_id: EventId,
    pub errors: i64,
}

/// Records errors, at most one of each destination. Those of an older generation than the recorded one are left out.
pub async fn note(db: &Database, errors: &[FilterErrorRow]) -> Result<()> {
    db.bounded(async {
        sqlx::query(
            "/* filter_errors::note */
            INSERT INTO filter_errors AS recorded (integration_id, destination, generation, error, sample_event_id, errors)
            SELECT failed.id, failed.destination, failed.generation, failed.error, failed.sample_event_id, failed.errors
            FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::uuid[], $6::bigint[])
                AS failed (id, destination, generation, error, sample_event_id, errors)
            -- The integration may have been purged meanwhile.
            JOIN integrations USING (id)
            -- Always in the same order, so that two writers cannot deadlock.
            ORDER BY failed.id, failed.destination
            ON CONFLICT (integration_id, destination) DO UPDATE SET
                errors = excluded.errors
                    + CASE WHEN recorded.generation = excluded.generation THEN recorded.errors ELSE 0 END,
                generation = excluded.generation,
                error = excluded.error,
                sample_event_id = excluded.sample_event_id,
                last_at = now()
            WHERE recorded.generation <= excluded.generation",
        )
        .bind(errors.iter().map(|error| error.integration_id.uuid()).collect::<Vec<_>>())
        .bind(errors.iter().map(|error| error.destination.as_str()).collect::<Vec<_>>())
        .bind(errors.iter().map(|error| error.generation).collect::<Vec<_>>())
        .bind(errors.iter().map(|error| error.error.as_str()).collect::<Vec<_>>())
        .bind(errors.iter().map(|error| error.sample_event_id.uuid()).collect::<Vec<_>>())
        .bind(errors.iter().map(|error| error.errors).collect::<Vec<_>>())
        .execute(db.pool())
        .await?;
        Ok(())
    })
    .await
}

/// Returns the errors of the last day that the current generation of its integration has had, in the order of the destinations.
pub async fn current(db: &Database) -> Result<Vec<FilterErrorRow>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* filter_errors::current */
            SELECT failed.integration_id, failed.destination, failed.generation, failed.error, failed.sample_event_id,
                failed.errors
            FROM filter_errors AS failed
            JOIN integrations ON integrations.id = failed.integration_id
                AND integrations.generation = failed.generation AND integrations.deleted_at IS NULL
            WHERE failed.last_at > now() - interval '1 day'
            ORDER BY failed.integration_id, failed.destination",
        )
        .fetch_all(db.pool())
        .await?;
        let error = |row: &PgRow| {
            Ok(FilterErrorRow {
                integration_id: row.id("integration_id", IntegrationId::new)?,
                destination: row.try_get("destination")?,
                generation: row.try_get("generation")?,
                error: row.try_get("error")?,
                sample_event_id: row.id("sample_event_id", EventId::new)?,
                errors: row.try_get("errors")?,
            })
        };
        rows.iter().map(error).collect()
    })
    .await
}
