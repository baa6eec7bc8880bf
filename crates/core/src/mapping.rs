//! Reads the event out of a verified request, without re-encoding anything.
//!
//! The payload stays a slice of the body, so its numbers, its order and its escapes are delivered as they came. Texts
//! that become ours (id, type, subject) are decoded, bounded, and hold no NUL, which PostgreSQL's text cannot store.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use grapnel_crds::{BodyKind, DeliveryFormat, MappedField, Mapping, TimeFormat};
use http::{HeaderMap, header};
use jiff::Timestamp;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::payload::{BodyForm, DeliveredAs};
use crate::request::json::{self, Found, Pointer, Pointers};
use crate::request::{Incoming, Place};

mod time;

/// Deeper nesting is refused: it is no event, and receivers' parsers may not survive it.
const MAX_DEPTH: u32 = 128;

/// The longest text that becomes a field of an event, in bytes.
const MAX_TEXT_BYTES: usize = 512;

/// The fields of an event, and where its payload is in the body.
#[derive(Debug, PartialEq)]
pub struct Fields {
    pub external_event_id: Option<String>,
    pub event_type: String,
    pub subject: Option<String>,
    pub occurred_at: Option<Timestamp>,
    pub payload: Range<usize>,
}

/// Why a body is not an event. `field` is the path in the body, or `body` for the whole.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct Malformed {
    pub field: String,
    pub reason: String,
}

fn malformed(field: &str, reason: impl Into<String>) -> Malformed {
    Malformed { field: field.to_owned(), reason: reason.into() }
}

/// A mapping, compiled once for each version of an integration.
#[derive(Debug)]
pub struct Mapper {
    external_event_id: Vec<Source>,
    event_type: Vec<Source>,
    occurred_at: Vec<Source>,
    time_format: TimeFormat,
    subject: Vec<Source>,
    required: Vec<MappedField>,
    payload: Pointer,
    /// The members of a JSON body that are looked at.
    json: Pointers,
    accept: Vec<BodyKind>,
    /// The member of the normalized payload that carries the provider's payload.
    pub payload_name: Arc<str>,
    pub delivered_as: DeliveredAs,
}

/// Where a field is.
#[derive(Debug)]
enum Source {
    /// A member of the body that is a text.
    Text(Pointer),
    /// Any value of the request, as a text.
    Place(Place),
    Literal(String),
    /// There is no text: every request is an event.
    Request,
}

impl Source {
    fn parse(text: &str) -> Option<Self> {
        if text == "request" {
            return Some(Self::Request);
        }
        if text.starts_with('/') {
            return Pointer::parse(text).map(Self::Text);
        }
        match text.strip_prefix("literal:") {
            Some(literal) => Some(Self::Literal(literal.to_owned())),
            None => Place::parse(text).map(Self::Place),
        }
    }

    /// The pointer of a member of a JSON body.
    fn pointer(&self) -> Option<&Pointer> {
        match self {
            Self::Text(pointer) => Some(pointer),
            Self::Place(place) => place.pointer(),
            Self::Literal(_) | Self::Request => None,
        }
    }

    fn field(&self) -> Cow<'_, str> {
        match self {
            Self::Text(pointer) | Self::Place(Place::Json(pointer)) => Cow::Borrowed(&pointer.field),
            Self::Place(place) => Cow::Owned(place.describe()),
            Self::Literal(_) | Self::Request => Cow::Borrowed("body"),
        }
    }
}

