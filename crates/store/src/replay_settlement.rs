//! The end of replay requests, which follows from the states of their deliveries; see [`crate::replays`].

use grapnel_core::ids::ReplayId;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::audit::{insert_audit_entries, new_ids};
use crate::database::Database;
use crate::error::Result;

/// Locks the unfinished requests of all events of the given requests. A later statement then reads all that the earlier
/// holders of these locks have committed, so of two workers that finish the last two deliveries of a request at the same
/// time, the second sees both.
async fn lock_unfinished(
    connection: &mut PgConnection,
    replay_request_ids: &[ReplayId],
) -> Result<Vec<Uuid>> {
    let (Some(first), Some(last)) = (replay_request_ids.iter().min(), replay_request_ids.iter().max()) else {
        return Ok(Vec::new());
    };
    let unfinished = sqlx::query_scalar(
        "/* replay_settlement::lock_unfinished */
        SELECT id FROM replay_requests
        WHERE status IN ('queued', 'dispatched') AND event_id = ANY(ARRAY(
            SELECT event_id FROM replay_requests WHERE id = ANY($1) AND id BETWEEN $2 AND $3
        ))
        ORDER BY id FOR UPDATE",
    )
    .bind(replay_request_ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .bind(first.uuid())
    .bind(last.uuid())
    .fetch_all(connection)
    .await?;
    Ok(unfinished)
}

// $1 the requests, $2 and $3 their bounds, $4 ids for the entries. A delivery waits for its first publication while
// it is neither queued nor attempted since the replay.
const MARK_DISPATCHED: &str = concat!(
    "/* replay_settlement::mark_dispatched */
    WITH moved AS (
        UPDATE replay_requests r
        SET status = 'dispatched'
        FROM unnest($1::uuid[], $4::uuid[]) AS i (id, audit_id)
        WHERE r.id = i.id AND r.id = ANY($1) AND r.id BETWEEN $2 AND $3 AND r.status = 'queued'
            AND NOT (
                SELECT COALESCE(bool_or(
                    d.finished_at IS NULL AND d.queued_at IS NULL AND d.attempts = d.budget_start
                ), false)
                FROM deliveries d
                WHERE d.event_id = r.event_id AND d.destination = COALESCE(r.destination, d.destination)
                    AND d.replay_request_id >= r.id
            )
        RETURNING r.id, r.event_id, i.audit_id
    )
    ",
    insert_audit_entries!(
        "SELECT audit_id, 'replay_request', id, 'replay.dispatched', 'system', json_build_object('eventId', event_id)
    FROM moved"
    )
);

/// Marks requests as dispatched after deliveries of theirs were handed to their queues (`queued_at` is set).
pub async fn mark_dispatched(db: &Database, replay_request_ids: &[ReplayId]) -> Result<()> {
    db.bounded(async {
        if replay_request_ids.is_empty() {
            return Ok(());
        }
        let mut tx = db.pool().begin().await?;
        let unfinished = lock_unfinished(&mut tx, replay_request_ids).await?;
        if let (Some(first), Some(last)) = (unfinished.first(), unfinished.last()) {
            sqlx::query(MARK_DISPATCHED)
                .bind(&unfinished)
                .bind(first)
                .bind(last)
                .bind(new_ids(unfinished.len()))
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    })
    .await
}

// A request has no deliveries when its event was dropped with the partition of its day.
const SETTLE: &str = concat!(
    "/* replay_settlement::settle */
    WITH ended AS (
        SELECT r.id, r.status AS was, outcome.succeeded, i.dispatched_audit_id, i.ended_audit_id
        FROM replay_requests r
        JOIN unnest($1::uuid[], $4::uuid[], $5::uuid[]) AS i (id, dispatched_audit_id, ended_audit_id) ON r.id = i.id
        CROSS JOIN LATERAL (
            SELECT COALESCE(bool_and(d.status = 'succeeded'), false) AS succeeded,
                COALESCE(bool_or(d.finished_at IS NULL), false) AS is_unfinished
            FROM deliveries d
            WHERE d.event_id = r.event_id AND d.destination = COALESCE(r.destination, d.destination)
                AND d.replay_request_id >= r.id
        ) AS outcome
        WHERE r.id = ANY($1) AND r.id BETWEEN $2 AND $3 AND NOT outcome.is_unfinished
    ), settled AS (
        UPDATE replay_requests r
        SET status = CASE WHEN e.succeeded THEN 'completed' ELSE 'failed' END::replay_status,
            processed_at = now()
        FROM ended e
        WHERE r.id = e.id AND r.id = ANY($1) AND r.id BETWEEN $2 AND $3 AND r.status IN ('queued', 'dispatched')
        RETURNING r.id, r.event_id, r.status, e.was, e.dispatched_audit_id, e.ended_audit_id
    )
    ",
    insert_audit_entries!(
        "SELECT dispatched_audit_id, 'replay_request'::audit_entity, id, 'replay.dispatched', 'system',
        json_build_object('eventId', event_id)
    FROM settled WHERE was = 'queued'
    UNION ALL
    SELECT ended_audit_id, 'replay_request', id,
        CASE status WHEN 'completed' THEN 'replay.completed' ELSE 'replay.failed' END, 'system',
        json_build_object('eventId', event_id)
    FROM settled"
    )
);

/// Ends requests whose deliveries are all finished, those that newer ones took deliveries from included. To be called
/// with the requests of deliveries that have just been finished, in the same transaction or after it.
pub(crate) async fn settle_in(connection: &mut PgConnection, replay_request_ids: &[ReplayId]) -> Result<()> {
    if replay_request_ids.is_empty() {
        return Ok(());
    }
    let mut tx = connection.begin().await?;
    let unfinished = lock_unfinished(&mut tx, replay_request_ids).await?;
    if let (Some(first), Some(last)) = (unfinished.first(), unfinished.last()) {
        sqlx::query(SETTLE)
            .bind(&unfinished)
            .bind(first)
            .bind(last)
            .bind(new_ids(unfinished.len()))
            .bind(new_ids(unfinished.len()))
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The most requests that one sweep ends.
const SWEEP: i64 = 1000;

/// Ends requests that a crash between the finish of a delivery and the settlement of its replay has left. Cheap when there are none.
pub async fn settle_leftovers(db: &Database) -> Result<()> {
    db.bounded(async {
        let left: Vec<Uuid> = sqlx::query_scalar(
            "/* replay_settlement::settle_leftovers */
            SELECT r.id FROM replay_requests r
            WHERE r.status IN ('queued', 'dispatched') AND NOT (
                SELECT COALESCE(bool_or(d.finished_at IS NULL), false)
                FROM deliveries d
                WHERE d.event_id = r.event_id AND d.destination = COALESCE(r.destination, d.destination)
                    AND d.replay_request_id >= r.id
            )
            ORDER BY r.id LIMIT $1",
        )
        .bind(SWEEP)
        .fetch_all(db.pool())
        .await?;
        if left.is_empty() {
            return Ok(());
        }
        let mut connection = db.pool().acquire().await?;
        let left: Vec<ReplayId> = left.into_iter().map(ReplayId::new).collect();
        settle_in(&mut connection, &left).await
    })
    .await
}
