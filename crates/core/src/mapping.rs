//! Reads the event from a verified request, without re-encoding anything.
//!
//! The payload stays a slice of the body, so its numbers, its order and its escapes are delivered as received. Texts that
//! become fields of ours (id, type, subject) are decoded, bounded, and contain no NUL, which PostgreSQL's text cannot store.
//! A field that the event can do without is left out, with a note, and never refuses an authentic webhook.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use grapnel_crds::{BodyKind, DeliveryFormat, MappedField, Mapping, TimeFormat};
use http::HeaderMap;
use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

use crate::payload::{BodyForm, DeliveredAs};
use crate::request::IncomingRequest;
use crate::request::content_type::ContentType;
use crate::request::form;
use crate::request::json::{self, FoundValues, Pointer, PointerSet, SplitPaths};
use crate::request::multipart::{self, Multipart};
use attempt_fields::AttemptFields;
use field_reader::{FieldReader, FoundText};
use field_source::FieldSource;
pub use identity::{FormerIdentity, Identity, IdentityName};
pub use split::{SplitError, SplitRequest, UNMAPPED};

mod attempt_fields;
mod field_source;
mod field_reader;
mod identity;
mod split;
mod time;

/// The deepest nesting of an event. Deeper values may crash the parsers of receivers.
const MAX_DEPTH: u32 = 128;

/// The fields of an event, and where its payload is in the body.
#[derive(Debug, PartialEq)]
pub struct EventFields {
    pub external_event_id: Option<String>,
    pub event_type: String,
    pub subject: Option<String>,
    pub occurred_at: Option<Timestamp>,
    pub payload: Range<usize>,
    /// What tells the webhook from all others of its integration.
    pub identity: Identity,
    /// The fields that the webhook has and the event has not.
    pub left_out: Vec<LeftOutField>,
}

/// A field that could not be stored, such as `subject`, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOutField {
    pub field: Cow<'static, str>,
    pub reason: String,
}

/// How the previous version identified the events of a provider, where that was in another way.
#[derive(Debug, Clone, Default)]
pub struct FormerMapping {
    /// Where the id was; empty if it was where it is now.
    pub external_event_id: Vec<String>,
    /// Whether a request that is split today was one event.
    pub is_whole: bool,
}

/// The reason why a request is not an event. `field` is the path in the body, or `body` for the whole.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct InvalidEvent {
    pub field: String,
    pub reason: String,
}

impl InvalidEvent {
    fn new(field: &str, reason: impl Into<String>) -> Self {
        Self { field: field.to_owned(), reason: reason.into() }
    }
}

/// A mapping, compiled once for each version of an integration.
#[derive(Debug)]
pub struct Mapper {
    external_event_id: Vec<FieldSource>,
    id_scope: Vec<FieldSource>,
    attempt_fields: AttemptFields,
    /// Where the previous version found the id; empty if it was where it is now.
    former_external_event_id: Vec<FieldSource>,
    /// Whether the previous version did not split requests.
    was_whole: bool,
    event_type: Vec<FieldSource>,
    occurred_at: Vec<FieldSource>,
    time_format: TimeFormat,
    subject: Vec<FieldSource>,
    required: Vec<MappedField>,
    payload: Pointer,
    /// The field of a form that has the JSON.
    body_field: Option<String>,
    /// The members of a JSON body that are looked at.
    json: PointerSet,
    /// Where the events of a request are that has several.
    split: SplitPaths,
    /// The content types of bodies that are split; empty: all.
    split_content_types: Vec<String>,
    /// The members of each of them that are looked at.
    element_json: PointerSet,
    accept: Vec<BodyKind>,
    /// The member of the normalized payload that carries the provider's payload.
    pub payload_name: Arc<str>,
    pub delivered_as: DeliveredAs,
}

