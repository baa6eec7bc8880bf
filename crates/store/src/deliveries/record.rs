//! The one commit behind an acknowledged message: the attempts and new states of a whole batch, and audit entries of what did not succeed. That
//! an event was delivered is an entry that is derived from the attempt (`views::audit`).
//!
//! A result is written only under the claim it was made under, and only while that claim's lease runs: a result that
//! comes later is refused, and the delivery is sent again. Terminal states never regress, since a finished delivery has
//! no claim.

use grapnel_core::delivery::state::{DeliveryState, NextState, Trigger};
use grapnel_core::error_chain::chain;
use grapnel_core::ids::{AttemptId, EventId, IntegrationId, LeaseId, ReplayId};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::attempt_index;
use crate::audit::insert_audit_entries;
use crate::columns::{Batch, Columns};
use crate::dedicated_connection::DedicatedConnection;
use crate::error::{Error, Result};
use crate::replay_settlement;

/// The result of one attempt of a claimed delivery, to be recorded.
#[derive(Debug, Clone)]
pub struct AttemptResult {
    pub event_id: EventId,
    pub integration_id: IntegrationId,
    pub destination: String,
    pub lease_id: LeaseId,
    /// The number that the attempt has.
    pub attempt_no: i32,
    /// As the claim saw them: the difference shows what a replay changed meanwhile.
    pub budget_start: i32,
    pub replay_request_id: Option<ReplayId>,
    pub triggered_by: Trigger,
    pub scheduled_at: Timestamp,
    pub started_at: Timestamp,
    pub next: NextState,
    /// The state when a replay renewed its budget while this attempt was in flight.
    pub next_if_replayed: NextState,
    /// Whether it is an attempt: a failure before the request was sent is neither numbered nor kept.
    pub counts: bool,
    pub http_status: Option<u16>,
    pub response_body: Option<String>,
    pub error_message: Option<String>,
    pub duration_ms: u32,
}

/// An attempt whose result was accepted.
#[derive(Debug)]
pub struct RecordedAttempt {
    pub event_id: EventId,
    pub integration_id: IntegrationId,
    pub destination: String,
    pub replay_request_id: Option<ReplayId>,
    /// The state of the delivery after it.
    pub state: DeliveryState,
    /// In milliseconds; `None` when nothing was sent, which is no attempt.
    pub duration_ms: Option<u32>,
}

/// Writes a batch of results in one statement and returns those that were accepted; the claims of the others had expired.
/// A replay ends with the last of its deliveries; one whose end is missed here is settled by the dispatcher.
pub async fn record(
    connection: &mut DedicatedConnection,
    results: &[AttemptResult],
) -> Result<Vec<RecordedAttempt>> {
    let recorded = connection.bounded(async |connection| write(connection, results).await).await?;
    settle_replays(connection, &recorded).await;
    Ok(recorded)
}

async fn settle_replays(connection: &mut DedicatedConnection, recorded: &[RecordedAttempt]) {
    let mut replays: Vec<ReplayId> =
        recorded.iter().filter_map(|attempt| attempt.replay_request_id).collect();
    if replays.is_empty() {
        return;
    }
    replays.sort_unstable();
    replays.dedup();
    let settled =
        connection.bounded(async |connection| replay_settlement::settle_in(connection, &replays).await);
    if let Err(error) = settled.await {
        tracing::warn!(error = %chain(&error), "replay requests are settled later");
    }
}

async fn write(connection: &mut PgConnection, results: &[AttemptResult]) -> Result<Vec<RecordedAttempt>> {
    let ids = || results.iter().map(|result| result.event_id.uuid());
    let (Some(first), Some(last)) = (ids().min(), ids().max()) else {
        return Ok(Vec::new());
    };
    let attempt_ids: Vec<Uuid> = results.iter().map(|_| AttemptId::generate().uuid()).collect();
    let (indexed_attempts, indexed_event_ids): (Vec<_>, Vec<_>) =
        attempt_index::entries(results, &attempt_ids)
            .into_iter()
            .map(|entry| (entry.rows, entry.others))
            .unzip();
    let batch = Batch(results);
    let rows = sqlx::query(RECORD)
        .bind(batch.column(|result| result.event_id.uuid()))
        .bind(batch.column(|result| &*result.destination))
        .bind(batch.column(|result| result.lease_id.uuid()))
        .bind(batch.column(|result| result.budget_start))
        .bind(batch.column(|result| result.replay_request_id.map(ReplayId::uuid)))
        .bind(batch.column(|result| result.triggered_by.as_str()))
        .bind(batch.column(|result| result.scheduled_at.to_sqlx()))
        .bind(batch.column(|result| result.started_at.to_sqlx()))
        .bind(batch.column(|result| result.next.state().as_str()))
        .bind(batch.column(|result| result.next.wait().map(|wait| wait.as_secs_f64())))
        .bind(batch.column(|result| result.next_if_replayed.state().as_str()))
        .bind(batch.column(|result| result.next_if_replayed.wait().map(|wait| wait.as_secs_f64())))
        .bind(batch.column(|result| result.counts))
        .bind(batch.column(|result| result.http_status.map(u16::cast_signed)))
        .bind(batch.column(|result| result.response_body.as_deref()))
        .bind(batch.column(|result| result.error_message.as_deref()))
        .bind(batch.column(|result| result.duration_ms.cast_signed()))
        .bind(attempt_ids)
        .bind(first)
        .bind(last)
        .bind(indexed_attempts)
        .bind(indexed_event_ids)
        .fetch_all(connection)
        .await?;
    let recorded = |row: &PgRow| {
        Ok(RecordedAttempt {
            event_id: row.id("event_id", EventId::new)?,
            integration_id: row.id("integration_id", IntegrationId::new)?,
            destination: row.try_get("destination")?,
            replay_request_id: row.optional_id("replay_request_id", ReplayId::new)?,
            state: DeliveryState::parse(row.try_get("status")?).ok_or_else(|| Error::Corrupt {
                table: "deliveries",
                column: "status",
                id: row.try_get("event_id").unwrap_or_default(),
            })?,
            duration_ms: row.try_get::<Option<i32>, _>("duration_ms")?.map(i32::cast_unsigned),
        })
    };
    rows.iter().map(recorded).collect()
}

