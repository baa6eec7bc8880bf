//! Delivery attempts.

use grapnel_core::delivery::state::Trigger;
use grapnel_core::ids::{AttemptId, EventId, IntegrationId};
use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::id_time::time_of_id;
use super::list_page::{ListStatements, list_page};
use super::page::{Page, PageRequest, Position};
use crate::columns::Columns;
use crate::database::Database;
use crate::error::{Error, Result};

/// One HTTP request of a delivery.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    pub id: AttemptId,
    pub event_id: EventId,
    pub integration_id: IntegrationId,
    pub destination: String,
    /// Counts from 1 within the delivery, replays included.
    pub attempt_no: i32,
    pub succeeded: bool,
    /// `None` when there was no answer.
    pub http_status: Option<i16>,
    /// The beginning of the receiver's answer.
    pub response_body: Option<String>,
    pub error_message: Option<String>,
    pub duration_ms: i32,
    pub triggered_by: Trigger,
    pub scheduled_at: Timestamp,
    pub started_at: Timestamp,
    /// The time in the id, which the list is sorted by.
    pub created_at: Timestamp,
}

/// The attempts that a list has. Absent filters restrict nothing.
#[derive(Debug, Clone, Default)]
pub struct AttemptFilter {
    pub event_id: Option<EventId>,
    pub succeeded: Option<bool>,
}

// With the event's id, one partition is read, by its primary key. Without it, the heads of all partitions are merged
// along the index on the id, or on the id of those that failed.
pub(super) const LIST: ListStatements = ListStatements {
    list: "/* views::list_attempts */
        SELECT a.id, a.event_id, a.integration_id, a.destination, a.attempt_no, a.succeeded, a.http_status,
            a.response_body, a.error_message, a.duration_ms, a.triggered_by, a.scheduled_at, a.started_at
        FROM delivery_attempts a
        WHERE ($1::uuid IS NULL OR a.event_id = $1)
            AND ($2::boolean IS NULL OR a.succeeded = $2)
            AND ($3::uuid IS NULL OR a.id < $3)
        ORDER BY a.id DESC LIMIT $4 OFFSET $5",
    count: "/* views::count_attempts */
        SELECT count(*) FROM (
            SELECT FROM delivery_attempts a
            WHERE ($1::uuid IS NULL OR a.event_id = $1)
                AND ($2::boolean IS NULL OR a.succeeded = $2)
            LIMIT 10001
        ) AS counted",
    sorted_by_time: false,
};

/// Reads one page of attempts, the latest first.
pub async fn list_attempts(
    db: &Database,
    filter: &AttemptFilter,
    request: PageRequest,
) -> Result<Page<AttemptRow>> {
    let event_id = filter.event_id.map(EventId::uuid);
    list_page(
        db,
        LIST,
        request,
        |statement| statement.bind(event_id).bind(filter.succeeded),
        attempt_row,
        |attempt| Position { key: 0, id: attempt.id.uuid() },
    )
    .await
}

const OF_EVENT: &str = "/* views::attempts_of_event */
    SELECT a.id, a.event_id, a.integration_id, a.destination, a.attempt_no, a.succeeded, a.http_status,
        a.response_body, a.error_message, a.duration_ms, a.triggered_by, a.scheduled_at, a.started_at
    FROM delivery_attempts a
    WHERE a.event_id = $1
    ORDER BY a.id DESC LIMIT $2";

/// Reads the latest attempts of an event, in the order in which they were made.
pub(super) async fn attempts_of_event(
    connection: &mut PgConnection,
    event_id: EventId,
    limit: i64,
) -> Result<Vec<AttemptRow>> {
    let rows = sqlx::query(OF_EVENT).bind(event_id.uuid()).bind(limit).fetch_all(connection).await?;
    rows.iter().rev().map(attempt_row).collect()
}

fn attempt_row(row: &PgRow) -> Result<AttemptRow> {
    let id = row.id("id", AttemptId::new)?;
    let corrupt = |column| move || Error::Corrupt { table: "delivery_attempts", column, id: id.uuid() };
    Ok(AttemptRow {
        id,
        event_id: row.id("event_id", EventId::new)?,
        integration_id: row.id("integration_id", IntegrationId::new)?,
        destination: row.try_get("destination")?,
        attempt_no: row.try_get("attempt_no")?,
        succeeded: row.try_get("succeeded")?,
        http_status: row.try_get("http_status")?,
        response_body: row.try_get("response_body")?,
        error_message: row.try_get("error_message")?,
        duration_ms: row.try_get("duration_ms")?,
        triggered_by: Trigger::parse(row.try_get("triggered_by")?).ok_or_else(corrupt("triggered_by"))?,
        scheduled_at: row.time("scheduled_at")?,
        started_at: row.time("started_at")?,
        created_at: time_of_id(id.uuid()).ok_or_else(corrupt("id"))?,
    })
}
