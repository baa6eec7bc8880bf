//! `GET /stream/events`: the list of events as it grows and changes, as server-sent events.
//!
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use grapnel_core::ids::IntegrationId;
use grapnel_store::views::{EventFilter, EventSelection, Seen};
use http::{HeaderMap, header};
use serde::Serialize;
use tokio::time::{Instant, sleep_until, timeout};
use utoipa::ToSchema;

use super::ManagementState;
use super::authorize::Grant;
use super::events::{self, StatusFilter};
use super::live::{LiveEvent, MOST_AT_ONCE, Next, Watcher};
use super::model::EventView;
use super::query::Query;
use crate::http::envelope::{ApiError, ErrorCode};

/// The parameters of the list of events, but for its order, its pages, and what takes an event's body.
const PARAMETERS: [&str; 14] = [
    "provider",
    "status",
    "eventType",
    "subject",
    "from",
    "to",
    "integration",
    "namespace",
    "destination",
    "externalEventId",
    "correlationId",
    "receivedFrom",
    "receivedTo",
    "httpStatus",
];

/// A stream ends after this time, and a client that goes on shows its credential and has its rights decided again.
const LONGEST_STREAM: Duration = Duration::from_secs(60);

/// What a client without anything to get is sent, so that both sides know that the other is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const COMMENT: &str = ":\n\n";

/// What a stream begins with: after how many milliseconds a client goes on.
const RETRY: &str = "retry: 1000\n\n";

/// The number of events that were told, left out of a stream that had too many, or not read.
const EVENTS: &str = "grapnel_stream_events_total";

/// What a stream leaves out.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StreamGap)]
pub(super) struct GapView {
    /// Changes that pass the filters, beyond 50 in a second.
    #[schema(minimum = 0)]
    left_out: u64,
    /// Changes of all integrations that were not looked at: there were too many, or the client was too slow. Null when the client was away
    /// for more than ten minutes.
    #[schema(required, minimum = 0)]
    not_read: Option<u64>,
}

/// The data of a message.
#[expect(dead_code, reason = "only described, never made")]
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = StreamedData)]
pub(super) enum StreamedView {
    Event(Box<EventView>),
    Gap(GapView),
}

/// Watch events
///
/// Server-sent events: `event` has an event as the list shows it, its payload left out, each time it is new or an attempt to deliver it ended;
/// `gap` has the numbers of changes that were left out: a stream has at most 50 events a second. The `id` of what was sent last, given as
/// `Last-Event-ID` as browsers do, goes on from there, within ten minutes. A stream ends after a minute: clients reconnect, and rights are
/// decided anew. A change is sent within two seconds or so.
///
/// The filters are those of the list of events, but for `q`.
#[utoipa::path(
    get, path = "/stream/events", tag = "Events", operation_id = "streamEvents",
    params(
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last message that was received"),
        ("provider" = Option<String>, Query, min_length = 1, max_length = 100, description = "Only of this provider"),
        ("status" = inline(Option<StatusFilter>), Query, description = "Only while in this status, as in the list of events"),
        ("eventType" = Option<String>, Query, min_length = 1, max_length = 255, description = "Only of this type"),
        ("subject" = Option<String>, Query, min_length = 1, max_length = 255,
            description = "Only with this text anywhere in the subject, in upper or lower case"),
        ("from" = Option<String>, Query, format = DateTime, description = "Only events that occurred at this time or later"),
        ("to" = Option<String>, Query, format = DateTime, description = "Only events that occurred at this time or earlier"),
        ("integration" = Option<String>, Query, min_length = 3, max_length = 507,
            description = "Only of this integration: its id, or `namespace/name`"),
        ("namespace" = Option<String>, Query, min_length = 1, max_length = 100, description = "Only of the integrations in this namespace"),
        ("destination" = Option<String>, Query, min_length = 1, max_length = 100, description = "Only with a delivery to a destination of this name"),
        ("externalEventId" = Option<String>, Query, min_length = 1, max_length = 255, description = "Only with this id of the provider"),
        ("correlationId" = Option<String>, Query, min_length = 1, max_length = 255, description = "Only with this correlation id"),
        ("receivedFrom" = Option<String>, Query, format = DateTime, description = "Only events that were received at this time or later"),
        ("receivedTo" = Option<String>, Query, format = DateTime, description = "Only events that were received at this time or earlier"),
        ("httpStatus" = Option<i16>, Query, minimum = 100, maximum = 599, description = "Only those whose last attempt was answered with this status"),
    ),
    responses((status = 200, description = "The data of `event` and `gap`", body = StreamedView, content_type = "text/event-stream")),
)]
pub(super) async fn events(
    State(state): State<ManagementState>,
    grant: Grant,
    headers: HeaderMap,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let query = Query::of_item(raw.as_deref(), &PARAMETERS)?;
    let since = last_event_id(&headers)?;
    let list = events::read_list(&query, &grant)?;
    let wanted = Wanted {
        integrations: list.filter.integrations.ids(&state.db).await?,
        filter: list.filter,
        selection: list.selection,
    };
    let Some(watcher) = state.live.watch(&grant.requester.actor, !wanted.is_everything(), since).await?
    else {
        return Err(ApiError::new(ErrorCode::RateLimited, "Too many streams are open"));
    };
    let stream = chunks(Streamed { wanted, watcher, stopped: state.live.stopped() });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        // A proxy that collects answers would keep what is small.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Seen>, ApiError> {
    let Some(value) = headers.get("last-event-id").filter(|value| !value.is_empty()) else { return Ok(None) };
    let seen = value.to_str().ok().and_then(Seen::of_text);
    seen.map(Some).ok_or_else(|| ApiError::invalid("Last-Event-ID", "is not an id of this stream"))
}

