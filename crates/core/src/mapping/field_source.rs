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
    /// Any value of an element of a request that is split, as a text; or all of the element.
    Element(Pointer),
    Literal(String),
    /// There is no text: every request, or every element of it, is an event.
    Request,
}

impl FieldSource {
    /// Parses a JSON Pointer, a source of a request, `element:…`, `literal:…` or `request`; `None` for any other text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "request" {
            return Some(Self::Request);
        }
        if text.starts_with('/') {
            return Pointer::parse(text).map(Self::Text);
        }
        if let Some(pointer) = text.strip_prefix("element:") {
            return Pointer::parse(pointer).map(Self::Element);
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
            Self::Element(_) | Self::Literal(_) | Self::Request => None,
        }
    }

    /// The pointer to a member of an element.
    pub(super) fn element_pointer(&self) -> Option<&Pointer> {
        match self {
            Self::Element(pointer) => Some(pointer),
            Self::Text(_) | Self::Value(_) | Self::Literal(_) | Self::Request => None,
        }
    }

    /// Whether the value is outside the body.
    pub(super) fn is_outside_body(&self) -> bool {
        matches!(self, Self::Value(Source::Header(_) | Source::Query(_)))
    }

    /// Whether the value is outside the element, but not the same for all events.
    pub(super) fn is_outside_element(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Value(_))
    }

    /// The field of the request, as errors name it.
    pub(super) fn field(&self) -> Cow<'_, str> {
        match self {
            Self::Text(pointer) | Self::Value(Source::Json(pointer)) | Self::Element(pointer) => {
                Cow::Borrowed(&pointer.field)
            }
            Self::Value(source) => Cow::Owned(source.describe()),
            Self::Literal(_) | Self::Request => Cow::Borrowed("body"),
        }
    }
}
