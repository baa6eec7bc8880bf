//! Reads the event out of a verified body, without re-encoding anything.
//!
//! The payload stays a slice of the body, so its numbers, its order and its escapes are delivered as they came. Texts
//! that become ours (id, type, subject) are decoded, bounded, and hold no NUL, which PostgreSQL's text cannot store. A
//! member that stands twice counts the last time, as it does in most parsers.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use jiff::Timestamp;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::preset::{Mapping, Pointer};

/// Deeper nesting is refused: it is no event, and receivers' parsers may not survive it.
const MAX_DEPTH: u32 = 128;

/// The longest text that becomes a field of an event, in bytes.
const MAX_TEXT_BYTES: usize = 512;

/// 0000-01-01T00:00:00Z.
const YEAR_ZERO: i64 = -62_167_219_200;

/// The fields of an event, and where its payload is in the body.
#[derive(Debug, PartialEq)]
pub struct Fields {
    pub external_event_id: String,
    pub event_type: String,
    pub subject: Option<String>,
    pub occurred_at: Timestamp,
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

/// Reads the event's fields from the body.
///
/// # Errors
/// A body that is not a JSON object, or a field that is missing or not of its form; the error names it.
pub fn normalize(mapping: &Mapping, body: &[u8]) -> Result<Fields, Malformed> {
    check_depth(body)?;
    let root: Members<'_> = serde_json::from_slice(body)
        .map_err(|error| malformed("body", format!("not a JSON object in UTF-8 ({error})")))?;
    let external_event_id = required_text(&root, &mapping.external_event_id)?;
    let event_type = required_text(&root, &mapping.event_type)?;
    let occurred_at = time(&required_text(&root, &mapping.occurred_at)?)
        .ok_or_else(|| malformed(&mapping.occurred_at.field, "must be an RFC 3339 time with an offset"))?;
    let payload = lookup(&root, &mapping.payload).ok_or_else(|| missing(&mapping.payload))?;
    if !payload.get().starts_with('{') {
        return Err(malformed(&mapping.payload.field, "must be an object"));
    }
    let mut subject = None;
    for pointer in &mapping.subject {
        subject = lookup(&root, pointer).and_then(text);
        if let Some(found) = &subject {
            check_text(pointer, found)?;
            break;
        }
    }
    // RawValue borrows from the body, so the distance of the two is where it lies.
    let start = payload.get().as_ptr() as usize - body.as_ptr() as usize;
    Ok(Fields {
        external_event_id,
        event_type,
        subject: subject.map(Cow::into_owned),
        occurred_at,
        payload: start..start + payload.get().len(),
    })
}

fn missing(pointer: &Pointer) -> Malformed {
    malformed(&pointer.field, "is required")
}

fn required_text(root: &Members<'_>, pointer: &Pointer) -> Result<String, Malformed> {
    let value = lookup(root, pointer).ok_or_else(|| missing(pointer))?;
    let found = text(value).ok_or_else(|| malformed(&pointer.field, "must be a text"))?;
    if found.is_empty() {
        return Err(malformed(&pointer.field, "must not be empty"));
    }
    check_text(pointer, &found)?;
    Ok(found.into_owned())
}

/// RFC 3339 has no years before 0000. The parser would read them, and PostgreSQL has not all of them.
fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok().filter(|time: &Timestamp| time.as_second() >= YEAR_ZERO)
}

fn check_text(pointer: &Pointer, text: &str) -> Result<(), Malformed> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(malformed(&pointer.field, format!("must not be longer than {MAX_TEXT_BYTES} bytes")));
    }
    if text.contains('\0') {
        return Err(malformed(&pointer.field, "must not contain the character U+0000"));
    }
    Ok(())
}

fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    if !value.get().starts_with('"') {
        return None;
    }
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

fn lookup<'a>(root: &Members<'a>, pointer: &Pointer) -> Option<&'a RawValue> {
    let (first, rest) = pointer.segments().split_first()?;
    let mut value = root.get(first)?;
    for segment in rest {
        let members: Members<'a> = serde_json::from_str(value.get()).ok()?;
        value = members.get(segment)?;
    }
    Some(value)
}

/// A text that is borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The members of an object, unparsed.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(member, _)| member == name).map(|(_, value)| *value)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some((Text(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::preset;

    fn acme(body: &str) -> Result<Fields, Malformed> {
        normalize(&preset::find("acme").expect("a preset").mapping, body.as_bytes())
    }

    const ORDER: &str = r#"{"eventId":"e-1","eventType":"order.created","occurredAt":"2026-11-24T10:00:00Z","data":{"id":"o-1","total":12345678901234567890.10}}"#;

    #[test]
    fn the_payload_is_the_slice_as_it_came() {
        let fields = acme(ORDER).expect("an event");
        assert_eq!(&ORDER[fields.payload], r#"{"id":"o-1","total":12345678901234567890.10}"#);
        assert_eq!(fields.subject.as_deref(), Some("o-1"));
    }

    #[test]
    fn a_subject_of_its_own_goes_before_the_payloads_id() {
        let body = ORDER.replacen('{', r#"{"subject":"caf\u00e9","#, 1);
        assert_eq!(acme(&body).expect("an event").subject.as_deref(), Some("café"));
    }

    #[test]
    fn a_missing_or_wrong_field_is_named() {
        let check = |from: &str, to: &str, field: &str| {
            let error = acme(&ORDER.replacen(from, to, 1)).expect_err(field);
            assert_eq!(error.field, field, "{error}");
        };
        check("eventId", "other", "eventId");
        check(r#""e-1""#, "1", "eventId");
        check("e-1", "", "eventId");
        check("e-1", r"a\u0000b", "eventId");
        check("e-1", &"x".repeat(513), "eventId");
        check("eventType", "other", "eventType");
        check("2026-11-24T10:00:00Z", "yesterday", "occurredAt");
        check("2026-11-24T10:00:00Z", "2026-11-24T10:00:00", "occurredAt");
        check("2026-11-24T10:00:00Z", "-000001-12-31T23:59:59Z", "occurredAt");
        check(r#""data""#, r#""other""#, "data");
        check(r#"{"id":"o-1","total":12345678901234567890.10}"#, "[]", "data");
        check("o-1", r"\u0000", "data.id");
        check("{", "[", "body");
        check("}}", "}", "body");
    }

    #[test]
    fn what_is_no_json_object_is_refused_as_a_body() {
        for body in [&b""[..], b"null", b"[]", b"\"x\"", b"{\"a\":\"\xff\"}", b"{} {}", b"{\"a\":01}"] {
            let mapping = &preset::find("acme").expect("a preset").mapping;
            assert_eq!(normalize(mapping, body).expect_err("no event").field, "body", "{body:?}");
        }
    }

    #[test]
    fn nesting_is_bounded_and_brackets_in_texts_do_not_count() {
        let nested =
            |depth: usize| ORDER.replace("\"o-1\"", &format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
        assert!(acme(&nested(126)).is_ok());
        assert_eq!(acme(&nested(127)).expect_err("too deep").field, "body");
        assert_eq!(acme(&nested(10_000)).expect_err("too deep").field, "body");
        assert!(acme(&ORDER.replace("o-1", &r#"[\"{"#.repeat(100))).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let read = normalize(&preset::find("globex").expect("a preset").mapping, &body);
            prop_assert!(read.map_or_else(|error| !error.field.is_empty(), |fields| fields.payload.end <= body.len()));
        }
    }
}
