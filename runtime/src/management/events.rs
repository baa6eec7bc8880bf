//! `GET /events`, `GET /events/{id}`, and the state of an event's processing.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};
use utoipa::ToSchema;

use super::answer::{self, ListMeta};
use super::cursor::ListOrder;
use super::model::{EventRecordView, EventStatusView, EventView, ProcessingView};
use super::path::PathId;
use super::query::{PagingParameters, Query};
use super::{MAX_FILTER_CHARS, MAX_NAME_CHARS, ManagementState};
use crate::http::envelope::{ApiError, Envelope, ErrorEnvelope};
use grapnel_core::ids::EventId;
use grapnel_store::views::{
    EventFilter, EventList, EventSort, EventStatus, Order, list_events, load_event, load_processing,
};

const PARAMETERS: [&str; 8] =
    ["provider", "status", "eventType", "subject", "from", "to", "sortBy", "sortOrder"];

/// Values of `sortBy`. An event is created when it is received.
#[derive(Debug, Clone, Copy, ToSchema)]
#[schema(rename_all = "camelCase")]
enum SortBy {
    CreatedAt,
    OccurredAt,
    Status,
    ReceivedAt,
}

const SORTS: [(&str, SortBy); 4] = [
    ("createdAt", SortBy::CreatedAt),
    ("occurredAt", SortBy::OccurredAt),
    ("status", SortBy::Status),
    ("receivedAt", SortBy::ReceivedAt),
];

/// Values of `sortOrder`.
#[derive(Debug, Clone, Copy, ToSchema)]
#[schema(rename_all = "camelCase")]
enum SortOrder {
    Asc,
    Desc,
}

const ORDERS: [(&str, SortOrder); 2] = [("asc", SortOrder::Asc), ("desc", SortOrder::Desc)];

/// List events
///
/// By default the latest received come first. Sorted by status they come in the order pending, processing, retrying,
/// processed, failed. `provider`, `eventType` and `subject` have no index: where few events match, the whole history is
/// read, and `from` and `to` bound that.
#[utoipa::path(
    get, path = "/events", tag = "Events", operation_id = "listEvents",
    params(
        ("provider" = Option<String>, Query, min_length = 1, max_length = 100, description = "Only of this provider"),
        ("status" = Option<EventStatusView>, Query, description = "Only in this status"),
        ("eventType" = Option<String>, Query, min_length = 1, max_length = 255, description = "Only of this type"),
        ("subject" = Option<String>, Query, min_length = 1, max_length = 255,
            description = "Only with this text anywhere in the subject, in upper or lower case"),
        ("from" = Option<String>, Query, format = DateTime, description = "Only events that occurred at this time or later"),
        ("to" = Option<String>, Query, format = DateTime, description = "Only events that occurred at this time or earlier"),
        ("sortBy" = inline(Option<SortBy>), Query, description = "The sort key; `createdAt` by default"),
        ("sortOrder" = inline(Option<SortOrder>), Query, description = "`desc` by default"),
        PagingParameters,
    ),
    responses((status = 200, description = "A page of events", body = Envelope<Vec<EventView>, ListMeta>)),
)]
pub(super) async fn list(
    State(state): State<ManagementState>,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let query = Query::of_list(raw.as_deref(), &PARAMETERS)?;
    let list = EventList {
        filter: EventFilter {
            provider: query.text("provider", MAX_NAME_CHARS)?,
            event_type: query.text("eventType", MAX_FILTER_CHARS)?,
            subject: query.text("subject", MAX_FILTER_CHARS)?,
            from: query.time("from")?.map(whole_milliseconds),
            until: query.time("to")?.map(end_of_millisecond),
        },
        status: query.choice("status", &EventStatus::ALL.map(|status| (status.as_str(), status)))?,
        sort: match query.choice("sortBy", &SORTS)? {
            None | Some(SortBy::CreatedAt | SortBy::ReceivedAt) => EventSort::CreatedAt,
            Some(SortBy::OccurredAt) => EventSort::OccurredAt,
            Some(SortBy::Status) => EventSort::Status,
        },
        order: match query.choice("sortOrder", &ORDERS)? {
            None | Some(SortOrder::Desc) => Order::Descending,
            Some(SortOrder::Asc) => Order::Ascending,
        },
    };
    let order = ListOrder::Events(list.sort, list.order);
    let page = list_events(&state.db, &list, query.page(order)?).await?;
    answer::list(page, order, EventView::from_row)
}

