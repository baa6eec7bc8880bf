//! The effect of a replay on the deliveries that it takes; see the table in `crate::replays`.

use grapnel_core::ids::{AuditEntryId, EventId, IntegrationId, ReplayId};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::audit::{Requester, insert_audit_entries, new_ids};
use crate::columns::Columns;
use crate::deliveries::is_filtered;
use crate::error::Result;

/// A request for a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReplay {
    pub event_id: EventId,
    /// Only this destination, which the integration may have got after the event; `None` is all of the event's.
    pub destination: Option<String>,
    /// As the caller said.
    pub requested_by: String,
    pub reason: String,
    /// Who was authenticated.
    pub requester: Requester,
}

/// Adds the delivery of an event to a destination that its integration got later, to be taken by a replay.
pub(crate) async fn add_for_replay(
    connection: &mut PgConnection,
    replay: &NewReplay,
    integration_id: IntegrationId,
    destination: &str,
) -> Result<()> {
    sqlx::query(concat!(
        "/* deliveries::add_for_replay */
        WITH added AS (
            INSERT INTO deliveries (event_id, destination, integration_id, due_at, updated_at)
            VALUES ($1, $2, $3, now(), now())
            -- Another replay may have added it meanwhile.
            ON CONFLICT DO NOTHING
            RETURNING event_id, destination
        )
        ",
        insert_audit_entries!(
            "SELECT $4::uuid, 'event'::audit_entity, event_id, 'event.delivery_added', $5::text,
            (jsonb_build_object('destination', destination, 'requestedBy', $6::text) || $7::jsonb)::json
        FROM added"
        )
    ))
    .bind(replay.event_id.uuid())
    .bind(destination)
    .bind(integration_id.uuid())
    .bind(AuditEntryId::generate().uuid())
    .bind(&replay.requester.actor)
    .bind(&replay.requested_by)
    .bind(replay.requester.details())
    .execute(connection)
    .await?;
    Ok(())
}

/// A delivery that is locked until the transaction ends.
pub(crate) struct LockedDelivery {
    pub(crate) destination: String,
    pub(crate) replay_request_id: Option<ReplayId>,
    /// Whether the filter of the destination left the event out, and no replay has named it since.
    pub(crate) is_filtered: bool,
}

/// Locks the deliveries that a replay may take.
pub(crate) async fn lock_for_replay(
    connection: &mut PgConnection,
    replay: &NewReplay,
) -> Result<Vec<LockedDelivery>> {
    let rows = sqlx::query(concat!(
        "/* deliveries::lock_for_replay */
        SELECT d.destination, d.replay_request_id, ",
        is_filtered!(),
        " AS is_filtered
        FROM deliveries d
        WHERE d.event_id = $1 AND ($2::text IS NULL OR d.destination = $2)
        ORDER BY d.destination FOR UPDATE",
    ))
    .bind(replay.event_id.uuid())
    .bind(replay.destination.as_deref())
    .fetch_all(connection)
    .await?;
    let delivery = |row: &PgRow| {
        Ok(LockedDelivery {
            destination: row.try_get("destination")?,
            replay_request_id: row.optional_id("replay_request_id", ReplayId::new)?,
            is_filtered: row.try_get("is_filtered")?,
        })
    };
    rows.iter().map(delivery).collect()
}

macro_rules! in_flight {
    () => {
        "d.status = 'processing' AND d.lease_until > now()"
    };
}

// Its message is in the queue, or it is in flight. The conditions read the columns as they were before.
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
    "/* deliveries::take_for_replay */
    WITH ended AS (
        -- For a job that fed it and did not count it yet, it has ended as it is now.
        UPDATE replay_deliveries r
        SET outcome = CASE d.status WHEN 'succeeded' THEN 'succeeded' ELSE 'failed' END, look_at = now()
        FROM deliveries d
        WHERE d.event_id = $2 AND d.destination = ANY($3) AND d.finished_at IS NOT NULL
            AND r.event_id = d.event_id AND r.destination = d.destination AND r.outcome IS NULL
    ), taken AS (
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
            unsent_since = NULL,
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
    ",
    insert_audit_entries!(
        "SELECT ($8::uuid[])[1], 'replay_request'::audit_entity, $1, 'replay.requested', $9::text, (jsonb_build_object(
        'eventId', $2, 'requestedBy', $5, 'reason', $6, 'destination', $4, 'destinations', $3) || $10::jsonb)::json
    UNION ALL
    SELECT ($8::uuid[])[2], 'replay_request', $1, 'replay.dispatched', 'system', json_build_object('eventId', $2)
    FROM dispatched WHERE yes"
    )
);

/// Stores the request and takes the deliveries.
pub(crate) async fn take_for_replay(
    connection: &mut PgConnection,
    id: ReplayId,
    replay: &NewReplay,
    destinations: &[String],
) -> Result<()> {
    sqlx::query(TAKE)
        .bind(id.uuid())
        .bind(replay.event_id.uuid())
        .bind(destinations)
        .bind(replay.destination.as_deref())
        .bind(&replay.requested_by)
        .bind(&replay.reason)
        .bind(Timestamp::now().to_sqlx())
        .bind(new_ids(2))
        .bind(&replay.requester.actor)
        .bind(replay.requester.details())
        .execute(connection)
        .await?;
    Ok(())
}
