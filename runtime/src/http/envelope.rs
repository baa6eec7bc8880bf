//! The envelope of every answer on the public port, and the errors that a client sees.
//!
//! Success is `{"success":true,"data":…,"meta":{}}`, an error is `{"success":false,"error":{"code","message","details":{}}}`;
//! `meta` and `details` are always objects. A 5xx message is a constant: the cause is logged where it is handled, and
//! never sent to a client.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// The stable, machine-readable codes of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    ValidationError,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    PayloadTooLarge,
    UnsupportedMediaType,
    RateLimited,
    DependencyUnavailable,
    InternalServerError,
}

impl ErrorCode {
    /// The HTTP status that always goes with the code.
    pub fn status(self) -> StatusCode {
        match self {
            Self::ValidationError => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::DependencyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// An error as a client sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    code: ErrorCode,
    message: String,
    details: Map<String, Value>,
    retry_after_seconds: Option<u64>,
}

impl ApiError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Map::new(), retry_after_seconds: None }
    }

    /// Makes a 400 that names the invalid field (or query parameter, or header).
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let mut details = Map::new();
        details.insert("field".to_owned(), json!(field));
        details.insert("reason".to_owned(), json!(message));
        Self {
            code: ErrorCode::ValidationError,
            message: format!("{field}: {message}"),
            details,
            retry_after_seconds: None,
        }
    }

    /// Makes a 500. The message is a constant; the cause is only logged.
    pub fn internal() -> Self {
        Self::new(ErrorCode::InternalServerError, "Internal server error")
    }

    /// Makes a 503 with the time after which to try again.
    pub fn unavailable(retry_after_seconds: u64) -> Self {
        Self::new(ErrorCode::DependencyUnavailable, "The service is temporarily unavailable")
            .retry_after(retry_after_seconds)
    }

    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Returns what is wrong, for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the field that is invalid, where it is one.
    pub fn field(&self) -> Option<&str> {
        self.details.get("field").and_then(Value::as_str)
    }
}

/// The envelope of an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorEnvelope {
    pub success: Always<false>,
    pub error: ErrorBody,
}

/// The error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    pub code: ErrorCode,
    /// For people; it may change.
    pub message: String,
    /// For a `VALIDATION_ERROR`: the invalid `field` and the `reason`.
    pub details: Map<String, Value>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = ErrorBody { code: self.code, message: self.message, details: self.details };
        let body = serde_json::to_string(&ErrorEnvelope { success: Always, error });
        let mut response = json_response(self.code.status(), body.expect("an error serializes"));
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The envelope of a success.
#[derive(Debug, Serialize, ToSchema)]
pub struct Envelope<D, M = NoMeta> {
    pub success: Always<true>,
    pub data: D,
    pub meta: M,
}

/// `meta` of an answer without any: `{}`.
#[derive(Debug, Serialize, ToSchema)]
pub struct NoMeta {}

/// A boolean that always has the same value, in answers and in their schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Always<const VALUE: bool>;

impl<const VALUE: bool> Serialize for Always<VALUE> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(VALUE)
    }
}

impl<const VALUE: bool> PartialSchema for Always<VALUE> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([VALUE])).into()
    }
}

impl<const VALUE: bool> ToSchema for Always<VALUE> {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed(if VALUE { "AlwaysTrue" } else { "AlwaysFalse" })
    }
}

/// Makes a `{"success":true,"data":…,"meta":{}}` with the given status.
pub fn success(status: StatusCode, data: &impl Serialize) -> Response {
    success_with_meta(status, data, &NoMeta {})
}

/// Makes a success with a `meta`, which must serialize to an object.
pub fn success_with_meta(status: StatusCode, data: &impl Serialize, meta: &impl Serialize) -> Response {
    match serde_json::to_string(&Envelope { success: Always::<true>, data, meta }) {
        Ok(body) => json_response(status, body),
        Err(error) => {
            tracing::error!(%error, "answer could not be serialized");
            ApiError::internal().into_response()
        }
    }
}

fn json_response(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}
