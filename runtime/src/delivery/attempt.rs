//! One attempt: the request, and what its outcome means for the delivery.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use super::payload_budget::{Payload, Payloads};
use crate::delivery::send::{DeliveryClient, Exchange};
use grapnel_core::delivery::outcome::Outcome;
use grapnel_core::delivery::state::{self, NextState};
use grapnel_core::delivery::target::DeliveryRequest;
use grapnel_core::ids::EventId;
use grapnel_core::integration::Destination;
use grapnel_core::payload::{CloudEvent, DeliveredAs, normalized_payload};
use grapnel_platform::queue::consume::Ack;
use grapnel_store::deliveries::{AttemptResult, ClaimedDelivery};

/// A claimed delivery that is about to be sent.
#[derive(Debug)]
pub struct Attempt {
    pub claimed: ClaimedDelivery,
    pub destination: Arc<Destination>,
    pub ack: Ack,
    /// Held while the receiver is at work.
    pub permit: OwnedSemaphorePermit,
}

/// Sends the delivery once and answers the result to be recorded, with the message that it belongs to.
pub async fn run(attempt: Attempt, client: &DeliveryClient, payloads: &Payloads) -> (AttemptResult, Ack) {
    let Attempt { mut claimed, destination, ack, permit } = attempt;
    let exchange = match payloads.take(&mut claimed).await {
        Ok(payload) => send(&claimed, payload, &destination, client).await,
        Err(message) => Exchange { outcome: Outcome::NotSent { message }, duration: Duration::ZERO },
    };
    drop(permit);
    let result = judge(claimed, &destination, exchange, Timestamp::now(), rand::random());
    metrics::counter!("grapnel_attempts_total", "outcome" => outcome_label(&result)).increment(1);
    metrics::histogram!("grapnel_attempt_duration_seconds").record(f64::from(result.duration_ms) / 1000.0);
    (result, ack)
}

async fn send(
    claimed: &ClaimedDelivery,
    payload: Payload,
    destination: &Destination,
    client: &DeliveryClient,
) -> Exchange {
    let Payload { bytes, share: _until_answered } = payload;
    let (body, content_type) = content(claimed, bytes);
    let traceparent = traceparent(claimed);
    let request = DeliveryRequest {
        target: &destination.target,
        event_id: claimed.event_id,
        correlation_id: &claimed.correlation_id,
        traceparent: &traceparent,
        body: &body,
        content_type: content_type.as_deref(),
        attempted_at: Timestamp::now(),
    };
    client.deliver(&request).await
}

/// What is delivered, and its content-type when it is not JSON.
fn content(claimed: &ClaimedDelivery, payload: Vec<u8>) -> (Bytes, Option<String>) {
    let external_event_id = claimed.external_event_id.as_deref();
    let received_type = claimed.headers.as_deref().and_then(content_type_of);
    match (claimed.delivered_as, &claimed.cloud_event) {
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
            let json = event.to_json(claimed.body_form, &payload);
            (json.into(), Some("application/cloudevents+json".to_owned()))
        }
        (DeliveredAs::Normalized | DeliveredAs::CloudEvent, _) => {
            let (key, form) = (&claimed.payload_key, claimed.body_form);
            let (provider, event_type) = (&claimed.provider, &claimed.event_type);
            let json = normalized_payload(provider, event_type, external_event_id, key, form, &payload);
            (json.into(), None)
        }
    }
}

/// The content-type among stored headers.
fn content_type_of(headers: &str) -> Option<String> {
    let pairs: Vec<(String, String)> = serde_json::from_str(headers).ok()?;
    pairs.into_iter().find(|(name, _)| name == "content-type").map(|(_, value)| value)
}

/// The result to be recorded. Pure.
fn judge(
    claimed: ClaimedDelivery,
    destination: &Destination,
    exchange: Exchange,
    now: Timestamp,
    jitter: f64,
) -> AttemptResult {
    let Exchange { outcome, duration } = exchange;
    let in_budget = u32::try_from(claimed.attempts - claimed.budget_start).unwrap_or(0).saturating_add(1);
    let judgement = state::judge(&destination.retry, in_budget, &outcome, now, jitter);
    AttemptResult {
        event_id: claimed.event_id,
        destination: destination.name.to_string(),
        lease_id: claimed.lease_id,
        budget_start: claimed.budget_start,
        replay_request_id: claimed.replay_request_id,
        triggered_by: claimed.triggered_by,
        scheduled_at: claimed.queued_at,
        started_at: claimed.started_at,
        next: judgement.next,
        next_if_replayed: judgement.next_if_replayed,
        counts: judgement.counts,
        http_status: outcome.http_status(),
        response_body: outcome.response_body().map(str::to_owned),
        error_message: judgement.error_message,
        duration_ms: u32::try_from(duration.as_millis()).unwrap_or(u32::MAX),
    }
}

fn outcome_label(result: &AttemptResult) -> &'static str {
    match (result.counts, result.next) {
        (false, _) => "not_sent",
        (true, NextState::Succeeded) => "succeeded",
        (true, NextState::RetryAt(_)) => "retrying",
        (true, NextState::Failed) => "failed",
    }
}

/// The trace of the provider's request, continued; or one of the event's own, whose trace id is the event's id.
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
