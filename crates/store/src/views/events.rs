//! The list of events.

use grapnel_core::ids::{EventId, IntegrationId};
use grapnel_core::payload::BodyForm;
use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::event_pages::{self, EventWalk, SortKey};
use super::event_sql as sql;
use super::page::{Order, Page, PageRequest, Position, Total};
use super::snapshot::Snapshot;
use crate::columns::Columns;
use crate::database::Database;
use crate::error::{Error, Result};

/// Payloads longer than this are left out of lists, which bounds a page to 6.4 MB of them.
const LISTED_PAYLOAD_BYTES: i32 = 65_536;

/// One accepted webhook. Its content is immutable; the status and all that follows from deliveries is as of now.
#[derive(Debug)]
pub struct EventRow {
    pub id: EventId,
    pub integration_id: IntegrationId,
    pub provider: String,
    /// The provider's own id of the event, where it has one.
    pub external_event_id: Option<String>,
    pub event_type: String,
    pub subject: Option<String>,
    pub occurred_at: Timestamp,
    pub received_at: Timestamp,
    /// When a delivery last changed, or the time of receipt.
    pub updated_at: Timestamp,
    pub status: EventStatus,
    /// Attempts of all deliveries so far.
    pub attempts: i64,
    /// The latest error of a delivery that did not succeed.
    pub last_error: Option<String>,
    /// When the last attempt ended.
    pub last_processed_at: Option<Timestamp>,
    pub correlation_id: String,
    /// The index of the verification secret that verified it: 0 is the current one, 1 and 2 are the previous ones.
    pub secret_index: i16,
    /// `None` in lists when it is longer than 64 KiB.
    pub payload: Option<PayloadRow>,
}

/// The provider's payload within the body.
#[derive(Debug)]
pub struct PayloadRow {
    /// The member of the normalized payload that carries it.
    pub key: String,
    pub form: BodyForm,
    pub bytes: Vec<u8>,
}

/// The status of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventStatus {
    /// No unfinished delivery is further than waiting for its first attempt.
    Pending,
    /// An attempt is under way. After the death of its worker the status stays until the delivery is claimed again,
    /// because the outcome of the attempt is unknown until then.
    Processing,
    /// A delivery waits for another attempt.
    Retrying,
    /// All deliveries succeeded.
    Processed,
    /// No delivery is unfinished, and one failed.
    Failed,
}

impl EventStatus {
    /// In the order of sorting. The unfinished ones come first, the most advanced last: an event with several
    /// unfinished deliveries has the status of the most advanced.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Processing, Self::Retrying, Self::Processed, Self::Failed];

    /// The form that the API and the statements use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Retrying => "retrying",
            Self::Processed => "processed",
            Self::Failed => "failed",
        }
    }

    fn rank(self) -> i64 {
        match self {
            Self::Pending => 0,
            Self::Processing => 1,
            Self::Retrying => 2,
            Self::Processed => 3,
            Self::Failed => 4,
        }
    }

    /// Reads the derived column `status`.
    pub(super) fn of_row(row: &PgRow, id: EventId) -> Result<Self> {
        let text: &str = row.try_get("status")?;
        let corrupt = || Error::Corrupt { table: "deliveries", column: "status", id: id.uuid() };
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(corrupt)
    }
}

/// The events that a list has. Absent filters restrict nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub provider: Option<String>,
    pub event_type: Option<String>,
    /// Matches anywhere in the subject, in either case, literally.
    pub subject: Option<String>,
    /// The earliest time of occurrence.
    pub from: Option<Timestamp>,
    /// The end of the times of occurrence, exclusive.
    pub until: Option<Timestamp>,
}

/// The sort key of a list of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventSort {
    /// The time of receipt, which is the id.
    CreatedAt,
    OccurredAt,
    /// In the order of [`EventStatus::ALL`]; the id within a status.
    Status,
}

/// A list of events and its order.
#[derive(Debug, Clone)]
pub struct EventList {
    pub filter: EventFilter,
    pub status: Option<EventStatus>,
    pub sort: EventSort,
    pub order: Order,
}

