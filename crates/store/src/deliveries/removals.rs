//! Removals: the end of the deliveries to a destination, or of an integration, that was removed.
//!
//! A removal is recorded in the transaction that removes, and is there at once, however many deliveries wait: from then on they
//! are neither claimed nor queued. They end in batches, each in a transaction of its own, a moment later when they are few and
//! in the background otherwise. What was removed may be added again: a removal concerns the deliveries of before.

use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_core::ids::IntegrationId;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tokio::time::Instant;
use uuid::Uuid;

use super::end::{DESTINATION_REMOVED, EndedBatch, INTEGRATION_REMOVED, end_deliveries, run_end};
use crate::audit::{self, insert_audit_entries};
use crate::columns::Columns;
use crate::database::Database;
use crate::error::Result;

/// Whether the delivery `d` is to end because of a removal. While nothing is being removed, this is one look at an empty table
/// for each statement.
macro_rules! is_being_removed {
    () => {
        "(EXISTS (SELECT FROM removals) AND EXISTS (
            SELECT FROM removals r
            WHERE r.integration_id = d.integration_id AND r.destination IN ('', d.destination) AND d.event_id < r.cutoff
        ))"
    };
}
pub(crate) use is_being_removed;

/// The deliveries that one statement ends: a transaction takes a fraction of a second.
const BATCH: i64 = 2_000;

/// A lock that is not free by then is tried again. Shorter than `deadlock_timeout`, so that a deadlock costs nobody else their
/// statement.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '500ms'";

/// How long the one who removes waits for the end: enough for some thousands of deliveries.
const PATIENCE: Duration = Duration::from_millis(300);

/// What has become of the deliveries of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovalProgress {
    pub integration_id: IntegrationId,
    /// `None`: all of the integration's.
    pub destination: Option<String>,
    /// Deliveries that were given up so far.
    pub ended: i64,
    pub is_finished: bool,
}

/// Records that deliveries of before now are to end: those to one destination, or all of the integration's.
pub(crate) async fn record_removal(
    tx: &mut PgConnection,
    id: IntegrationId,
    destination: Option<&str>,
) -> Result<()> {
    sqlx::query(
        "/* deliveries::record_removal */
        INSERT INTO removals (integration_id, destination, cutoff, reason) VALUES ($1, $2, uuidv7_now(), $3)
        ON CONFLICT (integration_id, destination) DO UPDATE
        SET cutoff = EXCLUDED.cutoff, cursor_destination = DEFAULT, cursor_event = DEFAULT",
    )
    .bind(id.uuid())
    .bind(destination.unwrap_or_default())
    .bind(if destination.is_some() { DESTINATION_REMOVED } else { INTEGRATION_REMOVED })
    .execute(tx)
    .await?;
    Ok(())
}

/// Returns whether deliveries to a destination are about to end, and records the removal if there is none although the
/// integration, or its destination, is gone. Does not wait for the end.
///
/// A removal ends deliveries of before it, but an api process that has not read it yet may store one more event for the old
/// destinations.
pub async fn end_if_removed(db: &Database, id: IntegrationId, destination: &str) -> Result<bool> {
    db.bounded(async {
        let is_removed = sqlx::query_scalar(
            "/* deliveries::end_if_removed */
            WITH integration AS (
                SELECT deleted_at IS NULL AS is_live, EXISTS (
                    SELECT FROM json_array_elements(spec -> 'destinations') WHERE value ->> 'name' = $2
                ) AS has_destination
                FROM integrations WHERE id = $1
            ), recorded AS (
                INSERT INTO removals (integration_id, destination, cutoff, reason)
                SELECT $1, $2, uuidv7_now(),
                    CASE WHEN EXISTS (SELECT FROM integration WHERE is_live) THEN $3 ELSE $4 END
                WHERE NOT EXISTS (SELECT FROM integration WHERE is_live AND has_destination)
                ON CONFLICT DO NOTHING
                RETURNING true
            )
            SELECT EXISTS (SELECT FROM recorded)
                OR EXISTS (SELECT FROM removals WHERE integration_id = $1 AND destination IN ('', $2))",
        )
        .bind(id.uuid())
        .bind(destination)
        .bind(DESTINATION_REMOVED)
        .bind(INTEGRATION_REMOVED)
        .fetch_one(db.pool())
        .await?;
        Ok(is_removed)
    })
    .await
}

/// Ends a batch of the removal that has waited longest, and returns its progress; `None` when there is nothing to do, or
/// other processes do it.
pub async fn end_removed(db: &Database) -> Result<Option<RemovalProgress>> {
    db.bounded(end_batch(db, None)).await
}

/// Ends deliveries of an integration's removals while the caller waits, which is not long. An error is not the caller's: the
/// removal is recorded, and goes on in the background.
pub(crate) async fn end_while_waiting(db: &Database, id: IntegrationId) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match db.bounded(end_batch(db, Some(id))).await {
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(error = %chain(&error), integration.id = %id, "deliveries of a removal end later");
                return;
            }
        }
    }
}

/// A removal whose row is locked by this transaction.
struct LockedRemoval {
    integration_id: IntegrationId,
    /// Empty: all of the integration's.
    destination: String,
    cutoff: Uuid,
    reason: String,
    cursor_destination: String,
    cursor_event: Uuid,
    ended: i64,
}

