//! The answer to a stored event: Grapnel's own, unless the provider insists on another.

use axum::response::Response;
use grapnel_core::ids::EventId;
use http::{StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::envelope::success;
use grapnel_core::integration::CompiledIntegration;

/// `data` of an accepted webhook: of a 202, and of the 200 of a duplicate.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookAccepted<'a> {
    /// The event; of a duplicate, the first one.
    #[schema(value_type = uuid::Uuid)]
    event_id: EventId,
    status: WebhookStatus,
    duplicate: bool,
    correlation_id: &'a str,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum WebhookStatus {
    Queued,
    Duplicate,
}

/// A duplicate is answered with the id of the first.
pub(super) fn acknowledge(
    integration: &CompiledIntegration,
    id: EventId,
    duplicate: bool,
    correlation_id: &str,
) -> Response {
    let wanted = &integration.compiled.acknowledgement;
    let mut response = match &wanted.body {
        Some((content_type, body)) => {
            let mut response = Response::new(body.to_string().into());
            *response.status_mut() = if duplicate { StatusCode::OK } else { StatusCode::ACCEPTED };
            response.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
            response
        }
        None if wanted.status == Some(StatusCode::NO_CONTENT) => Response::new(axum::body::Body::empty()),
        None => accepted(id, duplicate, correlation_id),
    };
    if let Some(status) = wanted.status {
        *response.status_mut() = status;
    }
    response
}

fn accepted(event_id: EventId, duplicate: bool, correlation_id: &str) -> Response {
    let (code, status) = if duplicate {
        (StatusCode::OK, WebhookStatus::Duplicate)
    } else {
        (StatusCode::ACCEPTED, WebhookStatus::Queued)
    };
    success(code, &WebhookAccepted { event_id, status, duplicate, correlation_id })
}
