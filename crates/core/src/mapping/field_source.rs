//! The source of an event's field.

use std::borrow::Cow;

use crate::request::Source;
use crate::request::json::Pointer;

/// Where a field is.
#[derive(Debug)]
pub(super) enum FieldSource {
    /// A member of the body that is a text.
    Text(Pointer),
    /// Any value of the request, as a text.
    Value(Source),
    Literal(String),
    /// There is no text: every request is an event.
    Request,
}

impl FieldSource {
    /// Parses a JSON Pointer, a source of a request, `literal:…` or `request`; `None` for any other text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "request" {
            return Some(Self::Request);
        }
        if text.starts_with('/') {
            return Pointer::parse(text).map(Self::Text);
        }
        match text.strip_prefix("literal:") {
            Some(literal) => Some(Self::Literal(literal.to_owned())),
            None => Source::parse(text).map(Self::Value),
        }
    }

    /// The pointer to a member of a JSON body.
    pub(super) fn pointer(&self) -> Option<&Pointer> {
        match self {
            Self::Text(pointer) => Some(pointer),
            Self::Value(source) => source.pointer(),
            Self::Literal(_) | Self::Request => None,
        }
    }

    /// Whether the value is outside the body.
    pub(super) fn is_outside_body(&self) -> bool {
        matches!(self, Self::Value(Source::Header(_) | Source::Query(_)))
    }

    /// The field of the request, as errors name it.
    pub(super) fn field(&self) -> Cow<'_, str> {
        match self {
            Self::Text(pointer) | Self::Value(Source::Json(pointer)) => Cow::Borrowed(&pointer.field),
            Self::Value(source) => Cow::Owned(source.describe()),
            Self::Literal(_) | Self::Request => Cow::Borrowed("body"),
        }
    }
}