// One array is unnested, and its ordinals are the subscripts of the others: a scan of several arrays begins and keeps a result for each.
//
// The update must not say `finished_at IS NULL`, although that holds: the planner would then read the index deliveries_open
// from end to end instead of the primary key. What keeps a finished delivery from being written is that it has no lease.
//
// Which of the two next states holds is only known here: a replay renews the budget (budget_start) while an attempt is in
// flight. grapnel_core::delivery::state::evaluate has decided both.
const RECORD: &str = concat!(
    "/* deliveries::record */
    WITH input AS MATERIALIZED (
        SELECT event_id, ($2::text[])[i] AS destination, ($3::uuid[])[i] AS lease_id, ($4::int[])[i] AS budget_start,
            ($5::uuid[])[i] AS replay_request_id, ($6::text[])[i] AS triggered_by, ($7::timestamptz[])[i] AS scheduled_at,
            ($8::timestamptz[])[i] AS started_at, ($9::text[])[i]::delivery_status AS next, ($10::float8[])[i] AS wait,
            ($11::text[])[i]::delivery_status AS next_if_replayed, ($12::float8[])[i] AS wait_if_replayed,
            ($13::bool[])[i] AS counts, ($14::smallint[])[i] AS http_status, ($15::text[])[i] AS response_body,
            ($16::text[])[i] AS error_message, ($17::int[])[i] AS duration_ms, ($18::uuid[])[i] AS attempt_id,
            ($21::smallint[])[i] AS indexed_attempts, ($22::text[])[i] AS indexed_event_ids
        FROM unnest($1::uuid[]) WITH ORDINALITY AS t (event_id, i)
    ), updated AS (
        UPDATE deliveries d
        SET attempts = d.attempts + i.counts::int,
            lease_id = NULL,
            lease_until = NULL,
            last_error = i.error_message,
            updated_at = now(),
            status = CASE WHEN d.budget_start = i.budget_start THEN i.next ELSE i.next_if_replayed END,
            due_at = now() + make_interval(
                secs => CASE WHEN d.budget_start = i.budget_start THEN i.wait ELSE i.wait_if_replayed END),
            queued_at = NULL,
            finished_at = CASE
                WHEN CASE WHEN d.budget_start = i.budget_start THEN i.next ELSE i.next_if_replayed END
                    IN ('succeeded', 'failed') THEN now() END,
            triggered_by = CASE WHEN i.next = 'succeeded' OR NOT i.counts THEN d.triggered_by ELSE 'retry' END,
            unsent_since = CASE WHEN NOT i.counts THEN COALESCE(d.unsent_since, now()) END
        FROM input i
        WHERE d.event_id = i.event_id
            AND d.destination = i.destination
            AND d.event_id = ANY($1)
            AND d.event_id BETWEEN $19 AND $20
            AND d.lease_id = i.lease_id
            AND d.lease_until > now()
        RETURNING i.*, d.integration_id, d.attempts AS attempt_no, d.status AS new_status, d.due_at AS new_due_at,
            CASE WHEN d.replay_request_id IS DISTINCT FROM i.replay_request_id THEN 'replay' ELSE i.triggered_by END
                AS attempt_triggered_by,
            d.replay_request_id AS replay_id
    ), attempted AS (
        INSERT INTO delivery_attempts (
            id, event_id, integration_id, destination, attempt_no, succeeded, http_status, response_body,
            error_message, duration_ms, triggered_by, scheduled_at, started_at, indexed_attempts, indexed_event_ids
        )
        SELECT attempt_id, event_id, integration_id, destination, attempt_no, new_status = 'succeeded', http_status,
            response_body, error_message, duration_ms, attempt_triggered_by, scheduled_at, started_at,
            -- Where one is refused or is no attempt, it may be the one that leads others.
            CASE WHEN (SELECT count(*) FROM updated WHERE counts) = cardinality($1) THEN indexed_attempts ELSE 1 END,
            CASE WHEN (SELECT count(*) FROM updated WHERE counts) = cardinality($1) THEN indexed_event_ids::uuid[] END
        FROM updated WHERE counts
    ), audited AS (
        ",
    insert_audit_entries!(
        "SELECT attempt_id, 'event', event_id,
            CASE new_status WHEN 'failed' THEN 'event.failed' ELSE 'event.retry_scheduled' END,
            'worker',
            json_build_object('destination', destination, 'attemptNo', attempt_no, 'error', error_message,
                'dueAt', new_due_at)
        FROM updated WHERE new_status <> 'succeeded' AND (counts OR new_status = 'failed')"
    ),
    "
    )
    SELECT event_id, integration_id, destination, replay_id AS replay_request_id, new_status::text AS status,
        CASE WHEN counts THEN duration_ms END AS duration_ms
    FROM updated"
);
