//! The list of events.

use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use utoipa::ToSchema;
use uuid::Uuid;

use super::event_pages::{self, Key, Stretch};
use super::event_sql as sql;
use super::page::{Order, Page, PageRequest, Position, Total};
use super::snapshot::Snapshot;
use super::{EventFilter, EventStatus, Instant, known};
use crate::database::Database;
use crate::error::{Error, Result};
use grapnel_core::payload::{BodyForm, normalized_payload};

/// Payloads longer than this are left out of lists, which bounds a page to 6.4 MB of them.
const LISTED_PAYLOAD_BYTES: i32 = 65_536;

/// One accepted webhook. What it says is immutable; the status and what follows from deliveries is as of now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub id: Uuid,
    pub integration_id: Uuid,
    pub provider: String,
    /// The provider's own id of the event, where it has one.
    #[schema(required)]
    pub external_event_id: Option<String>,
    pub event_type: String,
    #[schema(required)]
    pub subject: Option<String>,
    pub occurred_at: Instant,
    pub received_at: Instant,
    pub created_at: Instant,
    pub updated_at: Instant,
    pub status: EventStatus,
    /// Attempts of all deliveries so far.
    #[schema(minimum = 0)]
    pub processing_attempts: i64,
    /// The latest error of a delivery that did not succeed.
    #[schema(required)]
    pub last_error: Option<String>,
    /// When the last attempt ended.
    #[schema(required)]
    pub last_processed_at: Option<Instant>,
    pub correlation_id: String,
    /// Which verification secret proved it: 0 is the current one, 1 and 2 are the previous ones.
    #[schema(minimum = 0, maximum = 2)]
    pub secret_index: i16,
    /// The event in its normalized form. Null in lists when the provider's payload is longer than 64 KiB: `GET /events/{id}` has it.
    #[schema(required, value_type = Option<Object>)]
    pub normalized_payload: Option<Box<RawValue>>,
}

/// What events are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventSort {
    /// The time of receipt, which is the id.
    CreatedAt,
    OccurredAt,
    /// In the order of [`EventStatus::ALL`]; the id within a status.
    Status,
}

/// Which events, in which order.
#[derive(Debug, Clone)]
pub struct EventList {
    pub filter: EventFilter,
    pub status: Option<EventStatus>,
    pub sort: EventSort,
    pub order: Order,
}

/// One page of events.
pub async fn list_events(db: &Database, list: &EventList, request: PageRequest) -> Result<Page<Event>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let connection = snapshot.connection();
        let (counted, ids) = match (list.sort, list.status) {
            (EventSort::Status, None) => {
                let stock = event_pages::take_stock(connection, &list.filter, None, Key::Id).await?;
                (stock.counted, ids_by_status(connection, list, request).await?)
            }
            // Within one status the order by status is the order by id.
            (EventSort::Status | EventSort::CreatedAt, _) => {
                ids_by(connection, list, Key::Id, request).await?
            }
            (EventSort::OccurredAt, _) => ids_by(connection, list, Key::OccurredAt, request).await?,
        };
        let events = load(connection, &ids).await?;
        snapshot.release().await?;
        Ok(request.page(events, Total::of(counted), |event| position(list.sort, event)))
    })
    .await
}

fn position(sort: EventSort, event: &Event) -> Position {
    let key = match sort {
        EventSort::CreatedAt => 0,
        EventSort::OccurredAt => event.occurred_at.0.as_microsecond(),
        EventSort::Status => event.status.rank(),
    };
    Position { key, id: event.id }
}

/// The ids of the page, and how many events were counted.
async fn ids_by(
    connection: &mut PgConnection,
    list: &EventList,
    key: Key,
    request: PageRequest,
) -> Result<(i64, Vec<Uuid>)> {
    let stock = event_pages::take_stock(connection, &list.filter, list.status, key).await?;
    if let Some(positions) = stock.positions {
        // A cursor of the order by status has the status' rank as its key.
        let after = request.after().map(|position| match key {
            Key::Id => Position { key: 0, ..position },
            Key::OccurredAt => position,
        });
        return Ok((stock.counted, request.cut(positions, after, list.order)));
    }
    let stretch = Stretch {
        filter: &list.filter,
        status: list.status,
        key,
        order: list.order,
        after_id: request.after_id(),
        after_time: request.after_time(),
        limit: request.limit(),
        offset: request.offset(),
    };
    Ok((stock.counted, event_pages::find(connection, stretch).await?))
}

