//! The outcomes of a request to a webhook route: the response to each, and the label by which it is counted.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use grapnel_core::delivery::hops::{CDN_LOOP, MAX_HOPS};
use grapnel_core::ids::EventId;
use grapnel_core::integration::CompiledIntegration;
use grapnel_core::mapping::InvalidEvent;
use grapnel_core::verification::VerifyError;
use http::{HeaderValue, header};

use super::acknowledgement::acknowledge;
use super::body::BodyError;
use crate::http::RETRY_AFTER_SECONDS;
use crate::http::envelope::{ApiError, ErrorCode};
use crate::http::fallback::method_error;
use crate::rate_limit::RateLimited;

/// The outcome of a request that was served.
#[derive(Debug)]
pub(super) enum WebhookOutcome {
    /// The event is committed.
    Accepted { integration: Arc<CompiledIntegration>, event_id: EventId },
    /// The same event was committed earlier, under this id.
    Duplicate { integration: Arc<CompiledIntegration>, event_id: EventId },
    /// A handshake, which is not an event.
    Handshake(Response),
}

/// A reason to refuse a request.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Neither a webhook nor a handshake has this method.
    WrongMethod,
    UnknownRoute,
    RateLimited(RateLimited),
    /// Grapnel has delivered it too often already.
    Loop,
    Body(BodyError),
    NotVerified(VerifyError),
    /// A handshake that cannot be answered, with the reason.
    InvalidHandshake(&'static str),
    UnsupportedMediaType,
    InvalidEvent(InvalidEvent),
    /// A dependency is unavailable, or the process is overloaded.
    Unavailable,
}

impl From<RateLimited> for Refusal {
    fn from(limited: RateLimited) -> Self {
        Self::RateLimited(limited)
    }
}

impl WebhookOutcome {
    /// Returns the value of the metric's label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::Duplicate { .. } => "duplicate",
            Self::Handshake(_) => "handshake",
        }
    }

    /// Returns the response to the provider.
    pub(super) fn into_response(self, correlation_id: &str) -> Response {
        match self {
            Self::Accepted { integration, event_id } => {
                acknowledge(&integration, event_id, false, correlation_id)
            }
            Self::Duplicate { integration, event_id } => {
                acknowledge(&integration, event_id, true, correlation_id)
            }
            Self::Handshake(response) => response,
        }
    }
}

impl Refusal {
    /// Returns the value of the metric's label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::WrongMethod => "error",
            Self::UnknownRoute => "unknown_route",
            Self::RateLimited(_) => "rate_limited",
            Self::Loop => "loop",
            Self::Body(BodyError::TooLarge) => "too_large",
            Self::NotVerified(_) => "unauthorized",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Body(BodyError::TooSlow | BodyError::Broken)
            | Self::InvalidHandshake(_)
            | Self::InvalidEvent(_) => "malformed",
            Self::Body(BodyError::Overloaded) | Self::Unavailable => "unavailable",
        }
    }

    fn into_error(self) -> ApiError {
        match self {
            Self::WrongMethod => method_error(),
            Self::UnknownRoute => {
                ApiError::new(ErrorCode::NotFound, "There is no active integration at this route")
            }
            Self::RateLimited(RateLimited { per_minute, retry_after_seconds }) => {
                let message = format!("More than {per_minute} requests in a minute");
                ApiError::new(ErrorCode::RateLimited, message).retry_after(retry_after_seconds)
            }
            Self::Loop => ApiError::invalid(
                CDN_LOOP.as_str(),
                format!(
                    "Grapnel has delivered this more than {MAX_HOPS} times: a destination leads back to its route"
                ),
            ),
            Self::Body(error @ BodyError::TooLarge) => {
                ApiError::new(ErrorCode::PayloadTooLarge, error.to_string())
            }
            Self::Body(error @ (BodyError::TooSlow | BodyError::Broken)) => {
                ApiError::invalid("body", error.to_string())
            }
            Self::NotVerified(error) => ApiError::new(ErrorCode::Unauthorized, error.public_message()),
            Self::InvalidHandshake(reason) => ApiError::invalid("body", reason),
            Self::UnsupportedMediaType => ApiError::new(
                ErrorCode::UnsupportedMediaType,
                "The content-type must be application/json, end in +json, or be another that the integration accepts",
            ),
            // The error names the field.
            Self::InvalidEvent(InvalidEvent { field, reason }) => ApiError::invalid(&field, reason),
            Self::Body(BodyError::Overloaded) | Self::Unavailable => {
                ApiError::unavailable(RETRY_AFTER_SECONDS)
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let is_wrong_method = matches!(self, Self::WrongMethod);
        let mut response = self.into_error().into_response();
        if is_wrong_method {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}
