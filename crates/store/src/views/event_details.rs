//! One event with all its parts.

use grapnel_core::ids::{EventId, RequestId};
use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::attempts::{AttemptRow, attempts_of_event};
use super::event_deliveries::{DeliveryRow, deliveries_of_event};
use super::event_sql as sql;
use super::events::{EventRow, EventStatus, event_row};
use super::snapshot::Snapshot;
use super::unfinished::{UnfinishedDeliveryRow, unfinished_of_event};
use crate::columns::Columns;
use crate::database::Database;
use crate::error::Result;
use crate::packed_headers;

/// The number of latest attempts that come with an event. The list of attempts has all of an event that was replayed so
/// often that it has more.
const SHOWN_ATTEMPTS: i64 = 500;

/// The number of events of the same request that are named with an event.
const SHOWN_SIBLINGS: i64 = 100;

/// An event, its webhook, and its deliveries.
#[derive(Debug)]
pub struct EventDetails {
    pub event: EventRow,
    pub webhook: WebhookRow,
    pub deliveries: Vec<DeliveryRow>,
    /// The request, if it has several events.
    pub request: Option<SharedRequestRow>,
    pub work: DeliveryWork,
}

/// A request with several events, and the place of one event among them.
#[derive(Debug)]
pub struct SharedRequestRow {
    pub id: RequestId,
    /// From 0, in the order of the document.
    pub position: i32,
    /// The events of the request, those included that were stored before it.
    pub count: i32,
    /// The first 100 events that were stored with it, in the order of the document.
    pub events: Vec<EventId>,
}

/// The request as it was received.
#[derive(Debug)]
pub struct WebhookRow {
    pub idempotency_key: String,
    /// JSON text: `[[name, value], …]`, secrets redacted.
    pub headers: String,
    pub body: Vec<u8>,
    pub source_ip: Option<String>,
    /// The fields that the event has not, as JSON text: `[{"field": …, "reason": …}, …]`.
    pub left_out: Option<String>,
}

/// The state of an event's processing.
#[derive(Debug)]
pub struct ProcessingDetails {
    pub event_id: EventId,
    pub status: EventStatus,
    /// Attempts of all deliveries so far.
    pub attempts: i64,
    /// The latest error of a delivery that did not succeed.
    pub last_error: Option<String>,
    /// When the last attempt ended.
    pub last_processed_at: Option<Timestamp>,
    pub work: DeliveryWork,
}

/// The attempts of an event, made and to come.
#[derive(Debug)]
pub struct DeliveryWork {
    /// The latest 500, in the order in which they were made.
    pub attempts: Vec<AttemptRow>,
    pub unfinished: Vec<UnfinishedDeliveryRow>,
}

/// Reads the event with its webhook and its deliveries.
pub async fn load_event(db: &Database, id: EventId) -> Result<Option<EventDetails>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let connection = snapshot.connection();
        let row = sqlx::query(sql::LOAD_EVENT).bind(id.uuid()).fetch_optional(&mut *connection).await?;
        let Some(row) = row else { return Ok(None) };
        let request = shared_request(connection, &row).await?;
        let deliveries = deliveries_of_event(connection, id).await?;
        let work = delivery_work(connection, id).await?;
        snapshot.release().await?;
        let (event, webhook) = (event_row(&row)?, webhook_row(&row, id)?);
        Ok(Some(EventDetails { event, webhook, deliveries, request, work }))
    })
    .await
}

/// Reads the state of the event's processing.
pub async fn load_processing(db: &Database, id: EventId) -> Result<Option<ProcessingDetails>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let connection = snapshot.connection();
        let row = sqlx::query(sql::LOAD_PROCESSING).bind(id.uuid()).fetch_optional(&mut *connection).await?;
        let Some(row) = row else { return Ok(None) };
        let work = delivery_work(connection, id).await?;
        snapshot.release().await?;
        Ok(Some(ProcessingDetails {
            event_id: id,
            status: EventStatus::of_row(&row, id)?,
            attempts: row.try_get("attempts")?,
            last_error: row.try_get("last_error")?,
            last_processed_at: row.optional_time("last_processed_at")?,
            work,
        }))
    })
    .await
}

async fn delivery_work(connection: &mut PgConnection, id: EventId) -> Result<DeliveryWork> {
    let attempts = attempts_of_event(connection, id, SHOWN_ATTEMPTS).await?;
    let unfinished = unfinished_of_event(connection, id).await?;
    Ok(DeliveryWork { attempts, unfinished })
}

async fn shared_request(connection: &mut PgConnection, row: &PgRow) -> Result<Option<SharedRequestRow>> {
    let Some(id) = row.optional_id("request_id", RequestId::new)? else { return Ok(None) };
    let events =
        sqlx::query(sql::EVENTS_OF_REQUEST).bind(id.uuid()).bind(SHOWN_SIBLINGS).fetch_all(connection);
    let events = events.await?;
    Ok(Some(SharedRequestRow {
        id,
        position: row.try_get("request_position")?,
        count: row.try_get("request_count")?,
        events: events.iter().map(|row| Ok(row.id("id", EventId::new)?)).collect::<Result<_>>()?,
    }))
}

fn webhook_row(row: &PgRow, id: EventId) -> Result<WebhookRow> {
    Ok(WebhookRow {
        idempotency_key: row.try_get("idempotency_key")?,
        headers: packed_headers::json_text(row, id.uuid())?.unwrap_or_default(),
        body: row.try_get("raw_body")?,
        source_ip: row.try_get("source_ip")?,
        left_out: row.try_get("left_out")?,
    })
}
