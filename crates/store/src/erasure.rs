//! The erasure of an event's content, on request. The event stays, as a tombstone: its key goes on telling duplicates, and what became of its deliveries
//! stays known.
//!
//! What goes is the body, the headers, the subject, the source address and what receivers answered. Unfinished deliveries end as failed and lose their
//! leases, so the result of one that is under way is refused, and nothing of its answer is stored. The row of the event is locked first, as by a
//! replay, so that a replay comes before, and is ended, or after, and is refused.
//!
//! Of a request that several events share, the event's own bytes are blanked, and all of it goes with the last of its events.

use grapnel_core::ids::{AuditEntryId, EventId};
use jiff::Timestamp;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::audit::{Requester, insert_audit_entries};
use crate::columns::Columns;
use crate::database::Database;
use crate::deliveries::end::{EVENT_ERASED, end_deliveries, run_end};
use crate::error::Result;

// As for replays.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL statement_timeout = '10s';
    SET LOCAL lock_timeout = '5s'";

/// Group commits lock rows of many deliveries; a transaction that met one the wrong way round is run again.
const TRIES: usize = 3;

/// Erases the content of an event and returns when that was; `None` when there is no such event. Of one that is erased already, nothing changes.
pub async fn erase(db: &Database, id: EventId, requester: &Requester) -> Result<Option<Timestamp>> {
    db.bounded(async {
        let mut tries = 1;
        loop {
            match try_erase(db, id, requester).await {
                Err(failure) if failure.is_collision() && tries < TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    })
    .await
}

async fn try_erase(db: &Database, id: EventId, requester: &Requester) -> Result<Option<Timestamp>> {
    let mut tx = db.begin(BEGIN).await?;
    let event = sqlx::query(
        "/* erasure::lock_event */
        SELECT request_id, payload IS NOT NULL AS has_own_payload, payload_start, payload_length, erased_at
        FROM events WHERE id = $1 FOR UPDATE",
    )
    .bind(id.uuid())
    .fetch_optional(&mut *tx)
    .await?;
    let Some(event) = event else { return Ok(None) };
    if let Some(erased_at) = event.optional_time("erased_at")? {
        return Ok(Some(erased_at));
    }
    end_unfinished(&mut tx, id).await?;
    let erased_at = blank_event(&mut tx, id, requester).await?;
    if let Some(request) = event.try_get::<Option<Uuid>, _>("request_id")? {
        let is_whole: bool = event.try_get("has_own_payload")?;
        let (start, length) = (event.try_get("payload_start")?, event.try_get("payload_length")?);
        blank_request(&mut tx, request, is_whole, start, length).await?;
    }
    forget_answers(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Some(erased_at))
}

/// Fails what is unfinished. The rows are locked by a statement before: one that waits for a lock decides by what it saw before the wait.
async fn end_unfinished(tx: &mut PgConnection, id: EventId) -> Result<()> {
    sqlx::query(
        "/* erasure::lock_deliveries */
        SELECT FROM deliveries WHERE event_id = $1 ORDER BY destination FOR UPDATE",
    )
    .bind(id.uuid())
    .execute(&mut *tx)
    .await?;
    let statement = sqlx::query(end_deliveries!(
        "erasure::end_unfinished",
        "SELECT event_id, destination FROM deliveries WHERE event_id = $2 ORDER BY destination FOR UPDATE"
    ))
    .bind(EVENT_ERASED)
    .bind(id.uuid());
    run_end(tx, statement).await?;
    Ok(())
}

async fn blank_event(tx: &mut PgConnection, id: EventId, requester: &Requester) -> Result<Timestamp> {
    let row = sqlx::query(concat!(
        "/* erasure::blank_event */
        WITH erased AS (
            UPDATE events
            SET subject = NULL, headers = '[]', packed_headers = NULL, raw_body = '', payload = NULL, payload_start = 0, payload_length = 0,
                source_ip = NULL, erased_at = now(), erased_by = $2
            WHERE id = $1
            RETURNING erased_at
        ), audited AS (
            ",
        insert_audit_entries!("VALUES ($3, 'event', $1, 'event.erased', $2, $4::json)"),
        "
        )
        SELECT erased_at FROM erased"
    ))
    .bind(id.uuid())
    .bind(&requester.actor)
    .bind(AuditEntryId::generate().uuid())
    .bind(requester.details())
    .fetch_one(tx)
    .await?;
    Ok(row.time("erased_at")?)
}

/// Blanks the part of a shared request, or all of it when no other event is left. A payload that is no slice of the body (`is_whole`) may be
/// anywhere in it, and then the others have payloads of their own too.
async fn blank_request(
    tx: &mut PgConnection,
    request: Uuid,
    is_whole: bool,
    start: i32,
    length: i32,
) -> Result<()> {
    // Of two events that are erased at once, the later one sees the other's end.
    sqlx::query("/* erasure::lock_request */ SELECT FROM event_requests WHERE id = $1 FOR UPDATE")
        .bind(request)
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "/* erasure::blank_request */
        UPDATE event_requests r
        SET headers = CASE WHEN left_over.is_none THEN '[]' ELSE r.headers END,
            raw_body = CASE WHEN left_over.is_none OR $2 THEN ''
                ELSE overlay(r.raw_body PLACING convert_to(repeat(' ', $4), 'UTF8') FROM $3 + 1 FOR $4) END
        FROM (
            SELECT NOT EXISTS (
                SELECT FROM events e
                WHERE e.id > $1 AND e.id < uuidv7_floor(uuidv7_time($1) + interval '1 millisecond')
                    AND e.request_id = $1 AND e.erased_at IS NULL
            ) AS is_none
        ) AS left_over
        WHERE r.id = $1",
    )
    .bind(request)
    .bind(is_whole)
    .bind(start)
    .bind(length)
    .execute(tx)
    .await?;
    Ok(())
}

async fn forget_answers(tx: &mut PgConnection, id: EventId) -> Result<()> {
    sqlx::query(
        "/* erasure::forget_answers */
        UPDATE delivery_attempts SET response_body = NULL WHERE event_id = $1 AND response_body IS NOT NULL",
    )
    .bind(id.uuid())
    .execute(tx)
    .await?;
    Ok(())
}
