//! The one commit behind an acknowledged message: attempt, new state and audit entry of a whole batch.
//!
//! A result is written only under the claim it was made under, and only while that claim's lease runs: a result that
//! comes later is refused, and the delivery is sent again. Terminal states never regress, since a finished delivery has
//! no claim.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

/// The state that a result leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextState {
    Succeeded,
    /// The attempts of the budget are used up, or the receiver said that it is gone.
    Failed,
    /// To be queued again at this time.
    Due(Timestamp),
}

/// What one claimed delivery came to.
#[derive(Debug)]
pub struct Recorded {
    pub event_id: Uuid,
    pub destination: String,
    pub lease_id: Uuid,
    /// As the claim saw them: what a replay changed meanwhile is told by the difference.
    pub budget_start: i32,
    pub replay_request_id: Option<Uuid>,
    pub triggered_by: String,
    pub scheduled_at: Timestamp,
    pub started_at: Timestamp,
    pub next: NextState,
    /// When to try again if a replay renewed the budget while this attempt was in flight.
    pub retry_if_replayed_at: Timestamp,
    /// A failure of ours before the request left is not an attempt of the receiver's: it is not numbered or kept.
    pub counted: bool,
    pub http_status: Option<u16>,
    pub response_body: Option<String>,
    pub error_message: Option<String>,
    pub duration_ms: u32,
}

/// A delivery whose result was accepted.
#[derive(Debug)]
pub struct Written {
    pub event_id: Uuid,
    pub destination: String,
    pub replay_request_id: Option<Uuid>,
}

/// Writes a batch of results in one statement and answers those that were accepted; the others' claims had expired.
pub async fn record(connection: &mut PgConnection, results: &[Recorded]) -> sqlx::Result<Vec<Written>> {
    let ids = || results.iter().map(|result| result.event_id);
    let (Some(first), Some(last)) = (ids().min(), ids().max()) else {
        return Ok(Vec::new());
    };
    let due = |result: &Recorded| match result.next {
        NextState::Due(at) => Some(at.to_sqlx()),
        NextState::Succeeded | NextState::Failed => None,
    };
    let status = |result: &Recorded| match result.next {
        NextState::Succeeded => "succeeded",
        NextState::Failed => "failed",
        NextState::Due(_) => "retrying",
    };
    let rows = sqlx::query(RECORD)
        .bind(ids().collect::<Vec<_>>())
        .bind(results.iter().map(|result| &*result.destination).collect::<Vec<_>>())
        .bind(results.iter().map(|result| result.lease_id).collect::<Vec<_>>())
        .bind(results.iter().map(|result| result.budget_start).collect::<Vec<_>>())
        .bind(results.iter().map(|result| result.replay_request_id).collect::<Vec<_>>())
        .bind(results.iter().map(|result| &*result.triggered_by).collect::<Vec<_>>())
        .bind(results.iter().map(|result| result.scheduled_at.to_sqlx()).collect::<Vec<_>>())
        .bind(results.iter().map(|result| result.started_at.to_sqlx()).collect::<Vec<_>>())
        .bind(results.iter().map(status).collect::<Vec<_>>())
        .bind(results.iter().map(due).collect::<Vec<_>>())
        .bind(results.iter().map(|result| result.retry_if_replayed_at.to_sqlx()).collect::<Vec<_>>())
        .bind(results.iter().map(|result| result.counted).collect::<Vec<_>>())
        .bind(results.iter().map(|result| result.http_status.map(u16::cast_signed)).collect::<Vec<_>>())
        .bind(results.iter().map(|result| result.response_body.as_deref()).collect::<Vec<_>>())
        .bind(results.iter().map(|result| result.error_message.as_deref()).collect::<Vec<_>>())
        .bind(results.iter().map(|result| result.duration_ms.cast_signed()).collect::<Vec<_>>())
        .bind(results.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
        .bind(results.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
        .bind(first)
        .bind(last)
        .fetch_all(connection)
        .await?;
    let written = |row: &sqlx::postgres::PgRow| {
        Ok(Written {
            event_id: row.try_get("event_id")?,
            destination: row.try_get("destination")?,
            replay_request_id: row.try_get("replay_request_id")?,
        })
    };
    rows.iter().map(written).collect()
}

const RECORD: &str = "/* record::record */
    WITH input AS (
        SELECT i.*, i.status_text::delivery_status AS status
        FROM unnest(
            $1::uuid[], $2::text[], $3::uuid[], $4::int[], $5::uuid[], $6::text[], $7::timestamptz[],
            $8::timestamptz[], $9::text[], $10::timestamptz[], $11::timestamptz[], $12::bool[], $13::smallint[],
            $14::text[], $15::text[], $16::int[], $17::uuid[], $18::uuid[]
        ) AS i (
            event_id, destination, lease_id, budget_start, replay_request_id, triggered_by, scheduled_at,
            started_at, status_text, due_at, retry_if_replayed_at, counted, http_status,
            response_body, error_message, duration_ms, attempt_id, audit_id
        )
    ), updated AS (
        UPDATE deliveries d
        SET attempts = d.attempts + i.counted::int,
            lease_id = NULL,
            lease_until = NULL,
            last_error = i.error_message,
            updated_at = now(),
            -- A replay that came while this attempt was in flight counts it as its own and renewed the budget: what
            -- would have been the end is then the first failure of the new budget.
            status = CASE WHEN i.status = 'failed' AND d.budget_start <> i.budget_start THEN 'retrying'
                ELSE i.status END,
            due_at = CASE WHEN i.status = 'failed' AND d.budget_start <> i.budget_start THEN i.retry_if_replayed_at
                ELSE i.due_at END,
            queued_at = NULL,
            finished_at = CASE WHEN i.status = 'succeeded' OR i.status = 'failed' AND d.budget_start = i.budget_start
                THEN now() END,
            triggered_by = CASE WHEN i.status = 'succeeded' OR NOT i.counted THEN d.triggered_by ELSE 'retry' END
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
            error_message, duration_ms, triggered_by, scheduled_at, started_at
        )
        SELECT attempt_id, event_id, integration_id, destination, attempt_no, new_status = 'succeeded', http_status,
            response_body, error_message, duration_ms, attempt_triggered_by, scheduled_at, started_at
        FROM updated WHERE counted
    ), audited AS (
        INSERT INTO audit_entries (id, entity_type, entity_id, action, actor, details)
        SELECT audit_id, 'event', event_id,
            CASE new_status WHEN 'succeeded' THEN 'event.processed' WHEN 'failed' THEN 'event.failed'
                ELSE 'event.retry_scheduled' END,
            'worker',
            CASE WHEN new_status = 'succeeded'
                THEN json_build_object('destination', destination, 'attemptNo', attempt_no)
                ELSE json_build_object('destination', destination, 'attemptNo', attempt_no, 'error', error_message,
                    'dueAt', new_due_at) END
        FROM updated WHERE counted
    )
    SELECT event_id, destination, replay_id AS replay_request_id FROM updated";
