//! Answers requests that no route handles.

use axum::response::{IntoResponse, Response};

use super::envelope::{ApiError, ErrorCode};

/// Answers a request to an unknown path.
pub(crate) async fn not_found() -> Response {
    ApiError::new(ErrorCode::NotFound, "There is nothing at this path").into_response()
}

/// Answers a request whose method the path does not support; the router adds `Allow`.
pub(crate) async fn method_not_allowed() -> Response {
    method_error().into_response()
}

/// The error of a method that the path does not support.
pub(crate) fn method_error() -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, "The path does not have this method")
}
