//! One attempt: the request, and what follows from its outcome.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use super::payload_budget::{BudgetedPayload, LanePayloads};
use crate::delivery::send::{DeliveryClient, MeasuredOutcome};
use grapnel_core::delivery::hops::{self, CDN_LOOP};
use grapnel_core::delivery::outcome::AttemptOutcome;
use grapnel_core::delivery::state::{self, NextState};
use grapnel_core::delivery::target::DeliveryRequest;
use grapnel_core::error_chain::chain;
use grapnel_core::ids::EventId;
use grapnel_core::integration::CompiledDestination;
use grapnel_core::payload::{BodyForm, CloudEvent, DeliveredAs, normalized_payload};
use grapnel_store::deliveries::{AttemptResult, ClaimedDelivery};

/// Sends the delivery once and returns the result to be recorded. The permit is released when the receiver has answered.
pub(super) async fn run(
    mut claimed: ClaimedDelivery,
    destination: &CompiledDestination,
    permit: OwnedSemaphorePermit,
    client: &DeliveryClient,
    payloads: &LanePayloads,
) -> AttemptResult {
    let measured = match prepare(&mut claimed, payloads).await {
        Ok((payload, forms)) => send(&claimed, payload, forms, destination, client).await,
        Err(message) => {
            MeasuredOutcome { outcome: AttemptOutcome::NotSent { message }, duration: Duration::ZERO }
        }
    };
    drop(permit);
    let result = result_of(claimed, destination, measured, rand::random());
    metrics::counter!("grapnel_attempts_total", "outcome" => outcome_label(&result)).increment(1);
    metrics::histogram!("grapnel_attempt_duration_seconds").record(f64::from(result.duration_ms) / 1000.0);
    result
}

/// Returns what is to be sent, or why it cannot be now. A worker of another version may be able to: the delivery waits, and its
/// lane goes on.
async fn prepare(
    claimed: &mut ClaimedDelivery,
    payloads: &LanePayloads,
) -> Result<(BudgetedPayload, (BodyForm, DeliveredAs)), String> {
    let forms = match &claimed.forms {
        Ok(forms) => *forms,
        Err(error) => return Err(format!("the event cannot be read: {}", chain(error))),
    };
    Ok((payloads.take(claimed).await?, forms))
}

async fn send(
    claimed: &ClaimedDelivery,
    payload: BudgetedPayload,
    forms: (BodyForm, DeliveredAs),
    destination: &CompiledDestination,
    client: &DeliveryClient,
) -> MeasuredOutcome {
    let BudgetedPayload { bytes, share: _until_answered } = payload;
    let headers = claimed.headers.as_deref().map(stored_headers).unwrap_or_default();
    let (body, content_type) = content(claimed, forms, bytes, &headers);
    let traceparent = traceparent(claimed);
    let request = DeliveryRequest {
        target: &destination.target,
        event_id: claimed.event_id,
        correlation_id: &claimed.correlation_id,
        traceparent: &traceparent,
        hops: hops::count(values_of(&headers, CDN_LOOP.as_str()).map(str::as_bytes)),
        body: &body,
        content_type: content_type.as_deref(),
        attempted_at: Timestamp::now(),
    };
    client.deliver(&request).await
}

/// Returns the body to deliver, and its content-type if it is not JSON.
fn content(
    claimed: &ClaimedDelivery,
    (form, delivered_as): (BodyForm, DeliveredAs),
    payload: Vec<u8>,
    headers: &[(String, String)],
) -> (Bytes, Option<String>) {
    let external_event_id = claimed.external_event_id.as_deref();
    let received_type = values_of(headers, CONTENT_TYPE.as_str()).next().map(str::to_owned);
    match (delivered_as, &claimed.cloud_event) {
        (DeliveredAs::Raw, _) => (payload.into(), received_type),
        (DeliveredAs::CloudEvent, Some(fields)) => {
            let event = CloudEvent {
                id: claimed.event_id.uuid(),
                integration_id: fields.integration_id.uuid(),
                provider: &claimed.provider,
                event_type: &claimed.event_type,
                external_event_id,
                subject: fields.subject.as_deref(),
                occurred_at: fields.occurred_at,
                content_type: received_type.as_deref(),
            };
            let json = event.to_json(form, &payload);
            (json.into(), Some("application/cloudevents+json".to_owned()))
        }
        (DeliveredAs::Normalized | DeliveredAs::CloudEvent, _) => {
            let (provider, event_type) = (&claimed.provider, &claimed.event_type);
            let key = &claimed.payload_key;
            let json = normalized_payload(provider, event_type, external_event_id, key, form, &payload);
            (json.into(), None)
        }
    }
}

/// Reads the headers of the webhook as they are stored.
fn stored_headers(json: &str) -> Vec<(String, String)> {
    serde_json::from_str(json).unwrap_or_default()
}

fn values_of<'a>(headers: &'a [(String, String)], name: &str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(header, _)| header == name).map(|(_, value)| value.as_str())
}

/// Returns the result to be recorded. Pure.
fn result_of(
    claimed: ClaimedDelivery,
    destination: &CompiledDestination,
    measured: MeasuredOutcome,
    jitter: f64,
) -> AttemptResult {
    let MeasuredOutcome { outcome, duration } = measured;
    let in_budget = u32::try_from(claimed.attempts - claimed.budget_start).unwrap_or(0).saturating_add(1);
    let evaluation = state::evaluate(&destination.retry, in_budget, &outcome, jitter);
    AttemptResult {
        event_id: claimed.event_id,
        destination: destination.name.to_string(),
        lease_id: claimed.lease_id,
        budget_start: claimed.budget_start,
        replay_request_id: claimed.replay_request_id,
        triggered_by: claimed.triggered_by,
        scheduled_at: claimed.queued_at,
        started_at: claimed.started_at,
        next: evaluation.next,
        next_if_replayed: evaluation.next_if_replayed,
        counts: evaluation.counts,
        http_status: outcome.http_status(),
        response_body: outcome.response_body().map(str::to_owned),
        error_message: evaluation.error_message,
        duration_ms: u32::try_from(duration.as_millis()).unwrap_or(u32::MAX),
    }
}

fn outcome_label(result: &AttemptResult) -> &'static str {
    match (result.counts, result.next) {
        (false, _) => "not_sent",
        (true, NextState::Succeeded) => "succeeded",
        (true, NextState::RetryAfter(_)) => "retrying",
        (true, NextState::Failed) => "failed",
    }
}

/// Continues the trace of the provider's request, or starts one whose trace id is the event's id.
fn traceparent(claimed: &ClaimedDelivery) -> String {
    let parent_id: u64 = rand::random_range(1..=u64::MAX);
    let (trace_id, flags) =
        match claimed.traceparent.as_deref().map(|text| (text.get(3..35), text.get(53..55))) {
            Some((Some(trace_id), Some(flags))) => (trace_id.to_owned(), flags),
            _ => (simple(claimed.event_id), "00"),
        };
    let mut text = String::with_capacity(55);
    // Writing to a String cannot fail.
    let _written = write!(text, "00-{trace_id}-{parent_id:016x}-{flags}");
    text
}

fn simple(id: EventId) -> String {
    id.uuid().simple().to_string()
}
