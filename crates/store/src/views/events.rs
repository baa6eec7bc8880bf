//! The list of events.

use grapnel_core::ids::{EventId, IntegrationId};
use grapnel_core::payload::BodyForm;
use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::event_pages::{self, EventWalk, SortKey};
use super::event_search;
use super::event_sql as sql;
use super::integration_scope::IntegrationSelection;
use super::page::{Order, Page, PageRequest, Position, Total};
use super::snapshot::Snapshot;
use crate::columns::Columns;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::stored_form::{body_form, first_of_millisecond};

/// Payloads longer than this are left out of lists, which bounds a page to 6.4 MB of them.
const LISTED_PAYLOAD_BYTES: i32 = 65_536;

/// One accepted webhook. Its content is immutable; the status and all that follows from deliveries is as of now.
#[derive(Debug, Clone)]
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
    /// `None` in lists when it is longer than 64 KiB, and when the event was erased.
    pub payload: Option<PayloadRow>,
    pub erased: Option<ErasureRow>,
}

/// The erasure of an event's content.
#[derive(Debug, Clone)]
pub struct ErasureRow {
    pub at: Timestamp,
    /// The one who did it.
    pub by: String,
}

/// The provider's payload within the body.
#[derive(Debug, Clone)]
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
    /// All deliveries succeeded, or their filters left the event out.
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

/// The events that a list selects by their deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventSelection {
    /// Those in this status.
    Status(EventStatus),
    /// Those that the filter of a destination left out, whatever their status is.
    Filtered,
}

impl EventSelection {
    /// In the order of the statuses.
    pub const ALL: [Self; 6] = [
        Self::Status(EventStatus::Pending),
        Self::Status(EventStatus::Processing),
        Self::Status(EventStatus::Retrying),
        Self::Status(EventStatus::Processed),
        Self::Status(EventStatus::Failed),
        Self::Filtered,
    ];

    /// The form that the API and the statements use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status(status) => status.as_str(),
            Self::Filtered => "filtered",
        }
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
    pub integrations: IntegrationSelection,
    /// Those with a delivery to this destination. The status that a list selects and `http_status` are then those of this delivery.
    pub destination: Option<String>,
    pub external_event_id: Option<String>,
    pub correlation_id: Option<String>,
    /// The earliest time of receipt.
    pub received_from: Option<Timestamp>,
    /// The end of the times of receipt, exclusive.
    pub received_until: Option<Timestamp>,
    /// Of the last attempt.
    pub http_status: Option<i16>,
    /// In the event's own part of the body, byte for byte.
    pub text: Option<String>,
    /// Only events of these integrations: those that the caller may see.
    pub visible: Option<Vec<IntegrationId>>,
}

impl EventFilter {
    /// Whether it has a filter that only a search knows.
    fn needs_search(&self) -> bool {
        !self.integrations.is_any()
            || self.destination.is_some()
            || self.external_event_id.is_some()
            || self.correlation_id.is_some()
            || self.received_from.is_some()
            || self.received_until.is_some()
            || self.http_status.is_some()
            || self.text.is_some()
    }

    /// Whether few events may pass it, and none of them is near the front of the list. A window of occurrence is: the lists by number begin
    /// there.
    fn may_be_rare(&self) -> bool {
        let has_window = self.from.is_some() || self.until.is_some();
        let has_text = self.provider.is_some() || self.event_type.is_some() || self.subject.is_some();
        has_text && !has_window
    }
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
    pub selection: Option<EventSelection>,
    pub sort: EventSort,
    pub order: Order,
}

/// Reads one page of events.
///
/// A list with a filter that few events may pass is a search, which ends in time. Only what is asked for by number or in another order than that
/// of the ids, and has no filter of a search, is read from the front.
pub async fn list_events(db: &Database, list: &EventList, request: PageRequest) -> Result<Page<EventRow>> {
    let is_by_id = match list.sort {
        EventSort::CreatedAt => true,
        // Within one status the order by status is the order by id.
        EventSort::Status => list.selection.is_some(),
        EventSort::OccurredAt => false,
    };
    let is_first_or_next = request.offset() == 0;
    // What is unfinished is bounded by the backlog and not by the history, and its queues are found once and not in each slice.
    let is_unfinished = list.selection.is_some_and(|selection| {
        use EventStatus::{Pending, Processing, Retrying};
        matches!(selection, EventSelection::Status(Pending | Processing | Retrying))
    });
    let is_walked = is_by_id && is_first_or_next && !is_unfinished && list.filter.may_be_rare();
    if list.filter.needs_search() || is_walked {
        return search_events(db, list, request).await;
    }
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let connection = snapshot.connection();
        let (counted, ids) = match (list.sort, list.selection) {
            (EventSort::Status, None) => {
                let matching =
                    event_pages::collect_matching(connection, &list.filter, None, SortKey::Id).await?;
                (matching.counted, ids_by_status(connection, list, request).await?)
            }
            // Within one status the order by status is the order by id; filtered events are sorted by their id alone.
            (EventSort::Status | EventSort::CreatedAt, _) => {
                ids_by(connection, list, SortKey::Id, request).await?
            }
            (EventSort::OccurredAt, _) => ids_by(connection, list, SortKey::OccurredAt, request).await?,
        };
        let events = load(connection, &ids, LISTED_PAYLOAD_BYTES).await?;
        snapshot.release().await?;
        Ok(request.page(events, Some(Total::of(counted)), |event| position(list.sort, event)))
    })
    .await
}

/// A search is in the order of the ids: the caller sees to it that no other was asked for.
async fn search_events(db: &Database, list: &EventList, request: PageRequest) -> Result<Page<EventRow>> {
    let scope = list.filter.integrations.resolve(db).await?.within(list.filter.visible.as_deref());
    let found = event_search::search(db, &list.filter, list.selection, list.order, &scope, request).await?;
    let events = db
        .bounded(async {
            let mut snapshot = Snapshot::take(db).await?;
            let events = load(snapshot.connection(), &found.ids, LISTED_PAYLOAD_BYTES).await?;
            snapshot.release().await?;
            Ok(events)
        })
        .await?;
    Ok(found.page(request, events, |event| event.id.uuid()))
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
    let matching = event_pages::collect_matching(connection, &list.filter, list.selection, key).await?;
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
        selection: list.selection,
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
            selection: Some(EventSelection::Status(status)),
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

/// Reads the events with these ids, in the order of the ids, with payloads that are not longer than so many bytes.
pub(super) async fn load(
    connection: &mut PgConnection,
    ids: &[Uuid],
    longest_payload: i32,
) -> Result<Vec<EventRow>> {
    let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(Vec::new()) };
    let rows = sqlx::query(sql::LOAD_EVENTS)
        .bind(ids)
        .bind(first)
        .bind(last)
        .bind(longest_payload)
        .bind(first_of_millisecond(*first))
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
    let erased = match row.optional_time("erased_at")? {
        Some(at) => Some(ErasureRow { at, by: row.try_get("erased_by")? }),
        None => None,
    };
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
        payload: if erased.is_some() { None } else { payload_row(row, id)? },
        erased,
    })
}

fn payload_row(row: &PgRow, id: EventId) -> Result<Option<PayloadRow>> {
    let Some(bytes) = row.try_get("payload")? else { return Ok(None) };
    let corrupt = || Error::Corrupt { table: "events", column: "body_form", id: id.uuid() };
    Ok(Some(PayloadRow {
        key: row.try_get("payload_key")?,
        form: body_form(row.try_get("body_form")?).ok_or_else(corrupt)?,
        bytes,
    }))
}
