//! The deletion of the history of a retired integration, where that was asked for. It is recorded, and done in the background
//! in batches that read a bounded number of events, whosever they are: all integrations share the tables.

use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_core::ids::IntegrationId;
use sqlx::{PgConnection, Row};
use tokio::time::Instant;
use uuid::Uuid;

use crate::audit;
use crate::columns::Columns;
use crate::database::Database;
use crate::error::Result;
use crate::events::index::{idempotency_key, key_hash};

/// The events that one statement reads.
const BATCH: i64 = 5_000;

/// As for the batches of removals.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '500ms'";

/// How long the one who asks for a purge waits for its end: enough for an integration that did not live long.
const PATIENCE: Duration = Duration::from_millis(300);

/// How far a purge has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurgeProgress {
    pub integration_id: IntegrationId,
    /// Events that were deleted so far.
    pub events: i64,
    pub is_finished: bool,
}

/// Records that the history of a retired integration is to be deleted, and does so while the caller waits, which is not long.
pub async fn purge(db: &Database, id: IntegrationId, actor: &str) -> Result<()> {
    db.bounded(record(db, id, actor)).await?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match db.bounded(purge_batch(db, Some(id))).await {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::warn!(error = %chain(&error), integration.id = %id, "a history is deleted later");
                return Ok(());
            }
        }
    }
    Ok(())
}

// No event is older than the row, and none is newer than its end; an hour is for clocks that differ and processes that learn
// of the end late.
async fn record(db: &Database, id: IntegrationId, actor: &str) -> Result<()> {
    sqlx::query(
        "/* integrations::purge::record */
        INSERT INTO purges (integration_id, actor, cursor_event, last_event)
        SELECT id, $2, uuidv7_floor(created_at - interval '1 hour'), uuidv7_floor(deleted_at + interval '1 hour')
        FROM integrations WHERE id = $1 AND deleted_at IS NOT NULL
        ON CONFLICT DO NOTHING",
    )
    .bind(id.uuid())
    .bind(actor)
    .execute(db.pool())
    .await?;
    Ok(())
}

/// Runs a batch of the purge that has waited longest, and returns its progress; `None` when there is nothing to do, or other
/// processes do it.
pub async fn purge_next(db: &Database) -> Result<Option<PurgeProgress>> {
    db.bounded(purge_batch(db, None)).await
}

async fn purge_batch(db: &Database, only: Option<IntegrationId>) -> Result<Option<PurgeProgress>> {
    let mut tx = db.begin(BEGIN).await?;
    // After the integration's removals: their audit entries are to be deleted too.
    let purge = sqlx::query(
        "/* integrations::purge::lock_next */
        SELECT integration_id, actor, cursor_event, last_event FROM purges p
        WHERE (integration_id = $1 OR $1 IS NULL)
            AND NOT EXISTS (SELECT FROM removals r WHERE r.integration_id = p.integration_id)
        ORDER BY worked_at NULLS FIRST, created_at LIMIT 1 FOR UPDATE SKIP LOCKED",
    )
    .bind(only.map(IntegrationId::uuid))
    .fetch_optional(&mut *tx)
    .await?;
    let Some(purge) = purge else { return Ok(None) };
    let integration_id = purge.id("integration_id", IntegrationId::new)?;
    let (cursor, last): (Uuid, Uuid) = (purge.try_get("cursor_event")?, purge.try_get("last_event")?);
    let (next, deleted) = delete_batch(&mut tx, integration_id, cursor, last).await?;
    let events = match next {
        Some(next) => advance(&mut tx, integration_id, next, deleted).await?,
        None => finish(&mut tx, integration_id, purge.try_get("actor")?).await?,
    };
    tx.commit().await?;
    Ok(Some(PurgeProgress { integration_id, events, is_finished: next.is_none() }))
}

/// Reads a batch of events and deletes those of the integration, with all that belongs to them. Returns the last one that was
/// read, and how many were deleted.
async fn delete_batch(
    tx: &mut PgConnection,
    id: IntegrationId,
    cursor: Uuid,
    last: Uuid,
) -> Result<(Option<Uuid>, i64)> {
    let row = sqlx::query(concat!(
        "/* integrations::purge::delete_batch */
        WITH batch AS MATERIALIZED (
            SELECT e.id, e.integration_id, ",
        idempotency_key!("e"),
        " AS idempotency_key, e.request_id FROM events e WHERE e.id > $2 AND e.id <= $3 ORDER BY e.id LIMIT $4
        ), doomed AS MATERIALIZED (
            SELECT id, idempotency_key, request_id FROM batch WHERE integration_id = $1
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
            WHERE key_hash IN (SELECT ",
        key_hash!("idempotency_key"),
        " FROM doomed)
        ), requests AS (
            DELETE FROM event_requests WHERE id IN (SELECT request_id FROM doomed WHERE request_id IS NOT NULL)
        ), events_gone AS (
            DELETE FROM events WHERE id IN (SELECT id FROM doomed)
        )
        SELECT (SELECT id FROM batch ORDER BY id DESC LIMIT 1) AS last, (SELECT count(*) FROM doomed) AS deleted"
    ))
    .bind(id.uuid())
    .bind(cursor)
    .bind(last)
    .bind(BATCH)
    .fetch_one(tx)
    .await?;
    Ok((row.try_get("last")?, row.try_get("deleted")?))
}

async fn advance(tx: &mut PgConnection, id: IntegrationId, cursor: Uuid, deleted: i64) -> Result<i64> {
    let events = sqlx::query_scalar(
        "/* integrations::purge::advance */
        UPDATE purges SET cursor_event = $2, events = events + $3, worked_at = clock_timestamp() WHERE integration_id = $1
        RETURNING events",
    )
    .bind(id.uuid())
    .bind(cursor)
    .bind(deleted)
    .fetch_one(tx)
    .await?;
    Ok(events)
}

/// Deletes the row and its own audit entries; one entry records that.
async fn finish(tx: &mut PgConnection, id: IntegrationId, actor: &str) -> Result<i64> {
    let events = sqlx::query_scalar(
        "/* integrations::purge::finish */
        WITH audits AS (
            DELETE FROM audit_entries WHERE entity_id = $1
        ), integration AS (
            DELETE FROM integrations WHERE id = $1 AND deleted_at IS NOT NULL
        )
        DELETE FROM purges WHERE integration_id = $1 RETURNING events",
    )
    .bind(id.uuid())
    .fetch_one(&mut *tx)
    .await?;
    audit::integration_changed(tx, id, "integration.purged", actor, 0).await?;
    Ok(events)
}
