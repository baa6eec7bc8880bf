//! The deliveries of an event.

use grapnel_core::delivery::state::DeliveryState;
use grapnel_core::ids::EventId;
use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::columns::Columns;
use crate::deliveries::is_filtered;
use crate::error::{Error, Result};

/// The delivery of an event to one destination, as of now.
#[derive(Debug, Clone)]
pub struct DeliveryRow {
    pub destination: String,
    pub state: DeliveryState,
    /// Whether the filter of the destination left the event out.
    pub is_filtered: bool,
    /// Recorded attempts.
    pub attempts: i32,
    /// Of the last attempt, or why it was given up.
    pub last_error: Option<String>,
    /// When the attempt under way began, or the last one.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub updated_at: Timestamp,
}

// An event has at most 16 deliveries, and one more for each destination that a replay added.
const DELIVERIES: &str = concat!(
    "/* views::deliveries_of_event */
    SELECT d.destination, d.status::text AS status, ",
    is_filtered!(),
    " AS is_filtered, d.attempts, d.last_error, d.started_at, d.finished_at,
        GREATEST(d.updated_at, d.started_at) AS updated_at
    FROM deliveries d WHERE d.event_id = $1 ORDER BY d.destination"
);

/// Reads the deliveries of an event, by destination.
pub(super) async fn deliveries_of_event(
    connection: &mut PgConnection,
    event_id: EventId,
) -> Result<Vec<DeliveryRow>> {
    let rows = sqlx::query(DELIVERIES).bind(event_id.uuid()).fetch_all(connection).await?;
    let corrupt = || Error::Corrupt { table: "deliveries", column: "status", id: event_id.uuid() };
    let delivery = |row: &PgRow| {
        Ok(DeliveryRow {
            destination: row.try_get("destination")?,
            state: DeliveryState::parse(row.try_get("status")?).ok_or_else(corrupt)?,
            is_filtered: row.try_get("is_filtered")?,
            attempts: row.try_get("attempts")?,
            last_error: row.try_get("last_error")?,
            started_at: row.optional_time("started_at")?,
            finished_at: row.optional_time("finished_at")?,
            updated_at: row.time("updated_at")?,
        })
    };
    rows.iter().map(delivery).collect()
}
