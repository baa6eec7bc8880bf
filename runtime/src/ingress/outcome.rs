//! The outcomes of a request to a webhook route: the response to each, and the label by which it is counted.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use grapnel_core::delivery::hops::{CDN_LOOP, MAX_HOPS};
use grapnel_core::integration::CompiledIntegration;
use grapnel_core::mapping::{InvalidEvent, SplitError};
use grapnel_core::request::content_coding::UnsupportedCoding;
use grapnel_core::request::json::TooManyElements;
use grapnel_core::verification::VerifyError;
use http::{HeaderValue, header};

use super::acknowledgement::acknowledge;
use super::body::BodyError;
use super::commit::StoredEvent;
use super::one_or_more::OneOrMore;
use crate::http::RETRY_AFTER_SECONDS;
use crate::http::envelope::{ApiError, ErrorCode};
use crate::http::fallback::method_error;
use crate::rate_limit::RateLimited;

/// The outcome of a request that was served.
#[derive(Debug)]
pub(super) enum WebhookOutcome {
    /// The events are committed, or were committed earlier.
    Stored {
        integration: Arc<CompiledIntegration>,
        /// In the order of the document.
        events: OneOrMore<StoredEvent>,
        /// Whether each is an element of the body.
        is_split: bool,
    },
    /// A handshake, which is not an event.
    Handshake(Response),
}

/// A reason to refuse a request.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Neither a webhook nor a handshake has this method; those that webhooks have.
    WrongMethod(HeaderValue),
    UnknownRoute,
    RateLimited(RateLimited),
    /// Grapnel has delivered it too often already.
    Loop,
    UnsupportedCoding(UnsupportedCoding),
    Body(BodyError),
    NotVerified(VerifyError),
    /// A handshake that cannot be answered, with the reason.
    InvalidHandshake(&'static str),
    UnsupportedMediaType,
    TooManyEvents(TooManyElements),
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
            Self::Stored { events, .. } if events.iter().all(|event| event.duplicate) => "duplicate",
            Self::Stored { .. } => "accepted",
            Self::Handshake(_) => "handshake",
        }
    }

    /// Returns the response to the provider.
    pub(super) fn into_response(self, correlation_id: &str) -> Response {
        match self {
            Self::Stored { integration, events, is_split } => {
                acknowledge(&integration, &events, is_split, correlation_id)
            }
            Self::Handshake(response) => response,
        }
    }
}

impl Refusal {
    pub(super) fn of_split(error: SplitError) -> Self {
        match error {
            SplitError::Invalid(invalid) => Self::InvalidEvent(invalid),
            SplitError::TooMany(too_many) => Self::TooManyEvents(too_many),
        }
    }

    /// Returns the value of the metric's label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::WrongMethod(_) => "error",
            Self::UnknownRoute => "unknown_route",
            Self::RateLimited(_) => "rate_limited",
            Self::Loop => "loop",
            Self::Body(BodyError::TooLarge) | Self::TooManyEvents(_) => "too_large",
            Self::NotVerified(_) => "unauthorized",
            Self::UnsupportedCoding(_) | Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Body(BodyError::TooSlow | BodyError::Broken | BodyError::NotDecodable)
            | Self::InvalidHandshake(_)
            | Self::InvalidEvent(_) => "malformed",
            Self::Body(BodyError::Overloaded) | Self::Unavailable => "unavailable",
        }
    }

    /// Returns why, for the operators of the integration. It names fields and headers, and has no value of the request.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::WrongMethod(_) => "the path does not have this method".to_owned(),
            Self::UnknownRoute => "there is no active integration at this route".to_owned(),
            Self::RateLimited(RateLimited { per_minute, .. }) => {
                format!("more than {per_minute} requests in a minute from this client")
            }
            Self::Loop => {
                format!("it was delivered more than {MAX_HOPS} times: a destination leads back here")
            }
            Self::UnsupportedCoding(_) => "the content-encoding is not supported".to_owned(),
            Self::Body(error) => error.to_string(),
            Self::NotVerified(error) => error.to_string(),
            Self::InvalidHandshake(reason) => (*reason).to_owned(),
            Self::UnsupportedMediaType => {
                "the content-type is not one that the integration accepts".to_owned()
            }
            Self::TooManyEvents(error) => error.to_string(),
            // The reason may repeat what was there.
            Self::InvalidEvent(InvalidEvent { field, .. }) => format!("{field} is missing or invalid"),
            Self::Unavailable => "a dependency is unavailable, or the process is overloaded".to_owned(),
        }
    }

    fn into_error(self) -> ApiError {
        match self {
            Self::WrongMethod(_) => method_error(),
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
            Self::UnsupportedCoding(error) => {
                ApiError::new(ErrorCode::UnsupportedMediaType, error.to_string())
            }
            Self::Body(error @ BodyError::TooLarge) => {
                ApiError::new(ErrorCode::PayloadTooLarge, error.to_string())
            }
            Self::TooManyEvents(error) => ApiError::new(ErrorCode::PayloadTooLarge, error.to_string()),
            Self::Body(error @ (BodyError::TooSlow | BodyError::Broken | BodyError::NotDecodable)) => {
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
        let further = match &self {
            Self::WrongMethod(allowed) => Some((header::ALLOW, allowed.clone())),
            Self::UnsupportedCoding(_) => {
                Some((header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate")))
            }
            _ => None,
        };
        let mut response = self.into_error().into_response();
        if let Some((name, value)) = further {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
