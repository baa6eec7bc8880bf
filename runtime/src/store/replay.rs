//! Replays: an operator's request to deliver an event again, from the request to its end.
//!
//! # States of a request
//!
//! ```text
//! queued ──▶ dispatched ──▶ completed | failed
//!    └──────────────────────────▲
//! ```
//!
//! - [`request_replay`] stores the request as `queued`, audits it and takes the deliveries, in one transaction: before
//!   anything is published. When every delivery it takes is already in its queue or in flight, there is nothing left to
//!   dispatch, and it is `dispatched` at once.
//! - [`mark_dispatched`] follows the dispatcher: `dispatched` when no delivery waits for its first publication.
//! - [`settle`] follows whoever finished a delivery: `completed` when all deliveries succeeded, `failed` when none is
//!   unfinished and one failed. A request can end before it was marked as dispatched; both entries are then written.
//!   `completed` and `failed` are final.
//!
//! # What a replay does to a delivery
//!
//! | delivery | becomes |
//! |---|---|
//! | succeeded, failed | pending, due now |
//! | retrying, waiting for its time | pending, due now |
//! | pending or retrying, queued | stays queued: the attempt that comes is the replay's |
//! | processing under a running lease | stays claimed: the attempt under way counts as the replay's own |
//! | processing, lease expired | pending, due now; the lost claim can write no result |
//!
//! All of them count on from their attempts with a fresh budget (`budget_start`), carry the request's id and are
//! triggered by `replay`. To know which deliveries are a request's own, ids of requests for one event strictly grow.
//!
//! # Several replays of one event
//!
//! A newer request takes the deliveries over from an older one. The older does not end by that: its deliveries are those
//! of its scope that carry its own id *or a newer one's*, so it is dispatched, completed or failed by what becomes of
//! them, as a rule together with the newer. Hence both functions look at all unfinished requests of an event, and none
//! waits for ever. What a crash left behind is found by [`settle_leftovers`], which runs now and then.
//!
//! # What cannot be replayed
//!
//! A delivery whose integration was removed or is `Disabled`, or whose destination the integration no longer has: no
//! worker would take it. A replay of all destinations leaves such destinations out, unless there is no other. The row of
//! the integration is locked for the transaction, so that a removal comes before or after, and then ends the deliveries.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use super::read::StoreFailure;
use super::read::failure::within_deadline;

/// Who asks for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReplay {
    pub event_id: Uuid,
    /// Only this destination; `None` is all of the event's.
    pub destination: Option<String>,
    pub requested_by: String,
    pub reason: String,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requested {
    /// Stored under this id; the dispatcher should be woken.
    Accepted(Uuid),
    UnknownEvent,
    /// The event was never meant for the destination.
    UnknownDestination,
    /// The integration was removed or is disabled.
    InactiveIntegration,
    /// The integration no longer has the destination, or none of the event's.
    RemovedDestination,
}

// The timeout is that of the reading statements. A row lock that cannot be had in half of it is not worth waiting for.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL statement_timeout = '10s';
    SET LOCAL lock_timeout = '5s'";

/// Group commits lock rows of many deliveries; a transaction that met one the wrong way round is run again.
const TRIES: usize = 3;