async fn end_batch(db: &Database, only: Option<IntegrationId>) -> Result<Option<RemovalProgress>> {
    let mut tx = db.begin(BEGIN).await?;
    let Some(removal) = lock_next(&mut tx, only).await? else { return Ok(None) };
    let batch = end_next(&mut tx, &removal).await?;
    let ended = removal.ended + batch.ended;
    let is_finished = batch.selected < BATCH;
    if is_finished {
        finish(&mut tx, &removal, ended).await?;
    } else {
        advance(&mut tx, &removal, &batch, ended).await?;
    }
    tx.commit().await?;
    let destination = Some(removal.destination).filter(|name| !name.is_empty());
    Ok(Some(RemovalProgress { integration_id: removal.integration_id, destination, ended, is_finished }))
}

async fn lock_next(tx: &mut PgConnection, only: Option<IntegrationId>) -> Result<Option<LockedRemoval>> {
    let row = sqlx::query(
        "/* deliveries::removals::lock_next */
        SELECT integration_id, destination, cutoff, reason, cursor_destination, cursor_event, ended
        FROM removals WHERE integration_id = $1 OR $1 IS NULL
        ORDER BY worked_at NULLS FIRST, created_at LIMIT 1 FOR UPDATE SKIP LOCKED",
    )
    .bind(only.map(IntegrationId::uuid))
    .fetch_optional(tx)
    .await?;
    let removal = |row: PgRow| {
        Ok(LockedRemoval {
            integration_id: row.id("integration_id", IntegrationId::new)?,
            destination: row.try_get("destination")?,
            cutoff: row.try_get("cutoff")?,
            reason: row.try_get("reason")?,
            cursor_destination: row.try_get("cursor_destination")?,
            cursor_event: row.try_get("cursor_event")?,
            ended: row.try_get("ended")?,
        })
    };
    row.map(removal).transpose()
}

// Both begin at the cursor, so that a batch does not step over the index entries of all before it, which stay as long as any
// reader is older than they are. `$3` is the destination of the cursor, or the one that was removed.
const END_OF_INTEGRATION: &str = end_deliveries!(
    "deliveries::removals::end_of_integration",
    "SELECT event_id, destination FROM deliveries
                WHERE integration_id = $2 AND finished_at IS NULL AND (destination, event_id) > ($3, $4)
                    AND event_id < $5
                ORDER BY destination, event_id LIMIT $6"
);
const END_OF_DESTINATION: &str = end_deliveries!(
    "deliveries::removals::end_of_destination",
    "SELECT event_id, destination FROM deliveries
                WHERE integration_id = $2 AND destination = $3 AND finished_at IS NULL AND event_id > $4
                    AND event_id < $5
                ORDER BY event_id LIMIT $6"
);

async fn end_next(tx: &mut PgConnection, removal: &LockedRemoval) -> Result<EndedBatch> {
    let (statement, destination) = if removal.destination.is_empty() {
        (END_OF_INTEGRATION, &removal.cursor_destination)
    } else {
        (END_OF_DESTINATION, &removal.destination)
    };
    let statement = sqlx::query(statement)
        .bind(&removal.reason)
        .bind(removal.integration_id.uuid())
        .bind(destination)
        .bind(removal.cursor_event)
        .bind(removal.cutoff)
        .bind(BATCH);
    run_end(tx, statement).await
}

async fn advance(
    tx: &mut PgConnection,
    removal: &LockedRemoval,
    batch: &EndedBatch,
    ended: i64,
) -> Result<()> {
    let Some((destination, event)) = &batch.last else { return Ok(()) };
    sqlx::query(
        "/* deliveries::removals::advance */
        UPDATE removals SET cursor_destination = $3, cursor_event = $4, ended = $5, worked_at = clock_timestamp()
        WHERE integration_id = $1 AND destination = $2",
    )
    .bind(removal.integration_id.uuid())
    .bind(&removal.destination)
    .bind(destination)
    .bind(event.uuid())
    .bind(ended)
    .execute(tx)
    .await?;
    Ok(())
}

/// Deletes the removal; an audit entry of the integration says how many deliveries it gave up.
async fn finish(tx: &mut PgConnection, removal: &LockedRemoval, ended: i64) -> Result<()> {
    sqlx::query(
        "/* deliveries::removals::finish */
        DELETE FROM removals WHERE integration_id = $1 AND destination = $2",
    )
    .bind(removal.integration_id.uuid())
    .bind(&removal.destination)
    .execute(&mut *tx)
    .await?;
    if ended == 0 {
        return Ok(());
    }
    sqlx::query(concat!(
        "/* deliveries::removals::finish, audit */ ",
        insert_audit_entries!(
            "VALUES ($1, 'integration', $2, 'integration.deliveries_given_up', 'system',
            json_build_object('destination', NULLIF($3::text, ''), 'reason', $4::text, 'count', $5::bigint))"
        )
    ))
    .bind(audit::new_ids(1)[0])
    .bind(removal.integration_id.uuid())
    .bind(&removal.destination)
    .bind(&removal.reason)
    .bind(ended)
    .execute(tx)
    .await?;
    Ok(())
}
