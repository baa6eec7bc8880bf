//! The one commit behind an acknowledged message: the attempts, new states and audit entries of a whole batch.
//!
//! A result is written only under the claim it was made under, and only while that claim's lease runs: a result that
//! comes later is refused, and the delivery is sent again. Terminal states never regress, since a finished delivery has
//! no claim.

use grapnel_core::delivery::state::{NextState, Trigger};
use grapnel_core::error_chain::chain;
use grapnel_core::ids::{AttemptId, EventId, LeaseId, ReplayId};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::audit::{self, insert_audit_entries};
use crate::columns::{Batch, Columns};
use crate::dedicated_connection::DedicatedConnection;
use crate::error::Result;
use crate::replay_settlement;

/// The result of one attempt of a claimed delivery, to be recorded.
#[derive(Debug, Clone)]
pub struct AttemptResult {
    pub event_id: EventId,
    pub destination: String,
    pub lease_id: LeaseId,
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
    pub destination: String,
    pub replay_request_id: Option<ReplayId>,
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
        .bind(batch.column(|_| AttemptId::generate().uuid()))
        .bind(audit::new_ids(results.len()))
        .bind(first)
        .bind(last)
        .fetch_all(connection)
        .await?;
    let recorded = |row: &PgRow| {
        Ok(RecordedAttempt {
            event_id: row.id("event_id", EventId::new)?,
            destination: row.try_get("destination")?,
            replay_request_id: row.optional_id("replay_request_id", ReplayId::new)?,
        })
    };
    rows.iter().map(recorded).collect()
}

// The update must not say `finished_at IS NULL`, although that holds: the planner would then read the index deliveries_open
// from end to end instead of the primary key. What keeps a finished delivery from being written is that it has no lease.
//
// Which of the two next states holds is only known here: a replay renews the budget (budget_start) while an attempt is in
// flight. grapnel_core::delivery::state::evaluate has decided both.
const RECORD: &str = concat!(
    "/* deliveries::record */
    WITH input AS (
        SELECT i.*, i.next_text::delivery_status AS next, i.next_if_replayed_text::delivery_status AS next_if_replayed
        FROM unnest(
            $1::uuid[], $2::text[], $3::uuid[], $4::int[], $5::uuid[], $6::text[], $7::timestamptz[],
            $8::timestamptz[], $9::text[], $10::float8[], $11::text[], $12::float8[], $13::bool[],
            $14::smallint[], $15::text[], $16::text[], $17::int[], $18::uuid[], $19::uuid[]
        ) AS i (
            event_id, destination, lease_id, budget_start, replay_request_id, triggered_by, scheduled_at,
            started_at, next_text, wait, next_if_replayed_text, wait_if_replayed, counts,
            http_status, response_body, error_message, duration_ms, attempt_id, audit_id
        )
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
            triggered_by = CASE WHEN i.next = 'succeeded' OR NOT i.counts THEN d.triggered_by ELSE 'retry' END
        FROM input i
        WHERE d.event_id = i.event_id
            AND d.destination = i.destination
            AND d.event_id = ANY($1)
            AND d.event_id BETWEEN $20 AND $21
            AND d.lease_id = i.lease_id
            AND d.lease_until > now()
        RETURNING i.*, d.integration_id, d.attempts AS attempt_no, d.status AS new_status, d.due_at AS new_due_at,
            CASE WHEN d.replay_request_id IS DISTINCT FROM i.replay_request_id THEN 'replay' ELSE i.triggered_by END
                AS attempt_triggered_by,
            d.replay_request_id AS replay_id
    ), attempted AS (
        INSERT INTO delivery_attempts (
            id, event_id, integration_id, destination, attempt_no, succeeded, http_status, response_body,
            error_message, duration_ms, triggered_by, scheduled_at, started_at
        )
        SELECT attempt_id, event_id, integration_id, destination, attempt_no, new_status = 'succeeded', http_status,
            response_body, error_message, duration_ms, attempt_triggered_by, scheduled_at, started_at
        FROM updated WHERE counts
    ), audited AS (
        ",
    insert_audit_entries!(
        "SELECT audit_id, 'event', event_id,
            CASE new_status WHEN 'succeeded' THEN 'event.processed' WHEN 'failed' THEN 'event.failed'
                ELSE 'event.retry_scheduled' END,
            'worker',
            CASE WHEN new_status = 'succeeded'
                THEN json_build_object('destination', destination, 'attemptNo', attempt_no)
                ELSE json_build_object('destination', destination, 'attemptNo', attempt_no, 'error', error_message,
                    'dueAt', new_due_at) END
        FROM updated WHERE counts"
    ),
    "
    )
    SELECT event_id, destination, replay_id AS replay_request_id FROM updated"
);