/// The list by status is the lists of the five statuses, one after the other.
async fn ids_by_status(
    connection: &mut PgConnection,
    list: &EventList,
    request: PageRequest,
) -> Result<Vec<Uuid>> {
    let mut statuses = EventStatus::ALL;
    if list.order == Order::Descending {
        statuses.reverse();
    }
    let after = request.after();
    let wanted = usize::try_from(request.offset() + request.limit()).unwrap_or(usize::MAX);
    let mut ids = Vec::new();
    let mut passed = after.is_none();
    for status in statuses {
        let resumes_here = after.filter(|position| position.key == status.rank());
        passed |= resumes_here.is_some();
        if !passed || ids.len() >= wanted {
            continue;
        }
        let stretch = Stretch {
            filter: &list.filter,
            status: Some(status),
            key: Key::Id,
            order: list.order,
            after_id: resumes_here.map(|position| position.id),
            after_time: None,
            limit: i64::try_from(wanted - ids.len()).unwrap_or(i64::MAX),
            offset: 0,
        };
        ids.extend(event_pages::find(connection, stretch).await?);
    }
    let skipped = usize::try_from(request.offset()).unwrap_or(usize::MAX).min(ids.len());
    Ok(ids.split_off(skipped))
}

/// The events with these ids, in the order of the ids.
async fn load(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Event>> {
    let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(Vec::new()) };
    let rows = sqlx::query(sql::LOAD_EVENTS)
        .bind(ids)
        .bind(first)
        .bind(last)
        .bind(LISTED_PAYLOAD_BYTES)
        .fetch_all(connection)
        .await?;
    let mut events = rows.iter().map(event_of).collect::<Result<Vec<_>>>()?;
    events.sort_by_cached_key(|event| ids.iter().position(|id| *id == event.id));
    Ok(events)
}

/// Reads the columns that the statements for events have in common.
pub(super) fn event_of(row: &PgRow) -> Result<Event> {
    let id: Uuid = row.try_get("id")?;
    let provider: String = row.try_get("provider")?;
    let external_event_id: Option<String> = row.try_get("external_event_id")?;
    let event_type: String = row.try_get("event_type")?;
    let payload: Option<&[u8]> = row.try_get("payload")?;
    let received_at: Instant = row.try_get::<jiff_sqlx::Timestamp, _>("received_at")?.into();
    let updated_at: Option<jiff_sqlx::Timestamp> = row.try_get("updated_at")?;
    let last_processed_at: Option<jiff_sqlx::Timestamp> = row.try_get("last_processed_at")?;
    let normalized_payload = match payload {
        Some(payload) => {
            let key: &str = row.try_get("payload_key")?;
            let form = known(BodyForm::from_code(row.try_get("body_form")?), "events", "body_form", id)?;
            let external_event_id = external_event_id.as_deref();
            let json = normalized_payload(&provider, &event_type, external_event_id, key, form, payload);
            Some(serde_json::from_slice(&json).map_err(|source| Error::Corrupt {
                table: "events",
                column: "raw_body",
                id,
                source: Some(source),
            })?)
        }
        None => None,
    };
    Ok(Event {
        id,
        integration_id: row.try_get("integration_id")?,
        provider,
        external_event_id,
        event_type,
        subject: row.try_get("subject")?,
        occurred_at: row.try_get::<jiff_sqlx::Timestamp, _>("occurred_at")?.into(),
        received_at,
        created_at: received_at,
        updated_at: updated_at.map_or(received_at, Instant::from),
        status: EventStatus::of_row(row, id)?,
        processing_attempts: row.try_get("attempts")?,
        last_error: row.try_get("last_error")?,
        last_processed_at: last_processed_at.map(Instant::from),
        correlation_id: row.try_get("correlation_id")?,
        secret_index: row.try_get("secret_index")?,
        normalized_payload,
    })
}

impl EventStatus {
    /// Reads the derived column `status`.
    pub(super) fn of_row(row: &PgRow, id: Uuid) -> Result<Self> {
        let text: &str = row.try_get("status")?;
        known(Self::ALL.into_iter().find(|status| status.as_str() == text), "deliveries", "status", id)
    }
}