impl Mapper {
    /// `None` when a source names no place.
    pub fn new(mapping: &Mapping) -> Option<Self> {
        let sources =
            |texts: &[String]| texts.iter().map(|text| Source::parse(text)).collect::<Option<Vec<_>>>();
        let (external_event_id, event_type) =
            (sources(&mapping.external_event_id)?, sources(&mapping.event_type)?);
        let (occurred_at, subject) = (sources(&mapping.occurred_at)?, sources(&mapping.subject)?);
        let payload = Pointer::parse(mapping.payload.as_deref().unwrap_or_default())?;
        let looked_at = [&external_event_id, &event_type, &occurred_at, &subject].into_iter().flatten();
        let looked_at = looked_at.filter_map(Source::pointer).chain([&payload]);
        Some(Self {
            json: Pointers::new(looked_at),
            external_event_id,
            event_type,
            occurred_at,
            time_format: mapping.occurred_at_format.unwrap_or(TimeFormat::Rfc3339),
            subject,
            required: mapping.required.clone(),
            payload,
            accept: if mapping.accept.is_empty() { vec![BodyKind::Json] } else { mapping.accept.clone() },
            payload_name: mapping.payload_name.as_deref().unwrap_or("data").into(),
            delivered_as: match mapping.deliver {
                None | Some(DeliveryFormat::Normalized) => DeliveredAs::Normalized,
                Some(DeliveryFormat::Raw) => DeliveredAs::Raw,
                Some(DeliveryFormat::Cloudevents) => DeliveredAs::CloudEvent,
            },
        })
    }

    /// Whether every request is an event, so that equal ones are not the same.
    pub fn is_each_request_an_event(&self) -> bool {
        self.external_event_id.iter().any(|source| matches!(source, Source::Request))
    }

    /// How the body will be read; `None` when its type is not accepted. A missing type counts as JSON.
    pub fn body_form(&self, headers: &HeaderMap) -> Option<BodyForm> {
        let value = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let ends_in_json = || {
            essence.len().checked_sub(5).is_some_and(|start| essence[start..].eq_ignore_ascii_case(b"+json"))
        };
        let is_json =
            essence.is_empty() || essence.eq_ignore_ascii_case(b"application/json") || ends_in_json();
        let is_form = || essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded");
        let accepts = |kind| self.accept.contains(&kind);
        if is_json && accepts(BodyKind::Json) || accepts(BodyKind::Anyjson) {
            Some(BodyForm::Json)
        } else if accepts(BodyKind::Form) && is_form() {
            Some(BodyForm::Form)
        } else {
            accepts(BodyKind::Opaque).then_some(BodyForm::Opaque)
        }
    }

    /// Reads the event's fields from the request.
    ///
    /// # Errors
    /// A body that is not of its form, or a field that is missing or not of its form; the error names it.
    pub fn read(&self, incoming: &Incoming<'_>, form: BodyForm) -> Result<Fields, Malformed> {
        let body = incoming.body;
        let found = match form {
            BodyForm::Json => Some(self.parse(body)?),
            BodyForm::Form | BodyForm::Opaque => None,
        };
        let reader = Reader { incoming, found: found.as_ref() };
        let external_event_id =
            reader.first(&self.external_event_id, self.requires(MappedField::ExternalEventId))?;
        let event_type = reader.first(&self.event_type, true)?;
        let event_type = event_type.ok_or_else(|| malformed("eventType", "is required"))?;
        let occurred_at = self.occurred_at(&reader)?;
        let payload = match &found {
            Some(found) => self.payload(found, body)?,
            None => 0..body.len(),
        };
        let subject = reader.first(&self.subject, self.requires(MappedField::Subject))?;
        Ok(Fields { external_event_id, event_type, subject, occurred_at, payload })
    }

    fn requires(&self, field: MappedField) -> bool {
        self.required.contains(&field)
    }

    fn occurred_at(&self, reader: &Reader<'_, '_>) -> Result<Option<Timestamp>, Malformed> {
        let required = self.requires(MappedField::OccurredAt);
        let Some(text) = reader.first(&self.occurred_at, required)? else { return Ok(None) };
        match time::read(&text, self.time_format) {
            None if required => {
                let field = self.occurred_at.first().map(Source::field).unwrap_or_default();
                let form = match self.time_format {
                    TimeFormat::Rfc3339 => "must be an RFC 3339 time with an offset",
                    TimeFormat::Unix => "must be a number of seconds since 1970",
                    TimeFormat::UnixMilliseconds => "must be a number of milliseconds since 1970",
                    TimeFormat::HttpDate => "must be a date as in HTTP",
                };
                Err(malformed(&field, form))
            }
            found => Ok(found),
        }
    }