impl Mapper {
    /// Compiles a mapping; `None` if a source is unknown or a path is invalid.
    pub fn new(mapping: &Mapping, former: &FormerMapping) -> Option<Self> {
        let sources =
            |texts: &[String]| texts.iter().map(|text| FieldSource::parse(text)).collect::<Option<Vec<_>>>();
        let (external_event_id, event_type) =
            (sources(&mapping.external_event_id)?, sources(&mapping.event_type)?);
        let (occurred_at, subject) = (sources(&mapping.occurred_at)?, sources(&mapping.subject)?);
        let payload = Pointer::parse(mapping.payload.as_deref().unwrap_or_default())?;
        let (id_scope, former_external_event_id) =
            (sources(&mapping.id_scope)?, sources(&former.external_event_id)?);
        let sources = [&external_event_id, &id_scope, &former_external_event_id, &event_type, &occurred_at];
        let sources: Vec<_> = sources.into_iter().chain([&subject]).flatten().collect();
        let element_json = PointerSet::new(sources.iter().filter_map(|source| source.element_pointer()));
        let sources = sources.into_iter().filter_map(FieldSource::pointer).chain([&payload]);
        Some(Self {
            json: PointerSet::new(sources),
            split: SplitPaths::parse(&mapping.split)?,
            split_content_types: mapping.split_content_types.clone(),
            element_json,
            was_whole: former.is_whole,
            external_event_id,
            id_scope,
            attempt_fields: AttemptFields::parse(&mapping.attempt_fields)?,
            former_external_event_id,
            event_type,
            occurred_at,
            time_format: mapping.occurred_at_format.unwrap_or(TimeFormat::Rfc3339),
            subject,
            required: mapping.required.clone(),
            payload,
            body_field: mapping.body_field.clone(),
            accept: match mapping.accept.as_slice() {
                [] if mapping.body_field.is_some() => vec![BodyKind::Json, BodyKind::Form],
                [] => vec![BodyKind::Json],
                accept => accept.to_vec(),
            },
            payload_name: mapping.payload_name.as_deref().unwrap_or("data").into(),
            delivered_as: match mapping.deliver {
                None | Some(DeliveryFormat::Normalized) => DeliveredAs::Normalized,
                Some(DeliveryFormat::Raw) => DeliveredAs::Raw,
                Some(DeliveryFormat::Cloudevents) => DeliveredAs::CloudEvent,
            },
        })
    }

    /// Returns how to read the body; `None` if its type is not accepted. A missing type counts as JSON. Where anything is
    /// accepted, so is no body at all.
    pub fn body_form(&self, headers: &HeaderMap, body: &[u8]) -> Option<BodyForm> {
        let content_type = ContentType::of(headers);
        let accepts = |kind| self.accept.contains(&kind);
        if body.is_empty() && accepts(BodyKind::Opaque) {
            return Some(BodyForm::Opaque);
        }
        if content_type.is_json() && accepts(BodyKind::Json) || accepts(BodyKind::Anyjson) {
            Some(BodyForm::Json)
        } else if accepts(BodyKind::Form) && content_type.is_form()
            || accepts(BodyKind::Multipart) && content_type.is_multipart()
        {
            Some(BodyForm::Form)
        } else {
            accepts(BodyKind::Opaque).then_some(BodyForm::Opaque)
        }
    }

    /// Reads a body of `multipart/form-data`, if the mapping reads such; the error is the reason why it is not one.
    pub fn multipart(&self, headers: &HeaderMap, body: &[u8]) -> Option<Result<Multipart, InvalidEvent>> {
        let accepts = |kind| self.accept.contains(&kind);
        let is_read = accepts(BodyKind::Multipart)
            && !accepts(BodyKind::Anyjson)
            && !body.is_empty()
            && multipart::is_multipart(headers);
        is_read.then(|| multipart::read(headers, body).map_err(|reason| InvalidEvent::new("body", reason)))
    }

    /// Returns the JSON in a field of a form, if the mapping names that field and the form has it once.
    pub fn json_in_form(&self, fields: &[u8]) -> Option<String> {
        form::value(fields, self.body_field.as_deref()?).map(Cow::into_owned)
    }

    /// Reads the event's fields from the request, whose body may be without its token. The identity is of what was received. If the
    /// body is a field of a form, that is all of the form.
    ///
    /// # Errors
    /// When the body or a field is invalid, or a required field is missing; the error names it.
    pub fn read(
        &self,
        request: &IncomingRequest<'_>,
        received: &[u8],
        form: BodyForm,
    ) -> Result<EventFields, InvalidEvent> {
        let body = request.body;
        let found = match form {
            BodyForm::Json => Some(self.parse(body)?),
            BodyForm::Form | BodyForm::Opaque => None,
        };
        let reader = FieldReader { request, json: found.as_ref(), element: None };
        let received_form = if request.form.is_some() { BodyForm::Form } else { form };
        self.read_fields(&reader, received, received_form, |reader| match reader.json {
            Some(found) => self.payload(found, body),
            None => Ok(0..body.len()),
        })
    }