/// What a client wants to see.
struct Wanted {
    filter: EventFilter,
    selection: Option<EventSelection>,
    /// Those that the filter names, if it names some.
    integrations: Option<Vec<IntegrationId>>,
}

impl Wanted {
    /// Whether it leaves nothing out.
    fn is_everything(&self) -> bool {
        self.filter == EventFilter::default() && self.selection.is_none() && self.integrations.is_none()
    }

    /// Returns what it wants of a reading, and what the client has seen with it. One piece, so that it is sent in one go.
    fn chunk(&self, next: &Next) -> Result<Bytes, ApiError> {
        let Next { reading, missed } = next;
        let passes = |event: &&LiveEvent| {
            event.changed.passes(&self.filter, self.selection, self.integrations.as_deref())
        };
        let wanted: Vec<_> = reading.events.iter().filter(passes).collect();
        let first = wanted.len().saturating_sub(MOST_AT_ONCE);
        let told = wanted[first..].iter().map(|event| told(event)).collect::<Result<Vec<_>, _>>()?;
        let mut chunk = Vec::with_capacity(told.iter().map(|message| message.len()).sum::<usize>() + 1_024);
        for message in &told {
            chunk.extend_from_slice(message);
        }
        let (left_out, unread) = if self.is_everything() {
            (first as u64 + reading.counted, reading.unread)
        } else {
            (first as u64, reading.unread.map(|unread| unread + reading.counted))
        };
        let not_read = unread.map(|unread| unread + missed);
        if left_out > 0 || not_read != Some(0) {
            let gap = GapView { left_out, not_read };
            chunk.extend_from_slice(&message("gap", &gap)?);
        }
        // An id without data moves the client on, and is no message to its program.
        chunk.extend_from_slice(format!("id: {}\n\n", reading.id).as_bytes());
        count("told", told.len() as u64);
        count("left_out", left_out);
        count("not_read", not_read.unwrap_or(0));
        Ok(chunk.into())
    }
}

/// Returns the message of a change, which is the same for all.
fn told(event: &LiveEvent) -> Result<&Bytes, ApiError> {
    if let Some(told) = event.message.get() {
        return Ok(told);
    }
    let view = EventView::from_row(event.changed.event.clone(), false)?;
    let made = message("event", &view)?;
    Ok(event.message.get_or_init(|| made))
}

/// Returns a message. JSON has no line breaks of its own.
fn message(name: &str, data: &impl Serialize) -> Result<Bytes, ApiError> {
    let mut message = format!("event: {name}\ndata: ").into_bytes();
    serde_json::to_writer(&mut message, data).map_err(|_| ApiError::internal())?;
    message.extend_from_slice(b"\n\n");
    Ok(message.into())
}

fn count(outcome: &'static str, events: u64) {
    if events > 0 {
        metrics::counter!(EVENTS, "outcome" => outcome).increment(events);
    }
}

struct Streamed {
    wanted: Wanted,
    watcher: Watcher,
    stopped: tokio_util::sync::CancellationToken,
}

/// Returns what a client is sent. Nothing is made for it before it has taken what was there.
fn chunks(streamed: Streamed) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let until = Instant::now() + LONGEST_STREAM;
    let first = Bytes::from_static(RETRY.as_bytes());
    futures::stream::unfold((Some(first), streamed), move |(first, mut streamed)| async move {
        if let Some(first) = first {
            return Some((Ok(first), (None, streamed)));
        }
        let next = tokio::select! {
            () = streamed.stopped.cancelled() => return None,
            () = sleep_until(until) => return None,
            next = timeout(KEEP_ALIVE, streamed.watcher.next()) => next,
        };
        let chunk = match next {
            Ok(next) => streamed.wanted.chunk(&next?).ok()?,
            Err(_elapsed) => Bytes::from_static(COMMENT.as_bytes()),
        };
        Some((Ok(chunk), (None, streamed)))
    })
}
