//! Reads the texts of fields from one request.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::InvalidEvent;
use super::field_source::FieldSource;
use crate::request::json::{self, FoundValues, Omitted, Pointer};
use crate::request::{IncomingRequest, Source};

/// The longest text that becomes a field of an event, in bytes.
const MAX_TEXT_BYTES: usize = 512;

pub(super) struct FieldReader<'r, 'a> {
    pub(super) request: &'r IncomingRequest<'a>,
    /// The values of a JSON body.
    pub(super) json: Option<&'r FoundValues<'a>>,
    /// The element that is read, if the request is split.
    pub(super) element: Option<&'r ElementValues<'a>>,
}

/// An element and the values that are looked up in it.
pub(super) struct ElementValues<'a> {
    pub(super) text: &'a str,
    pub(super) found: FoundValues<'a>,
    /// What all of the element is without.
    pub(super) attempt_fields: &'a Omitted,
}

/// A text of the request, and where it was.
pub(super) struct FoundText<'s> {
    pub(super) text: Cow<'s, str>,
    pub(super) source: &'s FieldSource,
}

impl FieldReader<'_, '_> {
    /// Returns the text of the first source that has one. A required field must have one: the error is about the first source
    /// that is present without a text, or else about the first source.
    pub(super) fn first_text<'s>(
        &'s self,
        sources: &'s [FieldSource],
        required: bool,
    ) -> Result<Option<FoundText<'s>>, InvalidEvent> {
        let mut problem = None;
        for source in sources {
            match self.text(source) {
                Ok(Some(text)) => return Ok(Some(FoundText { text, source })),
                Ok(None) => {}
                Err(reason) => problem = problem.or(Some((source, reason))),
            }
        }
        match (required, problem, sources.first()) {
            (true, Some((source, reason)), _) => Err(InvalidEvent::new(&source.field(), reason)),
            (true, None, Some(source)) => Err(InvalidEvent::new(&source.field(), "is required")),
            (true, None, None) | (false, _, _) => Ok(None),
        }
    }

    /// Returns the text, if any; the error is the reason why a value that is present is not a text.
    fn text<'s>(&'s self, source: &'s FieldSource) -> Result<Option<Cow<'s, str>>, &'static str> {
        let text = match source {
            FieldSource::Literal(text) => Some(Cow::Borrowed(text.as_str())),
            FieldSource::Request => None,
            FieldSource::Text(pointer) => match self.member(pointer) {
                Some(value) => Some(json::text(value).ok_or("must be a text")?),
                None => None,
            },
            FieldSource::Element(pointer) => self.element.and_then(|element| element.value(pointer)),
            FieldSource::Value(Source::Json(pointer)) => self.member(pointer).and_then(json::scalar),
            FieldSource::Value(source) => source.value(self.request).map(|bytes| match bytes {
                Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
                Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
            }),
        };
        match text {
            Some(text) if text.is_empty() => Err("must not be empty"),
            text => Ok(text),
        }
    }

    fn member(&self, pointer: &Pointer) -> Option<&RawValue> {
        self.json?.get(pointer).flatten()
    }
}

impl ElementValues<'_> {
    fn value(&self, pointer: &Pointer) -> Option<Cow<'_, str>> {
        if !pointer.is_whole() {
            return self.found.get(pointer).flatten().and_then(json::scalar);
        }
        let mut canonical = Vec::with_capacity(self.text.len());
        let is_exact = json::canonical(self.text, self.attempt_fields, &mut canonical);
        let text = String::from_utf8(canonical).ok().filter(|_| is_exact);
        Some(text.map_or(Cow::Borrowed(self.text), Cow::Owned))
    }
}

impl FoundText<'_> {
    /// Returns the text of a field that the event cannot do without.
    pub(super) fn required(self) -> Result<String, InvalidEvent> {
        match flaw(&self.text) {
            Some(reason) => Err(InvalidEvent::new(&self.source.field(), reason)),
            None => Ok(self.text.into_owned()),
        }
    }

    /// Returns the text; or, for a field that the event can do without, the reason why it is left out.
    pub(super) fn optional(&self) -> Result<String, String> {
        flaw(&self.text).map_or_else(|| Ok(self.text.clone().into_owned()), Err)
    }
}

/// Returns the reason why a text cannot be stored.
fn flaw(text: &str) -> Option<String> {
    if text.len() > MAX_TEXT_BYTES {
        return Some(format!("must not be longer than {MAX_TEXT_BYTES} bytes"));
    }
    text.contains('\0').then(|| "must not contain the character U+0000".to_owned())
}
