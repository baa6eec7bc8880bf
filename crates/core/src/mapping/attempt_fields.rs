//! The fields that tell of an attempt only, such as a count of attempts: they are no part of what tells events apart.

use super::field_reader::FieldReader;
use super::field_source::FieldSource;
use crate::request::Source;
use crate::request::json::Omitted;

#[derive(Debug)]
pub(super) struct AttemptFields {
    of_body: Omitted,
    of_element: Omitted,
}

impl AttemptFields {
    /// Parses `json:/POINTER` and `element:/POINTER`; `None` for any other text.
    pub(super) fn parse(texts: &[String]) -> Option<Self> {
        let (mut of_body, mut of_element) = (Vec::new(), Vec::new());
        for text in texts {
            match FieldSource::parse(text)? {
                FieldSource::Value(Source::Json(pointer)) => of_body.push(pointer),
                FieldSource::Element(pointer) => of_element.push(pointer),
                _ => return None,
            }
        }
        Some(Self { of_body: Omitted::new(&of_body), of_element: Omitted::new(&of_element) })
    }

    /// Returns those of what is read: an element of the body, or all of it.
    pub(super) fn of(&self, reader: &FieldReader<'_, '_>) -> &Omitted {
        if reader.element.is_some() { &self.of_element } else { &self.of_body }
    }

    pub(super) fn of_element(&self) -> &Omitted {
        &self.of_element
    }
}
