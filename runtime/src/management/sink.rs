//! `POST /internal/delivery-sink/{provider}`: a destination for demonstrations and tests. It requires no key, so it is not
//! routed in production.

use std::collections::BTreeMap;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::body;
use crate::http::envelope::{ApiError, Envelope, ErrorEnvelope, success};

/// A normalized payload may be a little longer than the largest body that is accepted.
const MAX_BODY_BYTES: usize = 11 * 1024 * 1024;

/// `data` of a delivery that the sink accepted.
#[derive(Debug, Serialize, ToSchema)]
struct Delivered {
    provider: String,
    status: &'static str,
}

/// Accept a delivery
///
/// Answers 500 when the payload, or `data` in it, has `"simulateFailure": true`. Not available in production.
#[utoipa::path(
    post, path = "/internal/delivery-sink/{provider}", tag = "Development", operation_id = "deliverToSink",
    params(("provider" = String, Path, description = "Any name; the answer repeats it")),
    request_body(content = Option<serde_json::Value>, description = "Anything of at most 11 MiB"),
    responses(
        (status = 202, description = "Accepted", body = Envelope<Delivered>),
        (status = 413, description = "The body is too large", body = ErrorEnvelope),
    ),
)]
pub(super) async fn deliver(
    provider: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let Path(provider) = provider.map_err(|_| ApiError::invalid("provider", "is not UTF-8"))?;
    let (parts, stream) = request.into_parts();
    let bytes = body::read(&parts.headers, stream, MAX_BODY_BYTES).await?;
    if simulates_failure(&bytes) {
        return Err(ApiError::internal());
    }
    Ok(success(StatusCode::ACCEPTED, &Delivered { provider, status: "accepted" }))
}

fn simulates_failure(body: &[u8]) -> bool {
    let Some(payload) = members(body) else { return false };
    let data = payload.get("data").and_then(|data| members(data.get().as_bytes()));
    asks_for_failure(&payload) || data.as_ref().is_some_and(asks_for_failure)
}

type SinkFields<'a> = BTreeMap<String, &'a RawValue>;

/// The members of a JSON object; `None` for anything else.
fn members(json: &[u8]) -> Option<SinkFields<'_>> {
    serde_json::from_slice(json).ok()
}

fn asks_for_failure(payload: &SinkFields<'_>) -> bool {
    payload.get("simulateFailure").is_some_and(|value| value.get() == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_is_simulated_on_request() {
        for failing in [
            r#"{"simulateFailure":true}"#,
            r#"{"provider":"acme","data":{"id":"1","simulateFailure": true}}"#,
            r#"{"simulateFailure":true,"data":7}"#,
        ] {
            assert!(simulates_failure(failing.as_bytes()), "{failing}");
        }
        for fine in [
            "",
            "null",
            "[true, {}]",
            "not json",
            r#"{"simulateFailure":false}"#,
            r#"{"simulateFailure":"true"}"#,
            r#"{"simulateFailure":null,"data":null}"#,
            r#"{"data":{"data":{"simulateFailure":true}}}"#,
            r#"{"resource":{"simulateFailure":true}}"#,
        ] {
            assert!(!simulates_failure(fine.as_bytes()), "{fine}");
        }
    }
}
