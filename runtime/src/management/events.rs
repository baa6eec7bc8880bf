//! `GET /events`, `GET /events/{id}`, and the state of an event's processing.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer::{self, ListMeta, Listed};
use super::authorize::Grant;
use super::cursor::ListOrder;
use super::model::{EventRecordView, EventView, ProcessingView, Rfc3339Millis};
use super::path::PathId;
use super::query::{PagingParameters, Query};
use super::{MAX_FILTER_CHARS, MAX_NAME_CHARS, ManagementState, time_bounds};
use crate::http::envelope::{ApiError, Envelope, ErrorEnvelope};
use grapnel_core::ids::EventId;
use grapnel_store::erasure;
use grapnel_store::views::{
    EventFilter, EventList, EventSelection, EventSort, EventStatus, IntegrationSelection, Order, PageRequest,
    Start, list_events, load_event, load_processing,
};

const PARAMETERS: [&str; 17] = [
    "provider",
    "status",
    "eventType",
    "subject",
    "from",
    "to",
    "sortBy",
    "sortOrder",
    "integration",
    "namespace",
    "destination",
    "externalEventId",
    "correlationId",
    "receivedFrom",
    "receivedTo",
    "httpStatus",
    "q",
];

/// The parameters with which a list is a search, which has one order.
const SEARCHES: [&str; 9] = [
    "integration",
    "namespace",
    "destination",
    "externalEventId",
    "correlationId",
    "receivedFrom",
    "receivedTo",
    "httpStatus",
    "q",
];

/// The longest window of receipt in which bodies are searched without an integration.
const LONGEST_TEXT_WINDOW: SignedDuration = SignedDuration::from_hours(7 * 24);

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

/// Values of `status`.
#[expect(dead_code, reason = "only described, never made")]
#[derive(Debug, Clone, Copy, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) enum StatusFilter {
    Pending,
    Processing,
    Retrying,
    Processed,
    Failed,
    Filtered,
}

const ORDERS: [(&str, SortOrder); 2] = [("asc", SortOrder::Asc), ("desc", SortOrder::Desc)];

/// List events
///
/// By default the latest received come first. Sorted by status they come in the order pending, processing, retrying,
/// processed, failed.
///
/// `integration`, `namespace`, `externalEventId`, `receivedFrom` and `receivedTo`, `eventType` together with an integration, and `destination`
/// together with `status=failed` have an index. With any other filter the list is walked for at most two seconds: a page that ran out of time
/// has `meta.scannedThrough`, and `meta.nextCursor` goes on from there. `from` and `to` have an index of their own where no parameter is
/// given that is named from `integration` on.
#[utoipa::path(
    get, path = "/events", tag = "Events", operation_id = "listEvents",
    params(
        ("provider" = Option<String>, Query, min_length = 1, max_length = 100, description = "Only of this provider"),
        ("status" = inline(Option<StatusFilter>), Query,
            description = "Only in this status; `filtered`: only those that the filter of a destination left out, in any status. With `destination`, the status of the delivery to it"),
        ("eventType" = Option<String>, Query, min_length = 1, max_length = 255, description = "Only of this type"),
        ("subject" = Option<String>, Query, min_length = 1, max_length = 255,
            description = "Only with this text anywhere in the subject, in upper or lower case"),
        ("from" = Option<String>, Query, format = DateTime, description = "Only events that occurred at this time or later"),
        ("to" = Option<String>, Query, format = DateTime, description = "Only events that occurred at this time or earlier"),
        ("sortBy" = inline(Option<SortBy>), Query,
            description = "The sort key; `createdAt` by default, and the only one together with a parameter that is named from `integration` on"),
        ("sortOrder" = inline(Option<SortOrder>), Query, description = "`desc` by default"),
        ("integration" = Option<String>, Query, min_length = 3, max_length = 507,
            description = "Only of this integration: its id, or `namespace/name`, also of one that was deleted"),
        ("namespace" = Option<String>, Query, min_length = 1, max_length = 100, description = "Only of the integrations in this namespace"),
        ("destination" = Option<String>, Query, min_length = 1, max_length = 100, description = "Only with a delivery to a destination of this name"),
        ("externalEventId" = Option<String>, Query, min_length = 1, max_length = 255, description = "Only with this id of the provider"),
        ("correlationId" = Option<String>, Query, min_length = 1, max_length = 255, description = "Only with this correlation id"),
        ("receivedFrom" = Option<String>, Query, format = DateTime, description = "Only events that were received at this time or later"),
        ("receivedTo" = Option<String>, Query, format = DateTime, description = "Only events that were received at this time or earlier"),
        ("httpStatus" = Option<i16>, Query, minimum = 100, maximum = 599,
            description = "Only those whose last attempt, or with `destination` the last one to it, was answered with this status"),
        ("q" = Option<String>, Query, min_length = 1, max_length = 255,
            description = "Only with this text in the raw body, byte for byte. Needs `integration`, `namespace`, or a window from `receivedFrom` on of at most 7 days"),
        PagingParameters,
    ),
    responses((status = 200, description = "A page of events", body = Envelope<Vec<EventView>, ListMeta>)),
)]
pub(super) async fn list(
    State(state): State<ManagementState>,
    grant: Grant,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    Ok(find(&state, &grant, raw.as_deref()).await?.respond())
}

