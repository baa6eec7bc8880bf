//! One attempt: the request, and what follows from its outcome.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use super::content::Content;
use super::payload_budget::{BudgetedPayload, LanePayloads};
use super::tokens::{CurrentToken, LaneToken};
use crate::delivery::send::{DeliveryClient, MeasuredOutcome};
use grapnel_core::delivery::outcome::AttemptOutcome;
use grapnel_core::delivery::state::{self, NextState};
use grapnel_core::delivery::target::DeliveryRequest;
use grapnel_core::error_chain::chain;
use grapnel_core::ids::{EventId, ReplayJobId};
use grapnel_core::integration::CompiledDestination;
use grapnel_store::deliveries::{AttemptResult, ClaimedDelivery};

/// The status of a receiver that does not accept a token.
const UNAUTHORIZED: u16 = 401;

/// Sends the delivery once and returns the result to be recorded. The permit is released when the receiver has answered.
pub(super) async fn run(
    mut claimed: ClaimedDelivery,
    destination: &CompiledDestination,
    permit: OwnedSemaphorePermit,
    client: &DeliveryClient,
    payloads: &LanePayloads,
    token: Option<&Arc<LaneToken>>,
) -> AttemptResult {
    let measured = match try_send(&mut claimed, destination, client, payloads, token).await {
        Ok(measured) => measured,
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

/// Sends the delivery, and once more with a new token if the receiver does not accept the one it had. An error says why it
/// cannot be sent now, which is no attempt.
async fn try_send(
    claimed: &mut ClaimedDelivery,
    destination: &CompiledDestination,
    client: &DeliveryClient,
    payloads: &LanePayloads,
    lane_token: Option<&Arc<LaneToken>>,
) -> Result<MeasuredOutcome, String> {
    let token = match lane_token {
        Some(token) => Some(Box::pin(token.get(None)).await?),
        None => None,
    };
    let forms = match &claimed.forms {
        Ok(forms) => *forms,
        // A worker of another version may be able to: the delivery waits, and its lane goes on.
        Err(error) => return Err(format!("the event cannot be read: {}", chain(error))),
    };
    let BudgetedPayload { bytes, share: _until_answered } = payloads.take(claimed).await?;
    let mut content = Content::new(claimed, forms, bytes, &destination.forwarded);
    content.further_headers.extend(replay_header(claimed));
    let measured = send(claimed, &content, destination, client, token.as_ref()).await;
    match (lane_token, token) {
        (Some(lane_token), Some(refused)) if measured.outcome.http_status() == Some(UNAUTHORIZED) => {
            let token = Box::pin(lane_token.get(Some(&refused))).await?;
            Ok(Box::pin(send(claimed, &content, destination, client, Some(&token))).await)
        }
        _ => Ok(measured),
    }
}

/// Returns the header by which a receiver tells the deliveries of a replay.
fn replay_header(claimed: &ClaimedDelivery) -> Option<(HeaderName, HeaderValue)> {
    let job = claimed.replay_request_id.and_then(ReplayJobId::of_delivery)?;
    let value = HeaderValue::from_str(&job.to_string()).ok()?;
    Some((HeaderName::from_static("grapnel-replay-id"), value))
}

async fn send(
    claimed: &ClaimedDelivery,
    content: &Content,
    destination: &CompiledDestination,
    client: &DeliveryClient,
    token: Option<&CurrentToken>,
) -> MeasuredOutcome {
    let traceparent = traceparent(claimed);
    let request = DeliveryRequest {
        target: &destination.target,
        event_id: claimed.event_id,
        event_type: &claimed.event_type,
        external_event_id: claimed.external_event_id.as_deref(),
        attempt: u32::try_from(claimed.attempts).unwrap_or(0).saturating_add(1),
        correlation_id: &claimed.correlation_id,
        traceparent: &traceparent,
        hops: content.hops,
        body: &content.body,
        content_type: content.content_type.as_deref(),
        further_headers: &content.further_headers,
        authorization: token.map(|token| &token.authorization),
        attempted_at: Timestamp::now(),
    };
    client.deliver(&request).await
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
    let unsent_for =
        claimed.unsent_since.map(|since| claimed.started_at.duration_since(since).unsigned_abs());
    let evaluation = state::evaluate(&destination.retry, in_budget, unsent_for, &outcome, jitter);
    AttemptResult {
        event_id: claimed.event_id,
        integration_id: claimed.integration_id,
        destination: destination.name.to_string(),
        lease_id: claimed.lease_id,
        attempt_no: claimed.attempts + 1,
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
