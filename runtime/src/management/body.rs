//! Small JSON bodies, bounded in size and time.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::LengthLimitError;
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::http::envelope::{ApiError, ErrorCode};
use grapnel_core::request::content_type::ContentType;

/// The time after the headers within which the body must arrive.
const DEADLINE: Duration = Duration::from_secs(10);

/// Reads at most `limit` bytes. A body whose content-length is larger is not read at all.
pub(crate) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limit as u64) {
        return Err(too_large(limit));
    }
    match timeout(DEADLINE, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_large(&error) => Err(too_large(limit)),
        Ok(Err(_broken)) => Err(ApiError::invalid("body", "ended before it was complete")),
        Err(_elapsed) => Err(ApiError::invalid("body", "did not arrive in time")),
    }
}

/// Reads the bytes of a request whose body is JSON, at most `limit`.
pub(super) async fn read_json(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    check_media_type(headers)?;
    read(headers, body, limit).await
}

/// Reads a JSON object.
pub(super) fn members(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::invalid("body", format!("must be a JSON object ({error})")))
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(ErrorCode::PayloadTooLarge, format!("The body has more than {limit} bytes"))
}

fn is_too_large(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<LengthLimitError>())
}

/// Refuses a body whose content type is not JSON. A missing type counts as JSON.
fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    if ContentType::of(headers).is_json() {
        return Ok(());
    }
    let message = "The content-type must be application/json or end in +json";
    Err(ApiError::new(ErrorCode::UnsupportedMediaType, message))
}

/// Removes and returns the text of a member, which must have `min` to `max` characters.
pub(super) fn text(
    members: &mut Map<String, Value>,
    name: &str,
    min: usize,
    max: usize,
) -> Result<Option<String>, ApiError> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) if !(min..=max).contains(&text.chars().count()) => {
            Err(ApiError::invalid(name, format!("must have {min} to {max} characters")))
        }
        Some(Value::String(text)) if text.contains('\0') => {
            Err(ApiError::invalid(name, "must not contain U+0000"))
        }
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ApiError::invalid(name, "must be a string")),
    }
}
