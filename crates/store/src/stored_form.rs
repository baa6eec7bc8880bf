//! The forms in which events are stored, and where their payload is in each.
//!
//! The payload of most events is a slice of the raw body in their row. That of others is *apart*: a slice of the body of a request
//! that they share, or a value of its own that no slice of the body is. What is apart has another code of its body's form, so
//! that a process of before, which would read the wrong bytes, cannot read the row and leaves it to others.

use grapnel_core::payload::BodyForm;
use uuid::Uuid;

/// How events are stored that share their request, or whose payload is no slice of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredForm {
    /// Each as if its payload had come alone, which a process of any version can read.
    Alone,
    /// The payload apart from the event's row or from its raw body.
    Apart,
}

/// Added to the code of the body's form when the payload is apart.
pub(crate) const APART: i16 = 16;

/// Returns the form of the body; `None` for a code of another version.
pub(crate) fn body_form(code: i16) -> Option<BodyForm> {
    BodyForm::from_code(code).or_else(|| BodyForm::from_code(code.checked_sub(APART)?))
}

/// Returns the smallest UUIDv7 of the millisecond of this one. The request of an event is not before it.
pub(crate) fn first_of_millisecond(id: Uuid) -> Uuid {
    const RANDOM_BITS: u32 = 80;
    Uuid::from_u128(id.as_u128() >> RANDOM_BITS << RANDOM_BITS)
}

/// The columns of the request of event `e`, whose id is within the bounds; for events that share it.
macro_rules! of_request {
    ($columns:expr, $first:literal, $last:literal) => {
        concat!(
            "(SELECT ",
            $columns,
            " FROM event_requests r WHERE r.id = e.request_id AND r.id BETWEEN ",
            $first,
            " AND ",
            $last,
            ")"
        )
    };
}
pub(crate) use of_request;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_either_form_is_read_and_no_other() {
        let forms: Vec<_> = (-20..120).filter_map(|code| Some((code, body_form(code)?))).collect();
        let (json, form, opaque) = (BodyForm::Json, BodyForm::Form, BodyForm::Opaque);
        assert_eq!(forms, [(0, json), (1, form), (2, opaque), (16, json), (17, form), (18, opaque)]);
    }

    #[test]
    fn a_request_is_not_before_the_first_id_of_its_millisecond() {
        let id: Uuid = "0190b5c2-7f3a-7abc-8def-0123456789ab".parse().unwrap();
        assert_eq!(first_of_millisecond(id).to_string(), "0190b5c2-7f3a-0000-0000-000000000000");
    }
}
