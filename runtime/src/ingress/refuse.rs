//! What a request that is not taken is answered, and the name by which it is counted.

use axum::response::Response;
use http::{HeaderValue, header};

use super::body::BodyError;
use super::commit::NotCommitted;
use crate::http::envelope::{ApiError, ErrorCode};
use crate::management;
use grapnel_core::mapping::InvalidEvent;

/// What a provider is asked to wait when we cannot accept.
const RETRY_AFTER_SECONDS: u64 = 5;

/// Something that is needed is away, or too much is under way.
pub(super) fn unavailable() -> ApiError {
    ApiError::unavailable(RETRY_AFTER_SECONDS)
}

pub(super) async fn not_allowed() -> Response {
    let mut response = management::method_not_allowed().await;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

pub(super) fn body_refused(error: BodyError) -> ApiError {
    match error {
        BodyError::TooLarge => ApiError::new(ErrorCode::PayloadTooLarge, error.to_string()),
        BodyError::TooSlow | BodyError::Broken => ApiError::invalid("body", error.to_string()),
        BodyError::Overloaded => unavailable(),
    }
}

pub(super) fn not_committed(refused: NotCommitted) -> ApiError {
    if refused == NotCommitted::Overloaded {
        metrics::counter!("grapnel_ingest_overloaded_total").increment(1);
    }
    unavailable()
}

pub(super) fn unsupported_media_type() -> ApiError {
    ApiError::new(
        ErrorCode::UnsupportedMediaType,
        "The content-type must be application/json or end in +json, or be another that the integration accepts",
    )
}

/// The error names the field.
pub(super) fn malformed(InvalidEvent { field, reason }: InvalidEvent) -> ApiError {
    ApiError::invalid(&field, reason)
}

/// The outcome that the metric has.
pub(super) fn outcome_label(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::ValidationError => "malformed",
        ErrorCode::Unauthorized => "unauthorized",
        ErrorCode::NotFound => "unknown_route",
        ErrorCode::PayloadTooLarge => "too_large",
        ErrorCode::UnsupportedMediaType => "unsupported_media_type",
        ErrorCode::RateLimited => "rate_limited",
        ErrorCode::DependencyUnavailable => "unavailable",
        ErrorCode::MethodNotAllowed | ErrorCode::Conflict | ErrorCode::InternalServerError => "error",
    }
}