/// Stores a request and takes the deliveries. Nothing is stored unless it answers [`Requested::Accepted`].
pub async fn request_replay(pool: &PgPool, replay: &NewReplay) -> Result<Requested, StoreFailure> {
    within_deadline(async {
        let mut tries = 1;
        loop {
            match try_request(pool, replay).await {
                Err(failure) if failure.is_collision() && tries < TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    })
    .await
}

async fn try_request(pool: &PgPool, replay: &NewReplay) -> Result<Requested, StoreFailure> {
    let mut tx = super::read::begin(pool, BEGIN).await?;
    let integration_id: Option<Uuid> =
        sqlx::query_scalar("/* replay::find_event */ SELECT integration_id FROM events WHERE id = $1")
            .bind(replay.event_id)
            .fetch_optional(&mut *tx)
            .await?;
    let Some(integration_id) = integration_id else {
        return Ok(Requested::UnknownEvent);
    };
    // Locked in this order everywhere: the integration, its deliveries, their replay requests.
    let destinations = lock_active_integration(&mut tx, integration_id).await?;
    let deliveries = lock_deliveries(&mut tx, replay).await?;
    if deliveries.is_empty() {
        return Ok(Requested::UnknownDestination);
    }
    let Some(destinations) = destinations else {
        return Ok(Requested::InactiveIntegration);
    };
    let last_replay = deliveries.iter().filter_map(|delivery| delivery.replay_request_id).max();
    let taken: Vec<String> = deliveries
        .into_iter()
        .map(|delivery| delivery.destination)
        .filter(|destination| destinations.contains(destination))
        .collect();
    if taken.is_empty() {
        return Ok(Requested::RemovedDestination);
    }
    let id = next_id(last_replay);
    take(&mut tx, id, replay, &taken).await?;
    tx.commit().await?;
    Ok(Requested::Accepted(id))
}

/// The names of the destinations; `None` when the integration delivers nothing any more.
async fn lock_active_integration(
    connection: &mut PgConnection,
    id: Uuid,
) -> Result<Option<Vec<String>>, StoreFailure> {
    let destinations = sqlx::query_scalar(
        "/* replay::lock_active_integration */
        SELECT ARRAY(SELECT value ->> 'name' FROM json_array_elements(spec -> 'destinations'))
        FROM integrations WHERE id = $1 AND deleted_at IS NULL AND state <> 'Disabled' FOR SHARE",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    Ok(destinations)
}

struct LockedDelivery {
    destination: String,
    replay_request_id: Option<Uuid>,
}

async fn lock_deliveries(
    connection: &mut PgConnection,
    replay: &NewReplay,
) -> Result<Vec<LockedDelivery>, StoreFailure> {
    let rows = sqlx::query(
        "/* replay::lock_deliveries */
        SELECT destination, replay_request_id FROM deliveries
        WHERE event_id = $1 AND ($2::text IS NULL OR destination = $2)
        ORDER BY destination FOR UPDATE",
    )
    .bind(replay.event_id)
    .bind(replay.destination.as_deref())
    .fetch_all(connection)
    .await?;
    let delivery = |row: &PgRow| {
        Ok(LockedDelivery {
            destination: row.try_get("destination")?,
            replay_request_id: row.try_get("replay_request_id")?,
        })
    };
    rows.iter().map(delivery).collect()
}

/// A new id, greater than that of the last replay even if it was made by a machine whose clock is ahead.
fn next_id(last: Option<Uuid>) -> Uuid {
    let id = Uuid::now_v7();
    match last {
        Some(last) if last >= id => Uuid::from_u128(last.as_u128().saturating_add(1)),
        _ => id,
    }
}

macro_rules! in_flight {
    () => {
        "d.status = 'processing' AND d.lease_until > now()"
    };
}

// Its message is in the queue, or it is in flight. The columns are those of before.
macro_rules! kept {
    () => {
        concat!(
            in_flight!(),
            " OR d.status IN ('pending', 'retrying') AND d.queued_at IS NOT NULL AND d.due_at IS NULL"
        )
    };
}

// A delivery that was not kept has no queued_at afterwards.
const TAKE: &str = concat!(
    "/* replay::take */
    WITH taken AS (
        UPDATE deliveries d
        SET status = CASE WHEN ",
    in_flight!(),
    " THEN d.status ELSE 'pending' END,
            lease_id = CASE WHEN ",
    in_flight!(),
    " THEN d.lease_id END,
            lease_until = CASE WHEN ",
    in_flight!(),
    " THEN d.lease_until END,
            queued_at = CASE WHEN ",
    kept!(),
    " THEN d.queued_at END,
            due_at = CASE WHEN ",
    kept!(),
    " THEN d.due_at ELSE now() END,
            finished_at = NULL,
            budget_start = d.attempts,
            triggered_by = 'replay',
            replay_request_id = $1,
            updated_at = now()
        WHERE d.event_id = $2 AND d.destination = ANY($3)
        RETURNING d.queued_at IS NOT NULL AS is_kept
    ), dispatched AS (
        SELECT bool_and(is_kept) AS yes FROM taken
    ), requested AS (
        INSERT INTO replay_requests (id, event_id, destination, requested_by, reason, status, created_at)
        SELECT $1, $2, $4, $5, $6, CASE WHEN yes THEN 'dispatched' ELSE 'queued' END::replay_status, $7
        FROM dispatched
    )
    INSERT INTO audit_entries (id, entity_type, entity_id, action, actor, details)
    SELECT $8, 'replay_request'::audit_entity, $1, 'replay.requested', $5, json_build_object(
        'eventId', $2, 'requestedBy', $5, 'reason', $6, 'destination', $4, 'destinations', $3)
    UNION ALL
    SELECT $9, 'replay_request', $1, 'replay.dispatched', 'system', json_build_object('eventId', $2)
    FROM dispatched WHERE yes"
);

async fn take(
    connection: &mut PgConnection,
    id: Uuid,
    replay: &NewReplay,
    destinations: &[String],
) -> Result<(), StoreFailure> {
    sqlx::query(TAKE)
        .bind(id)
        .bind(replay.event_id)
        .bind(destinations)
        .bind(replay.destination.as_deref())
        .bind(&replay.requested_by)
        .bind(&replay.reason)
        .bind(Timestamp::now().to_sqlx())
        .bind(Uuid::now_v7())
        .bind(Uuid::now_v7())
        .execute(connection)
        .await?;
    Ok(())
}

/// Locks the unfinished requests of all events that the given requests are of. What is read in a later statement is
/// then all that the other holders of these locks have committed, so of two workers that finish the last two deliveries
/// of a request at the same time, the second sees both.
async fn lock_unfinished(
    connection: &mut PgConnection,
    replay_request_ids: &[Uuid],
) -> sqlx::Result<Vec<Uuid>> {
    let (Some(first), Some(last)) = (replay_request_ids.iter().min(), replay_request_ids.iter().max()) else {
        return Ok(Vec::new());
    };
    sqlx::query_scalar(
        "/* replay::lock_unfinished */
        SELECT id FROM replay_requests
        WHERE status IN ('queued', 'dispatched') AND event_id = ANY(ARRAY(
            SELECT event_id FROM replay_requests WHERE id = ANY($1) AND id BETWEEN $2 AND $3
        ))
        ORDER BY id FOR UPDATE",
    )
    .bind(replay_request_ids)
    .bind(first)
    .bind(last)
    .fetch_all(connection)
    .await
}

// $1 the requests, $2 and $3 their bounds, $4 ids for the entries. A delivery waits for its first publication while
// it is neither queued nor attempted since the replay.
const MARK_DISPATCHED: &str = "/* replay::mark_dispatched */
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
    INSERT INTO audit_entries (id, entity_type, entity_id, action, actor, details)
    SELECT audit_id, 'replay_request', id, 'replay.dispatched', 'system', json_build_object('eventId', event_id)
    FROM moved";

/// Marks requests as dispatched after deliveries of theirs were handed to their queues (`queued_at` is set).
pub async fn mark_dispatched(pool: &PgPool, replay_request_ids: &[Uuid]) -> sqlx::Result<()> {
    if replay_request_ids.is_empty() {
        return Ok(());
    }
    let mut tx = pool.begin().await?;
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
    tx.commit().await
}

// A request without deliveries is one whose event has left with its day.
const SETTLE: &str = "/* replay::settle */
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
    INSERT INTO audit_entries (id, entity_type, entity_id, action, actor, details)
    SELECT dispatched_audit_id, 'replay_request'::audit_entity, id, 'replay.dispatched', 'system',
        json_build_object('eventId', event_id)
    FROM settled WHERE was = 'queued'
    UNION ALL
    SELECT ended_audit_id, 'replay_request', id,
        CASE status WHEN 'completed' THEN 'replay.completed' ELSE 'replay.failed' END, 'system',
        json_build_object('eventId', event_id)
    FROM settled";

/// Ends requests whose deliveries are all finished, those that newer ones took deliveries from included. To be called
/// with the requests of deliveries that have just been finished, in the same transaction or after it.
pub async fn settle(connection: &mut PgConnection, replay_request_ids: &[Uuid]) -> sqlx::Result<()> {
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
    tx.commit().await
}

/// Requests that one sweep ends at most.
const SWEEP: i64 = 1000;

/// Ends requests that a crash between the finish of a delivery and [`settle`] has left. Cheap when there are none.
pub async fn settle_leftovers(pool: &PgPool) -> sqlx::Result<()> {
    let left: Vec<Uuid> = sqlx::query_scalar(
        "/* replay::settle_leftovers */
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
    .fetch_all(pool)
    .await?;
    if left.is_empty() {
        return Ok(());
    }
    let mut connection = pool.acquire().await?;
    settle(&mut connection, &left).await
}

fn new_ids(count: usize) -> Vec<Uuid> {
    std::iter::repeat_with(Uuid::now_v7).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_replays_grow_although_clocks_differ() {
        let ahead = Uuid::from_u128(Uuid::now_v7().as_u128() + (3_600_000 << 80));
        let next = next_id(Some(ahead));
        assert!(next > ahead);
        assert_eq!(next.get_version_num(), 7);
        let now = next_id(Some(Uuid::nil()));
        assert!(now < ahead);
    }
}