/// Reads the page that a query asks for.
pub(super) async fn find(
    state: &ManagementState,
    grant: &Grant,
    raw: Option<&str>,
) -> Result<Listed<EventView>, ApiError> {
    let query = Query::of_list(raw, &PARAMETERS)?;
    let list = read_list(&query, grant)?;
    let order = ListOrder::Events(list.sort, list.order);
    let request = match query.first_of(&SEARCHES) {
        Some(_) => query.page_of_search(order, walked_parameter(&query, list.selection))?,
        None => query.page(order)?,
    };
    let page = list_events(&state.db, &list, request).await.map_err(|error| refusal(error, &query, request));
    answer::list(page?, order, |row| {
        let shows_payload = grant.payloads.includes(row.integration_id);
        EventView::from_row(row, shows_payload)
    })
}

/// Reads the parameters of a list of events.
pub(super) fn read_list(query: &Query<'_>, grant: &Grant) -> Result<EventList, ApiError> {
    let filter = EventFilter {
        provider: query.text("provider", MAX_NAME_CHARS)?,
        event_type: query.text("eventType", MAX_FILTER_CHARS)?,
        subject: query.text("subject", MAX_FILTER_CHARS)?,
        from: time_bounds::from(query, "from")?,
        until: time_bounds::until(query, "to")?,
        integrations: IntegrationSelection {
            integration: query.integration("integration")?,
            namespaces: query.text("namespace", MAX_NAME_CHARS)?.map(|namespace| vec![namespace]),
        },
        destination: query.text("destination", MAX_NAME_CHARS)?,
        external_event_id: query.text("externalEventId", MAX_FILTER_CHARS)?,
        correlation_id: query.text("correlationId", MAX_FILTER_CHARS)?,
        received_from: time_bounds::from(query, "receivedFrom")?,
        received_until: time_bounds::until(query, "receivedTo")?,
        http_status: query.http_status("httpStatus")?,
        text: query.text("q", MAX_FILTER_CHARS)?,
        visible: grant.visible_with(query, &["q"])?.filter(),
    };
    check_text(&filter)?;
    let list = EventList {
        filter,
        selection: query.choice("status", &EventSelection::ALL.map(|status| (status.as_str(), status)))?,
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
    match query.first_of(&SEARCHES) {
        Some(name) if list.sort != EventSort::CreatedAt => {
            Err(ApiError::invalid("sortBy", format!("must be createdAt or receivedAt together with {name}")))
        }
        _ => Ok(list),
    }
}

/// Bodies are read to be searched, so something must say which.
fn check_text(filter: &EventFilter) -> Result<(), ApiError> {
    let has_window = || {
        let until = filter.received_until.unwrap_or_else(Timestamp::now);
        filter.received_from.is_some_and(|from| until.duration_since(from) <= LONGEST_TEXT_WINDOW)
    };
    if filter.text.is_none() || !filter.integrations.is_any() || has_window() {
        return Ok(());
    }
    let reason = "needs integration, namespace, or a window of receivedFrom and receivedTo of at most 7 days";
    Err(ApiError::invalid("q", reason))
}

/// Returns a parameter of a search that no index serves.
fn walked_parameter(query: &Query<'_>, selection: Option<EventSelection>) -> Option<&'static str> {
    if query.first_of(&["externalEventId"]).is_some() {
        return None;
    }
    let has_integration = query.first_of(&["integration", "namespace"]).is_some();
    let is_failed = selection == Some(EventSelection::Status(EventStatus::Failed));
    let of_destination = query.first_of(&["destination"]).filter(|_| !is_failed);
    let of_type = query.first_of(&["eventType"]).filter(|_| !has_integration);
    let others = ["provider", "subject", "from", "to", "correlationId", "httpStatus", "q"];
    query.first_of(&others).or(of_destination).or(of_type)
}

/// A page by number that was walked to from the front, and took too long, is asked for by cursor.
fn refusal(error: grapnel_store::Error, query: &Query<'_>, request: PageRequest) -> ApiError {
    let walked = query.first_of(&["provider", "eventType", "subject"]);
    match (&error, walked, request.start) {
        (grapnel_store::Error::Deadline, Some(walked), Start::Page(page)) if page.get() > 1 => {
            let reason = format!("takes too long with {walked}, which has no index: go on with cursor");
            ApiError::invalid("page", reason)
        }
        _ => error.into(),
    }
}

/// Read an event
///
/// The event, the webhook as it was received, its deliveries, their attempts and its processing jobs.
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
    grant: Grant,
    PathId(id): PathId,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    Query::none(raw.as_deref())?;
    Ok(answer::item(&load(&state, &grant, id).await?))
}

/// Reads an event with all its parts, without what the grant withholds.
pub(super) async fn load(
    state: &ManagementState,
    grant: &Grant,
    id: Uuid,
) -> Result<EventRecordView, ApiError> {
    let details = load_event(&state.db, EventId::new(id)).await?.ok_or_else(|| answer::not_found("event"))?;
    let shows_payloads = grant.payloads.includes(details.event.integration_id);
    Ok(EventRecordView::from_details(details, &state.queue_prefix, shows_payloads)?)
}

/// `data` of an erased event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErasedEvent {
    pub(crate) id: Uuid,
    pub(crate) erased_at: Rfc3339Millis,
}