    /// What is looked for in an object, or in a list where all of it is delivered.
    fn parse<'a>(&'a self, body: &'a [u8]) -> Result<Found<'a>, Malformed> {
        check_depth(body)?;
        let found = self.json.find(body);
        let found =
            found.map_err(|error| malformed("body", format!("not a JSON object in UTF-8 ({error})")))?;
        match body.trim_ascii_start().first() {
            Some(b'{') => Ok(found),
            Some(b'[') if self.payload.is_whole() => Ok(found),
            _ => Err(malformed("body", "not a JSON object in UTF-8")),
        }
    }

    fn payload(&self, found: &Found<'_>, body: &[u8]) -> Result<Range<usize>, Malformed> {
        if self.payload.is_whole() {
            return Ok(0..body.len());
        }
        let field = &self.payload.field;
        let payload = found.get(&self.payload).flatten().ok_or_else(|| malformed(field, "is required"))?;
        if !payload.get().starts_with('{') {
            return Err(malformed(field, "must be an object"));
        }
        Ok(json::position(body, payload))
    }
}

/// Equal bodies give equal texts, whatever their white space and the order of their members.
pub fn content(form: BodyForm, body: &[u8]) -> Cow<'_, [u8]> {
    match (form, std::str::from_utf8(body)) {
        (BodyForm::Json, Ok(text)) => {
            let mut canonical = Vec::with_capacity(body.len());
            json::canonical(text.trim_ascii(), &mut canonical);
            Cow::Owned(canonical)
        }
        _ => Cow::Borrowed(body),
    }
}

/// What fields are read from.
struct Reader<'r, 'a> {
    incoming: &'r Incoming<'a>,
    /// Of a JSON body.
    found: Option<&'r Found<'a>>,
}

impl Reader<'_, '_> {
    fn member(&self, pointer: &Pointer) -> Option<&RawValue> {
        self.found?.get(pointer).flatten()
    }

    /// The first source that has a text. A required field must have one; the error is about the first source that is there
    /// but has none, or about the first.
    fn first(&self, sources: &[Source], required: bool) -> Result<Option<String>, Malformed> {
        let mut problem = None;
        for source in sources {
            match self.text(source) {
                Ok(Some(text)) => {
                    check_text(&source.field(), &text)?;
                    return Ok(Some(text.into_owned()));
                }
                Ok(None) => {}
                Err(reason) => problem = problem.or(Some((source, reason))),
            }
        }
        match (required, problem, sources.first()) {
            (true, Some((source, reason)), _) => Err(malformed(&source.field(), reason)),
            (true, None, Some(source)) => Err(malformed(&source.field(), "is required")),
            (true, None, None) | (false, _, _) => Ok(None),
        }
    }

    /// The text, nothing, or why what is there is no text.
    fn text<'s>(&'s self, source: &'s Source) -> Result<Option<Cow<'s, str>>, &'static str> {
        let text = match source {
            Source::Literal(text) => Some(Cow::Borrowed(text.as_str())),
            Source::Request => None,
            Source::Text(pointer) => match self.member(pointer) {
                Some(value) => Some(json::text(value).ok_or("must be a text")?),
                None => None,
            },
            Source::Place(Place::Json(pointer)) => self.member(pointer).and_then(json::scalar),
            Source::Place(place) => place.find(self.incoming).map(|bytes| match bytes {
                Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
                Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
            }),
        };
        match text {
            Some(text) if text.is_empty() => Err("must not be empty"),
            text => Ok(text),
        }
    }
}

fn check_text(field: &str, text: &str) -> Result<(), Malformed> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(malformed(field, format!("must not be longer than {MAX_TEXT_BYTES} bytes")));
    }
    if text.contains('\0') {
        return Err(malformed(field, "must not contain the character U+0000"));
    }
    Ok(())
}

/// Counts open brackets outside strings. The text need not be JSON yet.
fn check_depth(body: &[u8]) -> Result<(), Malformed> {
    let (mut depth, mut in_string, mut escaped) = (0u32, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(malformed("body", format!("nested deeper than {MAX_DEPTH} levels")));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
