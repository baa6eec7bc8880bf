//! What a request that is not taken is answered, and the name by which it is counted.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};

use super::body::BodyError;
use super::commit::CommitError;
use crate::http::RETRY_AFTER_SECONDS;
use crate::http::envelope::{ApiError, ErrorCode};
use crate::http::fallback::method_error;
use grapnel_core::mapping::Malformed;

/// Something that is needed is away, or too much is under way.
pub(super) fn unavailable() -> ApiError {
    ApiError::unavailable(RETRY_AFTER_SECONDS)
}

pub(super) fn not_allowed() -> Response {
    let mut response = method_error().into_response();
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

pub(super) fn not_committed(_: CommitError) -> ApiError {
    unavailable()
}

pub(super) fn unsupported_media_type() -> ApiError {
    ApiError::new(
        ErrorCode::UnsupportedMediaType,
        "The content-type must be application/json or end in +json, or be another that the integration accepts",
    )
}

/// The error names the field.
pub(super) fn malformed(Malformed { field, reason }: Malformed) -> ApiError {
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
