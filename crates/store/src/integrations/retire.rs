//! The end of an integration whose object is deleted: it refuses webhooks while its deliveries are sent, then it is
//! retired and the remaining deliveries are given up, and its history is purged where that was asked for.
//!
//! Every step is fenced like a write of the row, and can be repeated from any point.

use grapnel_core::ids::{EventId, IntegrationId};
use grapnel_core::integration::{FILE_UID_PREFIX, RowState};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::audit;
use crate::columns::Columns;
use crate::database::Database;
use crate::deliveries::{self, end};
use crate::error::Result;

/// The identity of a live row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveRow {
    pub id: IntegrationId,
    pub uid: String,
    pub namespace: String,
    pub name: String,
}

/// Returns every live row that came from an applied object.
pub async fn live(db: &Database) -> Result<Vec<LiveRow>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* integrations::retire::live */
            SELECT id, uid, namespace, name FROM integrations WHERE deleted_at IS NULL AND NOT starts_with(uid, $1)",
        )
        .bind(FILE_UID_PREFIX)
        .fetch_all(db.pool())
        .await?;
        rows.iter().map(live_row).collect()
    })
    .await
}

/// Returns the live row that holds a namespace and name.
pub async fn holder_of_name(db: &Database, namespace: &str, name: &str) -> Result<Option<LiveRow>> {
    db.bounded(async {
        let row = sqlx::query(
            "/* integrations::retire::holder_of_name */
            SELECT id, uid, namespace, name FROM integrations
            WHERE namespace = $1 AND name = $2 AND deleted_at IS NULL",
        )
        .bind(namespace)
        .bind(name)
        .fetch_optional(db.pool())
        .await?;
        row.as_ref().map(live_row).transpose()
    })
    .await
}

fn live_row(row: &PgRow) -> Result<LiveRow> {
    Ok(LiveRow {
        id: row.id("id", IntegrationId::new)?,
        uid: row.try_get("uid")?,
        namespace: row.try_get("namespace")?,
        name: row.try_get("name")?,
    })
}

/// Makes an integration refuse webhooks while the accepted ones are still delivered. Returns whether it does now.
pub async fn start_draining(db: &Database, id: IntegrationId, writer_epoch: i64) -> Result<bool> {
    db.bounded(async {
        let done = sqlx::query(
            "/* integrations::retire::start_draining */
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

/// Returns the number of unfinished deliveries of an integration.
pub async fn open_deliveries(db: &Database, id: IntegrationId) -> Result<i64> {
    db.bounded(async {
        sqlx::query_scalar(
            "/* integrations::retire::open_deliveries */
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
    /// It is retired now, and this many deliveries were given up.
    Now { given_up: i64 },
    /// There was no live row: it was retired before.
    Before,
    /// A newer leader wrote the row.
    Superseded,
}

/// Retires a row: its history stays, its route is free again, its unfinished deliveries fail.
pub async fn retire(
    db: &Database,
    id: IntegrationId,
    writer_epoch: i64,
    actor: &str,
) -> Result<RetireOutcome> {
    db.bounded(async {
        let mut tx = db.pool().begin().await?;
        let newest: Option<i64> = sqlx::query_scalar(
            "/* integrations::retire::retire */
            SELECT writer_epoch FROM integrations WHERE id = $1 AND deleted_at IS NULL FOR UPDATE",
        )
        .bind(id.uuid())
        .fetch_optional(&mut *tx)
        .await?;
        if newest.is_some_and(|newest| newest > writer_epoch) {
            return Ok(RetireOutcome::Superseded);
        }
        let Some(given_up) = retire_in(&mut tx, id, Some(writer_epoch), actor).await? else {
            return Ok(RetireOutcome::Before);
        };
        tx.commit().await?;
        Ok(RetireOutcome::Now { given_up })
    })
    .await
}

/// Retires a row in a transaction and returns the number of deliveries that were given up; `None` when there is no live
/// row. A row from a file has no writer's epoch.
pub(super) async fn retire_in(
    tx: &mut PgConnection,
    id: IntegrationId,
    writer_epoch: Option<i64>,
    actor: &str,
) -> Result<Option<i64>> {
    let generation: Option<i64> = sqlx::query_scalar(
        "/* integrations::retire::retire_in */
        WITH forgotten AS (DELETE FROM captured_secrets WHERE integration_id = $1)
        UPDATE integrations
        SET deleted_at = now(), updated_at = now(), writer_epoch = COALESCE($2::bigint, writer_epoch)
        WHERE id = $1 AND deleted_at IS NULL
        RETURNING generation",
    )
    .bind(id.uuid())
    .bind(writer_epoch)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(generation) = generation else { return Ok(None) };
    let given_up = deliveries::end_removed(tx, id, &[], end::INTEGRATION_REMOVED).await?;
    audit::integration_changed(tx, id, "integration.removed", actor, generation).await?;
    Ok(Some(given_up))
}

/// The number of events that one statement reads. All integrations share the tables, so a batch is bounded by the rows
/// that it reads, not by those that it finds.
const PURGE_BATCH: i64 = 5_000;

/// Deletes the history of a retired integration among the events after `cursor`. Returns the next cursor, or `None` at
/// the end, when the row and its own audit entries are deleted too and one entry records that.
pub async fn purge(
    db: &Database,
    id: IntegrationId,
    cursor: EventId,
    actor: &str,
) -> Result<Option<EventId>> {
    db.bounded(async {
        let next: Option<uuid::Uuid> = sqlx::query_scalar(
            "/* integrations::retire::purge */
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
                -- The first 16 bytes of the hash, as events::store writes them.
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
            "/* integrations::retire::purge, row */
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