/// Erase an event
///
/// Its body, headers, subject and source address, and what receivers answered, are gone for good. The event stays with `erasedAt`, so that it goes on
/// telling duplicates; it is audited, and cannot be replayed. Unfinished deliveries end as failed. Of a request with several events the event's own
/// bytes are blanked, and the rest goes with the last of its events. To erase one again changes nothing.
#[utoipa::path(
    delete, path = "/events/{id}", tag = "Events", operation_id = "eraseEvent",
    params(("id" = uuid::Uuid, Path, description = "The event's id")),
    responses(
        (status = 200, description = "The event is erased", body = Envelope<ErasedEvent>),
        (status = 404, description = "There is no such event", body = ErrorEnvelope),
    ),
)]
pub(super) async fn erase(
    State(state): State<ManagementState>,
    grant: Grant,
    PathId(id): PathId,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    Query::none(raw.as_deref())?;
    Ok(answer::item(&blank(&state, &grant, id).await?))
}

/// Erases an event.
pub(super) async fn blank(state: &ManagementState, grant: &Grant, id: Uuid) -> Result<ErasedEvent, ApiError> {
    let erased_at = erasure::erase(&state.db, EventId::new(id), &grant.requester).await?;
    let erased_at = erased_at.ok_or_else(|| answer::not_found("event"))?;
    Ok(ErasedEvent { id, erased_at: erased_at.into() })
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
    let details = details.ok_or_else(|| answer::not_found("event"))?;
    Ok(answer::item(&ProcessingView::from_details(details, &state.queue_prefix)))
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