// Times are shown in milliseconds, so bounds are compared in milliseconds: an event is within a bound that is copied
// from its own answer.
fn whole_milliseconds(time: Timestamp) -> Timestamp {
    let floor = TimestampRound::new().smallest(Unit::Millisecond).mode(RoundMode::Floor);
    time.round(floor).unwrap_or(time)
}

fn end_of_millisecond(time: Timestamp) -> Timestamp {
    whole_milliseconds(time).checked_add(SignedDuration::from_millis(1)).unwrap_or(Timestamp::MAX)
}

/// Read an event
///
/// The event, the webhook as it was received, its delivery attempts and its processing jobs.
#[utoipa::path(
    get, path = "/events/{id}", tag = "Events", operation_id = "readEvent",
    params(("id" = uuid::Uuid, Path, description = "The event's id")),
    responses(
        (status = 200, description = "The event", body = Envelope<EventRecordView>),
        (status = 404, description = "There is no such event", body = ErrorEnvelope),
    ),
)]
pub(super) async fn read(
    State(state): State<ManagementState>,
    PathId(id): PathId,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    Query::none(raw.as_deref())?;
    let details = load_event(&state.db, EventId::new(id)).await?;
    let record = details.map(|details| EventRecordView::from_details(details, &state.queue_prefix));
    answer::item(record.transpose()?, "event")
}

/// Read the state of an event's processing
#[utoipa::path(
    get, path = "/events/{id}/status", tag = "Events", operation_id = "readEventStatus",
    params(("id" = uuid::Uuid, Path, description = "The event's id")),
    responses(
        (status = 200, description = "The state of its processing", body = Envelope<ProcessingView>),
        (status = 404, description = "There is no such event", body = ErrorEnvelope),
    ),
)]
pub(super) async fn status(
    State(state): State<ManagementState>,
    PathId(id): PathId,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    Query::none(raw.as_deref())?;
    let details = load_processing(&state.db, EventId::new(id)).await?;
    let processing = details.map(|details| ProcessingView::from_details(details, &state.queue_prefix));
    answer::item(processing, "event")
}

/// Read the state of an event's processing
///
/// The same as `GET /events/{id}/status`.
#[utoipa::path(
    get, path = "/processing-status/{id}", tag = "Events", operation_id = "readProcessingStatus",
    params(("id" = uuid::Uuid, Path, description = "The event's id")),
    responses(
        (status = 200, description = "The state of its processing", body = Envelope<ProcessingView>),
        (status = 404, description = "There is no such event", body = ErrorEnvelope),
    ),
)]
pub(super) async fn processing_status(
    state: State<ManagementState>,
    id: PathId,
    raw: RawQuery,
) -> Result<Response, ApiError> {
    status(state, id, raw).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_whole_milliseconds() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let shown = time("2026-01-31T09:30:00.123Z");
        let stored = time("2026-01-31T09:30:00.123456Z");
        assert!(whole_milliseconds(shown) <= stored && stored < end_of_millisecond(shown));
        assert_eq!(whole_milliseconds(stored), shown);
        assert!(end_of_millisecond(stored) > stored);
        let old = time("1960-01-31T09:30:00.1234Z");
        assert_eq!(whole_milliseconds(old), time("1960-01-31T09:30:00.123Z"));
        assert_eq!(end_of_millisecond(Timestamp::MAX), Timestamp::MAX);
        assert_eq!(whole_milliseconds(Timestamp::MIN), Timestamp::MIN);
    }
}