    /// Reads the fields of an event, which is the whole request or an element of it. The identity is of `received`.
    fn read_fields(
        &self,
        reader: &FieldReader<'_, '_>,
        received: &[u8],
        form: BodyForm,
        payload: impl FnOnce(&FieldReader<'_, '_>) -> Result<Range<usize>, InvalidEvent>,
    ) -> Result<EventFields, InvalidEvent> {
        let mut left_out = Vec::new();
        let id_required = self.requires(MappedField::ExternalEventId);
        let id = reader.first_text(&self.external_event_id, id_required)?;
        let external_event_id = keep("externalEventId", id.as_ref(), id_required, &mut left_out)?;
        let event_type = reader.first_text(&self.event_type, true)?;
        let event_type = event_type.ok_or_else(|| InvalidEvent::new("eventType", "is required"))?;
        let occurred_at = self.occurred_at(reader, &mut left_out)?;
        let payload = payload(reader)?;
        let subject_required = self.requires(MappedField::Subject);
        let subject = reader.first_text(&self.subject, subject_required)?;
        let named = identity::NamedFields {
            id: id.as_ref(),
            is_id_kept: external_event_id.is_some(),
            event_type: &event_type,
            subject: subject.as_ref(),
            body: received,
        };
        let identity = self.identity(reader, form, &named)?;
        let subject = keep("subject", subject.as_ref(), subject_required, &mut left_out)?;
        let event_type = event_type.required()?;
        Ok(EventFields { external_event_id, event_type, subject, occurred_at, payload, identity, left_out })
    }

    fn requires(&self, field: MappedField) -> bool {
        self.required.contains(&field)
    }

    fn occurred_at(
        &self,
        reader: &FieldReader<'_, '_>,
        left_out: &mut Vec<LeftOutField>,
    ) -> Result<Option<Timestamp>, InvalidEvent> {
        let required = self.requires(MappedField::OccurredAt);
        let text = reader.first_text(&self.occurred_at, required)?;
        let Some(text) = keep("occurredAt", text.as_ref(), required, left_out)? else { return Ok(None) };
        match time::read(&text, self.time_format) {
            None if required => {
                let field = self.occurred_at.first().map(FieldSource::field).unwrap_or_default();
                let form = match self.time_format {
                    TimeFormat::Rfc3339 => "must be an RFC 3339 time with an offset",
                    TimeFormat::Unix => "must be a number of seconds since 1970",
                    TimeFormat::UnixMilliseconds => "must be a number of milliseconds since 1970",
                    TimeFormat::HttpDate => "must be an HTTP date",
                };
                Err(InvalidEvent::new(&field, form))
            }
            found => Ok(found),
        }
    }

    /// Finds the members of an object. If the whole body is delivered, it may be any value.
    fn parse<'a>(&'a self, body: &'a [u8]) -> Result<FoundValues<'a>, InvalidEvent> {
        check_depth(body)?;
        let found = self.json.find(body);
        let found = found
            .map_err(|error| InvalidEvent::new("body", format!("not a JSON object in UTF-8 ({error})")))?;
        let is_object = json::without_byte_order_mark(body).trim_ascii_start().starts_with(b"{");
        if is_object || self.payload.is_whole() {
            return Ok(found);
        }
        Err(InvalidEvent::new("body", "not a JSON object in UTF-8"))
    }

    fn payload(&self, found: &FoundValues<'_>, body: &[u8]) -> Result<Range<usize>, InvalidEvent> {
        if self.payload.is_whole() {
            return Ok(body.len() - json::without_byte_order_mark(body).len()..body.len());
        }
        let field = &self.payload.field;
        let payload =
            found.get(&self.payload).flatten().ok_or_else(|| InvalidEvent::new(field, "is required"))?;
        if !payload.get().starts_with('{') {
            return Err(InvalidEvent::new(field, "must be an object"));
        }
        Ok(json::range_in(body, payload))
    }
}

/// Returns the text of a field to store, if any. One that cannot be stored is left out, unless it is required.
fn keep(
    field: &'static str,
    found: Option<&FoundText<'_>>,
    required: bool,
    left_out: &mut Vec<LeftOutField>,
) -> Result<Option<String>, InvalidEvent> {
    let Some(found) = found else { return Ok(None) };
    match found.optional() {
        Ok(text) => Ok(Some(text)),
        Err(reason) if required => Err(InvalidEvent::new(&found.source.field(), reason)),
        Err(reason) => {
            left_out.push(LeftOutField { field: Cow::Borrowed(field), reason });
            Ok(None)
        }
    }
}

/// Checks the nesting by counting open brackets outside strings. The text need not be valid JSON.
fn check_depth(body: &[u8]) -> Result<(), InvalidEvent> {
    // Most texts have fewer brackets, which cost a fraction to count.
    if memchr::memchr2_iter(b'{', b'[', body).nth(MAX_DEPTH as usize).is_none() {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0u32, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(InvalidEvent::new("body", format!("nested deeper than {MAX_DEPTH} levels")));
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
