//! A request with several events: each is an element of its body.
//!
//! An element is never refused, since that would refuse the others with it: one without a required field is an event of the type
//! `unmapped`, with a note.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

use super::field_reader::{ElementValues, FieldReader};
use super::identity::Identity;
use super::{EventFields, InvalidEvent, LeftOutField, Mapper, check_depth};
use crate::payload::BodyForm;
use crate::request::IncomingRequest;
use crate::request::content_type::ContentType;
use crate::request::json::{self, FoundValues, TooManyElements};

/// The type of an element that lacks what its event needs.
pub const UNMAPPED: &str = "unmapped";

/// The reason why a request cannot be split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SplitError {
    Invalid(InvalidEvent),
    TooMany(TooManyElements),
}

/// A request that is split.
#[derive(Debug)]
pub struct SplitRequest<'a> {
    mapper: &'a Mapper,
    request: IncomingRequest<'a>,
    /// As received, which the identity of each event is of.
    received_body: &'a [u8],
    /// The values of the whole body.
    found: FoundValues<'a>,
    elements: Vec<&'a RawValue>,
}

impl Mapper {
    /// Splits a request, whose body may be without its tokens; `None` if it is one event. The received body has the elements at the
    /// same places.
    ///
    /// # Errors
    /// When the body is invalid, or has too many elements.
    pub fn split<'a>(
        &'a self,
        request: &IncomingRequest<'a>,
        received_body: &'a [u8],
        form: BodyForm,
    ) -> Result<Option<SplitRequest<'a>>, SplitError> {
        if self.split.is_empty() || form != BodyForm::Json || !self.splits_type_of(request) {
            return Ok(None);
        }
        check_depth(request.body).map_err(SplitError::Invalid)?;
        let elements = self.split.find(request.body).map_err(SplitError::TooMany)?;
        if elements.is_empty() {
            return Ok(None);
        }
        // It was parsed to find them.
        let found = self.json.find(request.body).unwrap_or_else(|_| self.json.none_found());
        Ok(Some(SplitRequest { mapper: self, request: *request, received_body, found, elements }))
    }
}

impl Mapper {
    fn splits_type_of(&self, request: &IncomingRequest<'_>) -> bool {
        let content_type = ContentType::of(request.headers);
        let types = &self.split_content_types;
        types.is_empty() || types.iter().any(|expected| content_type.is(expected))
    }
}

impl SplitRequest<'_> {
    /// The number of events, at least one.
    pub fn count(&self) -> usize {
        self.elements.len()
    }

    /// Reads the events in the order of the document.
    pub fn events(&self) -> impl Iterator<Item = EventFields> {
        self.elements.iter().map(|element| self.event(element))
    }

    fn event(&self, element: &RawValue) -> EventFields {
        let range = json::range_in(self.request.body, element);
        let text = element.get();
        let found = self.mapper.element_json.find(text.as_bytes());
        let found = found.unwrap_or_else(|_| self.mapper.element_json.none_found());
        let values = ElementValues { text, found, attempt_fields: self.mapper.attempt_fields.of_element() };
        let reader = FieldReader { request: &self.request, json: Some(&self.found), element: Some(&values) };
        let received = &self.received_body[range.clone()];
        let read = if text.starts_with('{') {
            self.mapper.read_fields(&reader, received, BodyForm::Json, |_| Ok(range.clone()))
        } else {
            Err(InvalidEvent::new("element", "must be an object"))
        };
        let mut event = read
            .unwrap_or_else(|invalid| unmapped(invalid, self.mapper.identity_of_unmapped(received), range));
        if self.count() == 1 && self.mapper.was_whole {
            event.identity.former = self.mapper.former_of_whole(&reader, &event, self.received_body);
        }
        event
    }
}

/// Returns the event of an element that lacks what it needs.
fn unmapped(invalid: InvalidEvent, identity: Identity, payload: Range<usize>) -> EventFields {
    EventFields {
        external_event_id: None,
        event_type: UNMAPPED.to_owned(),
        subject: None,
        occurred_at: None,
        payload,
        identity,
        left_out: vec![LeftOutField { field: Cow::Owned(invalid.field), reason: invalid.reason }],
    }
}
