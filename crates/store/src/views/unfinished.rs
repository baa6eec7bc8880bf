//! The unfinished deliveries of an event.

use grapnel_core::delivery::state::Trigger;
use grapnel_core::ids::{EventId, IntegrationId};
use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::columns::Columns;
use crate::deliveries::never;
use crate::error::{Error, Result};

/// A delivery whose next attempt is scheduled or under way.
#[derive(Debug, Clone)]
pub struct UnfinishedDeliveryRow {
    pub destination: String,
    pub integration_id: IntegrationId,
    /// Whether the attempt is under way.
    pub is_running: bool,
    /// The number that the attempt will have.
    pub attempt_no: i32,
    pub triggered_by: Trigger,
    pub scheduled_at: Timestamp,
    /// When the attempt under way began, or the last one.
    pub started_at: Option<Timestamp>,
}

// An event has at most 16 deliveries. One that waits in the broker was scheduled when it was queued, and one that is held since then.
const UNFINISHED: &str = concat!(
    "/* views::unfinished_of_event */
    SELECT destination, integration_id, status = 'processing' AS is_running, attempts + 1 AS attempt_no, triggered_by,
        COALESCE(NULLIF(due_at, ",
    never!(),
    "), queued_at, updated_at) AS scheduled_at, started_at
    FROM deliveries WHERE event_id = $1 AND finished_at IS NULL ORDER BY destination"
);

/// Reads the unfinished deliveries of an event, by destination.
pub(super) async fn unfinished_of_event(
    connection: &mut PgConnection,
    event_id: EventId,
) -> Result<Vec<UnfinishedDeliveryRow>> {
    let rows = sqlx::query(UNFINISHED).bind(event_id.uuid()).fetch_all(connection).await?;
    let corrupt = || Error::Corrupt { table: "deliveries", column: "triggered_by", id: event_id.uuid() };
    let unfinished = |row: &PgRow| {
        Ok(UnfinishedDeliveryRow {
            destination: row.try_get("destination")?,
            integration_id: row.id("integration_id", IntegrationId::new)?,
            is_running: row.try_get("is_running")?,
            attempt_no: row.try_get("attempt_no")?,
            triggered_by: Trigger::parse(row.try_get("triggered_by")?).ok_or_else(corrupt)?,
            scheduled_at: row.time("scheduled_at")?,
            started_at: row.optional_time("started_at")?,
        })
    };
    rows.iter().map(unfinished).collect()
}
