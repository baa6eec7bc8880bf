//! Decides which destinations get an event, before it is committed. Only events of Integrations with filters come here.
//!
//! Types are compared at once; expressions are evaluated by the pool, all of an event with one set of variables. An event is never
//! refused because of a filter: where an expression has no result, its Integration says whether the destination gets the event.

use std::sync::Arc;
use std::time::Duration;

use grapnel_core::filter::{DestinationSet, EvaluationError, FilterInput, IntegrationFilters};
use grapnel_core::integration::CompiledIntegration;
use grapnel_store::events::{NewEvent, NewPayload, NewRequest};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::filter_errors::FilterErrors;
use super::filter_pool::{FilterPool, FilterResults};
use super::one_or_more::OneOrMore;

/// The time for all events of a request. What is not evaluated by then is an error of the evaluation.
const LONGEST_REQUEST: Duration = Duration::from_secs(1);

/// The filters of all Integrations. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Filtering {
    pool: FilterPool,
    errors: FilterErrors,
}

impl Filtering {
    pub(crate) fn new(errors: FilterErrors) -> Self {
        Self { pool: FilterPool::default(), errors }
    }

    /// Marks the destinations that do not get the events of a request.
    pub(super) async fn apply(
        &self,
        integration: &Arc<CompiledIntegration>,
        events: &mut OneOrMore<NewEvent>,
    ) {
        let Some(filters) = &integration.filters else { return };
        let deadline = Instant::now() + LONGEST_REQUEST;
        for event in events.iter_mut() {
            let excluded = filters.excluded_by_type(&event.event_type);
            let results = if filters.expressions(excluded).next().is_none() {
                Vec::new()
            } else if Instant::now() < deadline {
                self.pool.evaluate(integration, excluded, input(filters, event)).await
            } else {
                let not_reached = |(position, _)| (position, Err(EvaluationError::NotReached));
                filters.expressions(excluded).map(not_reached).collect()
            };
            self.mark(integration, filters, event, excluded, results);
        }
    }

    fn mark(
        &self,
        integration: &CompiledIntegration,
        filters: &IntegrationFilters,
        event: &mut NewEvent,
        excluded: DestinationSet,
        results: FilterResults,
    ) {
        event.filtered = excluded;
        let mut failed = Vec::new();
        for (position, result) in results {
            let drops = match result {
                Ok(is_admitted) => !is_admitted,
                Err(error) => {
                    let drops = filters.get(position).is_some_and(|filter| filter.drops_on_error);
                    count_error(&error, drops);
                    failed.push((position, error));
                    drops
                }
            };
            if drops {
                event.filtered.insert(position);
            }
        }
        metrics::counter!("grapnel_deliveries_filtered_total").increment(event.filtered.len());
        if !failed.is_empty() {
            event.audit_details = Some(audit_details(event, &failed));
        }
        for (position, error) in failed {
            self.errors.note(integration, position, event.id, error);
        }
    }
}

fn input(filters: &IntegrationFilters, event: &NewEvent) -> FilterInput {
    let raw_body = match &event.request {
        NewRequest::Whole { raw_body, .. } => raw_body,
        NewRequest::Shared { request, .. } => &request.raw_body,
    };
    let uses_headers =
        filters.expressions(DestinationSet::default()).any(|(_, filter)| filter.uses_headers());
    FilterInput {
        id: event.id,
        event_type: event.event_type.clone(),
        subject: event.subject.clone(),
        provider: Arc::clone(&event.provider),
        external_event_id: event.external_event_id.clone(),
        occurred_at: event.occurred_at,
        body_form: event.body_form,
        payload: match &event.payload {
            NewPayload::Slice(range) => raw_body.slice(range.clone()),
            NewPayload::Own(payload) => payload.clone(),
        },
        headers: if uses_headers { event.request.headers_as_json().into_owned() } else { String::new() },
    }
}

/// Returns the details of the entry `webhook.received`, with the filters that could not be evaluated.
fn audit_details(event: &NewEvent, failed: &[(usize, EvaluationError)]) -> String {
    let known = event.audit_details.as_deref().and_then(|details| serde_json::from_str(details).ok());
    let mut details: Map<String, Value> = known.unwrap_or_default();
    let failed = failed.iter().map(|(position, error)| {
        json!({"destination": event.destinations.get(*position), "error": error.to_string()})
    });
    details.insert("filterErrors".to_owned(), failed.collect());
    Value::Object(details).to_string()
}

/// With literals the keys are static, and nothing is allocated.
fn count_error(error: &EvaluationError, drops: bool) {
    let reason = match error {
        EvaluationError::PayloadTooLong | EvaluationError::PayloadUnreadable => "payload",
        EvaluationError::TooManyTurns | EvaluationError::TooLarge | EvaluationError::TooMuchWork => "bounds",
        EvaluationError::NotBool(_) | EvaluationError::Failed(_) => "evaluation",
        EvaluationError::TimedOut | EvaluationError::NotReached => "timeout",
        EvaluationError::SwitchedOff => "switched_off",
        EvaluationError::Busy => "busy",
    };
    let outcome = if drops { "dropped" } else { "delivered" };
    metrics::counter!("grapnel_filter_errors_total", "reason" => reason, "outcome" => outcome).increment(1);
}
