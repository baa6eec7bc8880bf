//! What an expression would do with the last events of an Integration, before it is written into a destination.

use std::time::{Duration, Instant};

use bytes::Bytes;
use grapnel_core::filter::{EvaluationError, Expression, FilterContext, FilterInput};
use grapnel_core::ids::{EventId, IntegrationId};
use grapnel_store::views::{
    EventFilter, EventList, EventRow, EventSort, IntegrationRef, IntegrationSelection, Order, PageRequest,
    Start, list_events, load_headers,
};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use uuid::Uuid;

use super::ManagementState;
use super::authorize::Grant;
use super::model::Rfc3339Millis;
use super::query::MAX_PAGE_SIZE;
use crate::http::RETRY_AFTER_SECONDS;
use crate::http::envelope::ApiError;

/// Trials at a time. Each holds a thread until it ends, also when nobody waits for it any more.
static PLACES: Semaphore = Semaphore::const_new(2);

/// After this, no further event is tried.
const LONGEST_TRIAL: Duration = Duration::from_secs(1);

/// How long an answer may take: the trial, and the event at its end.
const DEADLINE: Duration = Duration::from_secs(3);

/// The stack of the thread, as for filters of the ingress.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// The events that were tried, the latest first.
#[derive(Debug)]
pub(crate) struct FilterTrial {
    pub(crate) events: Vec<TriedEvent>,
    /// Those for which there was no time, or whose payload lists do not have.
    pub(crate) left_out: usize,
}

/// An event, and what a destination with the expression would do with it.
#[derive(Debug)]
pub(crate) struct TriedEvent {
    pub(crate) id: Uuid,
    pub(crate) event_type: String,
    pub(crate) subject: Option<String>,
    pub(crate) received_at: Rfc3339Millis,
    /// Whether it is admitted, or why that cannot be said.
    pub(crate) admitted: Result<bool, EvaluationError>,
}

impl FilterTrial {
    /// How many would be delivered.
    pub(crate) fn admitted(&self) -> usize {
        self.events.iter().filter(|event| event.admitted == Ok(true)).count()
    }

    /// How many would be left out.
    pub(crate) fn refused(&self) -> usize {
        self.events.iter().filter(|event| event.admitted == Ok(false)).count()
    }

    /// For how many it cannot be evaluated.
    pub(crate) fn failed(&self) -> usize {
        self.events.iter().filter(|event| event.admitted.is_err()).count()
    }
}

/// Tries an expression on the last hundred events of an Integration whose payloads may be seen.
pub(super) async fn try_expression(
    state: &ManagementState,
    grant: &Grant,
    integration: Uuid,
    source: &str,
) -> Result<FilterTrial, ApiError> {
    let expression =
        Expression::compile(source).map_err(|error| ApiError::invalid("expression", error.to_string()))?;
    let place = PLACES.try_acquire().map_err(|_| ApiError::unavailable(RETRY_AFTER_SECONDS))?;
    let events = last_events(state, grant, IntegrationId::new(integration)).await?;
    let mut headers = if expression.uses_headers() {
        let ids: Vec<EventId> = events.iter().map(|event| event.id).collect();
        load_headers(&state.db, &ids).await?
    } else {
        Default::default()
    };
    let inputs = events.into_iter().map(|event| {
        let headers = headers.remove(&event.id).unwrap_or_default();
        let received_at = event.received_at.into();
        (received_at, input(event, headers))
    });
    let inputs: Vec<(Rfc3339Millis, Option<FilterInput>)> = inputs.collect();
    let (reply, answer) = oneshot::channel();
    let trial = move || {
        let _place = place;
        // Nobody may wait any more.
        let _sent = reply.send(evaluate_all(&expression, inputs));
    };
    let thread = std::thread::Builder::new().name("filter trial".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(trial).map_err(|_| ApiError::unavailable(RETRY_AFTER_SECONDS))?;
    match timeout(DEADLINE, answer).await {
        Ok(Ok(trial)) => Ok(trial),
        Ok(Err(_)) => Err(ApiError::internal()),
        Err(_) => Err(ApiError::invalid("expression", "takes too long for one of the events")),
    }
}

async fn last_events(
    state: &ManagementState,
    grant: &Grant,
    integration: IntegrationId,
) -> Result<Vec<EventRow>, ApiError> {
    let integrations =
        IntegrationSelection { integration: Some(IntegrationRef::Id(integration.uuid())), namespaces: None };
    let list = EventList {
        filter: EventFilter { integrations, visible: grant.payloads.filter(), ..EventFilter::default() },
        selection: None,
        sort: EventSort::CreatedAt,
        order: Order::Descending,
    };
    let request = PageRequest { size: MAX_PAGE_SIZE, start: Start::Page(std::num::NonZeroU32::MIN) };
    Ok(list_events(&state.db, &list, request).await?.items)
}

/// `None` if the payload is not there: it was erased, or is too long for lists.
fn input(event: EventRow, headers: String) -> Option<FilterInput> {
    let payload = event.payload?;
    Some(FilterInput {
        id: event.id,
        event_type: event.event_type,
        subject: event.subject,
        provider: event.provider.into(),
        external_event_id: event.external_event_id,
        occurred_at: event.occurred_at,
        body_form: payload.form,
        payload: Bytes::from(payload.bytes),
        headers,
    })
}

fn evaluate_all(expression: &Expression, inputs: Vec<(Rfc3339Millis, Option<FilterInput>)>) -> FilterTrial {
    let started = Instant::now();
    let all = inputs.len();
    let in_time = |_: &_| started.elapsed() < LONGEST_TRIAL;
    let known = inputs.into_iter().filter_map(|(received_at, input)| Some((received_at, input?)));
    let events: Vec<TriedEvent> = known
        .take_while(in_time)
        .map(|(received_at, input)| TriedEvent {
            admitted: FilterContext::new(&input, [expression]).evaluate(expression),
            id: input.id.uuid(),
            event_type: input.event_type,
            subject: input.subject,
            received_at,
        })
        .collect();
    FilterTrial { left_out: all - events.len(), events }
}
