//! From the request to the deliveries that it takes.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::views::StoreFailure;
use crate::views::failure::within_deadline;

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
    let mut tx = crate::views::begin(pool, BEGIN).await?;
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