/// Reads one page of events.
pub async fn list_events(db: &Database, list: &EventList, request: PageRequest) -> Result<Page<EventRow>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let connection = snapshot.connection();
        let (counted, ids) = match (list.sort, list.status) {
            (EventSort::Status, None) => {
                let matching =
                    event_pages::collect_matching(connection, &list.filter, None, SortKey::Id).await?;
                (matching.counted, ids_by_status(connection, list, request).await?)
            }
            // Within one status the order by status is the order by id.
            (EventSort::Status | EventSort::CreatedAt, _) => {
                ids_by(connection, list, SortKey::Id, request).await?
            }
            (EventSort::OccurredAt, _) => ids_by(connection, list, SortKey::OccurredAt, request).await?,
        };
        let events = load(connection, &ids).await?;
        snapshot.release().await?;
        Ok(request.page(events, Total::of(counted), |event| position(list.sort, event)))
    })
    .await
}

fn position(sort: EventSort, event: &EventRow) -> Position {
    let key = match sort {
        EventSort::CreatedAt => 0,
        EventSort::OccurredAt => event.occurred_at.as_microsecond(),
        EventSort::Status => event.status.rank(),
    };
    Position { key, id: event.id.uuid() }
}

/// Returns the number of events that were counted, and the ids of the page.
async fn ids_by(
    connection: &mut PgConnection,
    list: &EventList,
    key: SortKey,
    request: PageRequest,
) -> Result<(i64, Vec<Uuid>)> {
    let matching = event_pages::collect_matching(connection, &list.filter, list.status, key).await?;
    if let Some(positions) = matching.positions {
        // A cursor of the order by status has the status' rank as its key.
        let after = request.after().map(|position| match key {
            SortKey::Id => Position { key: 0, ..position },
            SortKey::OccurredAt => position,
        });
        return Ok((matching.counted, request.cut(positions, after, list.order)));
    }
    let walk = EventWalk {
        filter: &list.filter,
        status: list.status,
        key,
        order: list.order,
        after_id: request.after_id(),
        after_time: request.after_time(),
        limit: request.limit(),
        offset: request.offset(),
    };
    Ok((matching.counted, event_pages::find(connection, walk).await?))
}

/// Returns the ids of a page of the list by status: the lists of the five statuses, one after the other.
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
        let walk = EventWalk {
            filter: &list.filter,
            status: Some(status),
            key: SortKey::Id,
            order: list.order,
            after_id: resumes_here.map(|position| position.id),
            after_time: None,
            limit: i64::try_from(wanted - ids.len()).unwrap_or(i64::MAX),
            offset: 0,
        };
        ids.extend(event_pages::find(connection, walk).await?);
    }
    let skipped = usize::try_from(request.offset()).unwrap_or(usize::MAX).min(ids.len());
    Ok(ids.split_off(skipped))
}

/// Reads the events with these ids, in the order of the ids.
async fn load(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<EventRow>> {
    let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(Vec::new()) };
    let rows = sqlx::query(sql::LOAD_EVENTS)
        .bind(ids)
        .bind(first)
        .bind(last)
        .bind(LISTED_PAYLOAD_BYTES)
        .fetch_all(connection)
        .await?;
    let mut events = rows.iter().map(event_row).collect::<Result<Vec<_>>>()?;
    events.sort_by_cached_key(|event| ids.iter().position(|id| *id == event.id.uuid()));
    Ok(events)
}

/// Reads the columns that the statements for events have in common.
pub(super) fn event_row(row: &PgRow) -> Result<EventRow> {
    let id = row.id("id", EventId::new)?;
    let received_at = row.time("received_at")?;
    Ok(EventRow {
        id,
        integration_id: row.id("integration_id", IntegrationId::new)?,
        provider: row.try_get("provider")?,
        external_event_id: row.try_get("external_event_id")?,
        event_type: row.try_get("event_type")?,
        subject: row.try_get("subject")?,
        occurred_at: row.time("occurred_at")?,
        received_at,
        updated_at: row.optional_time("updated_at")?.unwrap_or(received_at),
        status: EventStatus::of_row(row, id)?,
        attempts: row.try_get("attempts")?,
        last_error: row.try_get("last_error")?,
        last_processed_at: row.optional_time("last_processed_at")?,
        correlation_id: row.try_get("correlation_id")?,
        secret_index: row.try_get("secret_index")?,
        payload: payload_row(row, id)?,
    })
}

fn payload_row(row: &PgRow, id: EventId) -> Result<Option<PayloadRow>> {
    let Some(bytes) = row.try_get("payload")? else { return Ok(None) };
    let corrupt = || Error::Corrupt { table: "events", column: "body_form", id: id.uuid() };
    Ok(Some(PayloadRow {
        key: row.try_get("payload_key")?,
        form: BodyForm::from_code(row.try_get("body_form")?).ok_or_else(corrupt)?,
        bytes,
    }))
}
