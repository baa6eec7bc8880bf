//! The end of an integration whose object is deleted: it refuses webhooks while its deliveries go out, is retired with
//! what is left given up, and loses its history where that was asked for.
//!
//! Every step is fenced like a write of the row, and can be repeated from any point.

use grapnel_core::ids::{EventId, IntegrationId};
use grapnel_core::integration::{FILE_UID_PREFIX, RowState};
use sqlx::Row;

use crate::audit;
use crate::columns::Columns;
use crate::database::Database;
use crate::deliveries::{self, end};
use crate::error::Result;

/// A live row as the controller looks for leftovers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveRow {
    pub id: IntegrationId,
    pub uid: String,
    pub namespace: String,
    pub name: String,
}

/// Every live row that came from an applied object.
pub async fn live(db: &Database) -> Result<Vec<LiveRow>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* retire::live */
            SELECT id, uid, namespace, name FROM integrations WHERE deleted_at IS NULL AND NOT starts_with(uid, $1)",
        )
        .bind(FILE_UID_PREFIX)
        .fetch_all(db.pool())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(LiveRow {
                    id: row.id("id", IntegrationId::new)?,
                    uid: row.try_get("uid")?,
                    namespace: row.try_get("namespace")?,
                    name: row.try_get("name")?,
                })
            })
            .collect()
    })
    .await
}

/// The live row that holds a namespace and name.
pub async fn holder_of_name(db: &Database, namespace: &str, name: &str) -> Result<Option<LiveRow>> {
    db.bounded(async {
        let row = sqlx::query(
            "/* retire::holder_of_name */
            SELECT id, uid FROM integrations WHERE namespace = $1 AND name = $2 AND deleted_at IS NULL",
        )
        .bind(namespace)
        .bind(name)
        .fetch_optional(db.pool())
        .await?;
        row.map(|row| {
            Ok(LiveRow {
                id: row.id("id", IntegrationId::new)?,
                uid: row.try_get("uid")?,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            })
        })
        .transpose()
    })
    .await
}

/// Makes an integration refuse webhooks while what was accepted is still delivered. Answers whether it does now.
pub async fn start_draining(db: &Database, id: IntegrationId, writer_epoch: i64) -> Result<bool> {
    db.bounded(async {
        let done = sqlx::query(
            "/* retire::start_draining */
            UPDATE integrations SET state = $2, writer_epoch = $3, updated_at = now()
            WHERE id = $1 AND deleted_at IS NULL AND writer_epoch <= $3",
        )
        .bind(id.uuid())
        .bind(RowState::Draining.as_str())
        .bind(writer_epoch)
        .execute(db.pool())
        .await?;
        Ok(done.rows_affected() == 1)
    })
    .await
}

/// Deliveries of an integration that are not finished.
pub async fn open_deliveries(db: &Database, id: IntegrationId) -> Result<i64> {
    db.bounded(async {
        sqlx::query_scalar(
            "/* retire::open_deliveries */
            SELECT count(*) FROM deliveries WHERE integration_id = $1 AND finished_at IS NULL",
        )
        .bind(id.uuid())
        .fetch_one(db.pool())
        .await
        .map_err(Into::into)
    })
    .await
}

/// The outcome of retiring a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetireOutcome {
    /// It is retired now; that many deliveries were given up.
    Now { given_up: i64 },
    /// There was no live row.
    Before,
    /// A newer leader wrote the row.
    Superseded,
}

/// Retires a row: its history stays, its route is free again, its unfinished work ends as failed.
pub async fn retire(
    db: &Database,
    id: IntegrationId,
    writer_epoch: i64,
    actor: &str,
) -> Result<RetireOutcome> {
    db.bounded(async {
        let mut tx = db.pool().begin().await?;
        let found = sqlx::query(
            "/* retire::retire, lock */
            SELECT generation, writer_epoch FROM integrations WHERE id = $1 AND deleted_at IS NULL FOR UPDATE",
        )
        .bind(id.uuid())
        .fetch_optional(&mut *tx)
        .await?;
        let Some(found) = found else { return Ok(RetireOutcome::Before) };
        if found.try_get::<i64, _>("writer_epoch")? > writer_epoch {
            return Ok(RetireOutcome::Superseded);
        }
        sqlx::query(
            "/* retire::retire */
            WITH forgotten AS (DELETE FROM captured_secrets WHERE integration_id = $1)
            UPDATE integrations SET deleted_at = now(), updated_at = now(), writer_epoch = $2 WHERE id = $1",
        )
        .bind(id.uuid())
        .bind(writer_epoch)
        .execute(&mut *tx)
        .await?;
        let given_up = deliveries::end_removed(&mut tx, id, &[], end::INTEGRATION_REMOVED).await?;
        audit::integration_changed(&mut tx, id, "integration.removed", actor, found.try_get("generation")?).await?;
        tx.commit().await?;
        Ok(RetireOutcome::Now { given_up })
    })
    .await
}

/// Events that one statement looks at. All integrations share the tables, so a batch is bounded by what it reads, and
/// not by what it finds.
const PURGE_BATCH: i64 = 5_000;

/// Deletes the history of a retired integration among the events after `cursor`. Answers the next cursor, or `None` at
/// the end, when the row and its own audit entries are gone too and one entry says so.
pub async fn purge(
    db: &Database,
    id: IntegrationId,
    cursor: EventId,
    actor: &str,
) -> Result<Option<EventId>> {
    db.bounded(async {
        let next: Option<uuid::Uuid> = sqlx::query_scalar(
            "/* retire::purge */
            WITH batch AS (
                SELECT id, integration_id, idempotency_key FROM events WHERE id > $2 ORDER BY id LIMIT $3
            ), doomed AS MATERIALIZED (
                SELECT id, idempotency_key FROM batch WHERE integration_id = $1
            ), replays AS (
                DELETE FROM replay_requests WHERE event_id IN (SELECT id FROM doomed) RETURNING id
            ), audits AS (
                DELETE FROM audit_entries
                WHERE entity_id IN (SELECT id FROM doomed UNION ALL SELECT id FROM replays)
            ), attempts AS (
                DELETE FROM delivery_attempts WHERE event_id IN (SELECT id FROM doomed)
            ), gone AS (
                DELETE FROM deliveries WHERE event_id IN (SELECT id FROM doomed)
            ), keys AS (
                DELETE FROM idempotency_keys
                -- The first 16 bytes of the hash, as ingest writes them.
                WHERE key_hash IN (
                    SELECT encode(substring(sha256(convert_to(idempotency_key, 'UTF8')) FOR 16), 'hex')::uuid FROM doomed
                )
            ), events_gone AS (
                DELETE FROM events WHERE id IN (SELECT id FROM doomed)
            )
            SELECT id FROM batch ORDER BY id DESC LIMIT 1",
        )
        .bind(id.uuid())
        .bind(cursor.uuid())
        .bind(PURGE_BATCH)
        .fetch_optional(db.pool())
        .await?;
        if next.is_some() {
            return Ok(next.map(EventId::new));
        }
        let mut tx = db.pool().begin().await?;
        sqlx::query(
            "/* retire::purge, row */
            WITH audits AS (DELETE FROM audit_entries WHERE entity_id = $1)
            DELETE FROM integrations WHERE id = $1 AND deleted_at IS NOT NULL",
        )
        .bind(id.uuid())
        .execute(&mut *tx)
        .await?;
        audit::integration_changed(&mut tx, id, "integration.purged", actor, 0).await?;
        tx.commit().await?;
        Ok(None)
    })
    .await
}
