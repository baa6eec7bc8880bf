//! The answer to a request whose events are stored: Grapnel's own, unless the provider insists on another.

use axum::response::Response;
use grapnel_core::ids::EventId;
use http::{StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::commit::StoredEvent;
use super::one_or_more::OneOrMore;
use crate::http::envelope::success;
use grapnel_core::integration::CompiledIntegration;

/// `data` of an accepted webhook: of a 202, and of the 200 of a duplicate.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookAccepted<'a> {
    /// The event; of a duplicate, the first one. Of several events the first new one, or the first if there is none.
    #[schema(value_type = uuid::Uuid)]
    event_id: EventId,
    status: WebhookStatus,
    /// Whether every event is a duplicate.
    duplicate: bool,
    correlation_id: &'a str,
    /// The events of a request whose body is split, in the order of the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<AcceptedEvent>>,
}

/// One event of a request whose body is split.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AcceptedEvent {
    /// The event; of a duplicate, the first one.
    #[schema(value_type = uuid::Uuid)]
    event_id: EventId,
    duplicate: bool,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum WebhookStatus {
    Queued,
    Duplicate,
}

pub(super) fn acknowledge(
    integration: &CompiledIntegration,
    events: &OneOrMore<StoredEvent>,
    is_split: bool,
    correlation_id: &str,
) -> Response {
    let duplicate = events.iter().all(|event| event.duplicate);
    let wanted = &integration.compiled.acknowledgement;
    let mut response = match &wanted.body {
        Some((content_type, body)) => {
            let mut response = Response::new(body.to_string().into());
            *response.status_mut() = if duplicate { StatusCode::OK } else { StatusCode::ACCEPTED };
            response.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
            response
        }
        None if wanted.status == Some(StatusCode::NO_CONTENT) => Response::new(axum::body::Body::empty()),
        None => accepted(events, is_split, correlation_id),
    };
    if let Some(status) = wanted.status {
        *response.status_mut() = status;
    }
    response
}

fn accepted(events: &OneOrMore<StoredEvent>, is_split: bool, correlation_id: &str) -> Response {
    let new = events.iter().find(|event| !event.duplicate);
    let (code, status) = match new {
        Some(_) => (StatusCode::ACCEPTED, WebhookStatus::Queued),
        None => (StatusCode::OK, WebhookStatus::Duplicate),
    };
    let accepted = |event: &StoredEvent| AcceptedEvent { event_id: event.id, duplicate: event.duplicate };
    let answer = WebhookAccepted {
        event_id: new.unwrap_or(&events.first).id,
        status,
        duplicate: new.is_none(),
        correlation_id,
        events: is_split.then(|| events.iter().map(accepted).collect()),
    };
    success(code, &answer)
}
