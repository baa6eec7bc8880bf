//! Finds values in a JSON text without parsing the rest, and without changing them: a value stays the slice that it was.
//!
//! Of a repeated member the last one counts, as in most parsers.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

pub use canonical::{Omitted, canonical};
pub use pointer_set::{FoundValues, PointerSet};
pub use split::{MAX_ELEMENTS, SplitPaths, TooManyElements};

mod canonical;
mod pointer_set;
mod split;

/// A JSON Pointer (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    segments: Vec<String>,
    /// The field as errors name it: `data.id`.
    pub field: String,
}

impl Pointer {
    /// Parses a pointer; `None` if the text is not one. The empty pointer means the whole document.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self { segments: Vec::new(), field: "body".to_owned() });
        }
        let path = text.strip_prefix('/')?;
        // The order matters: ~01 is ~1, not /.
        let unescape = |segment: &str| segment.replace("~1", "/").replace("~0", "~");
        let segments: Vec<String> = path.split('/').map(unescape).collect();
        Some(Self { field: segments.join("."), segments })
    }

    pub fn is_whole(&self) -> bool {
        self.segments.is_empty()
    }

    /// The name of the member that it points to.
    pub fn member(&self) -> &str {
        self.segments.last().map_or("", String::as_str)
    }
}

/// Returns a text without the UTF-8 byte order mark that some senders put before it. JSON texts must not begin with one, and
/// parsers may ignore it (RFC 8259, section 8.1).
pub fn without_byte_order_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// A JSON text whose outermost members are known.
pub enum JsonDocument<'a> {
    Object(Members<'a>),
    Other(&'a RawValue),
}

impl<'a> JsonDocument<'a> {
    /// # Errors
    /// When the bytes are not one JSON value in UTF-8.
    pub fn parse(body: &'a [u8]) -> serde_json::Result<Self> {
        let text = std::str::from_utf8(without_byte_order_mark(body)).map_err(serde_json::Error::custom)?;
        if text.trim_ascii_start().starts_with('{') {
            return serde_json::from_str(text).map(Self::Object);
        }
        serde_json::from_str(text).map(Self::Other)
    }

    /// Returns the value that the pointer points to. An object as a whole is not found: nobody needs it as a value.
    pub fn find(&self, pointer: &Pointer) -> Option<&'a RawValue> {
        let (first, rest) = match (self, pointer.segments.as_slice()) {
            (Self::Object(members), [first, rest @ ..]) => (members.get(first)?, rest),
            (Self::Other(value), segments) => (*value, segments),
            (Self::Object(_), []) => return None,
        };
        rest.iter().try_fold(first, |value, segment| step(value, segment))
    }
}

fn step<'a>(value: &'a RawValue, segment: &str) -> Option<&'a RawValue> {
    if value.get().starts_with('[') {
        let index = index(segment)?;
        return elements(value)?.into_iter().nth(index);
    }
    let members: Members<'a> = serde_json::from_str(value.get()).ok()?;
    members.get(segment)
}

/// Parses the index of an element: digits without leading zeros.
fn index(segment: &str) -> Option<usize> {
    let is_index = segment == "0" || !segment.starts_with(['0', '+']);
    segment.parse().ok().filter(|_| is_index)
}

/// Returns the text of a value: decoded if it is a string, unchanged if it is a number or a boolean. Null, objects and lists
/// have none.
pub fn scalar(value: &RawValue) -> Option<Cow<'_, str>> {
    match value.get().as_bytes().first()? {
        b'"' => text(value),
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(value.get())),
    }
}

/// Returns the text of a string, and of nothing else.
pub fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    if !value.get().starts_with('"') {
        return None;
    }
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

/// Returns the range of a value in the text in which it was found.
pub fn range_in(body: &[u8], value: &RawValue) -> std::ops::Range<usize> {
    // RawValue borrows from the body, so the distance between the two is its offset.
    let start = value.get().as_ptr() as usize - body.as_ptr() as usize;
    start..start + value.get().len()
}

/// Returns where the scalars are that the pointer leads to in the body, if an index means every element of its list and a name
/// every member that has it.
pub fn ranges_of_scalars(body: &[u8], pointer: &Pointer) -> Vec<std::ops::Range<usize>> {
    let Ok(value) = serde_json::from_slice::<&RawValue>(without_byte_order_mark(body)) else {
        return Vec::new();
    };
    let mut found = vec![value];
    for segment in &pointer.segments {
        found = found.into_iter().flat_map(|value| step_to_all(value, segment)).collect();
    }
    let scalars = found.into_iter().filter(|value| scalar(value).is_some());
    scalars.map(|value| range_in(body, value)).collect()
}

fn step_to_all<'a>(value: &'a RawValue, segment: &str) -> Vec<&'a RawValue> {
    if value.get().starts_with('[') {
        return index(segment).and_then(|_| elements(value)).unwrap_or_default();
    }
    let members: serde_json::Result<Members<'a>> = serde_json::from_str(value.get());
    let members = members.map(|members| members.0).unwrap_or_default();
    members.into_iter().filter(|(name, _)| **name == *segment.as_bytes()).map(|(_, value)| value).collect()
}

/// A text that is borrowed if it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The characters of a string in UTF-8, in which half of a surrogate pair is encoded as if it were a character. They are
/// borrowed if the string has no escapes.
struct Characters<'a>(Cow<'a, [u8]>);

impl<'de> Deserialize<'de> for Characters<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CharactersVisitor;
        impl<'de> Visitor<'de> for CharactersVisitor {
            type Value = Characters<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Characters(Cow::Borrowed(bytes)))
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Characters(Cow::Owned(bytes.to_vec())))
            }
        }
        deserializer.deserialize_bytes(CharactersVisitor)
    }
}

/// The members of an object, unparsed.
pub struct Members<'a>(Vec<(Cow<'a, [u8]>, &'a RawValue)>);

impl<'a> Members<'a> {
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(member, _)| **member == *name.as_bytes()).map(|(_, value)| *value)
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
                while let Some((Characters(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Returns the elements of a list, unparsed; `None` if the value is not a list.
fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    struct Elements<'a>(Vec<&'a RawValue>);
    impl<'de> Deserialize<'de> for Elements<'de> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct ElementsVisitor;
            impl<'de> Visitor<'de> for ElementsVisitor {
                type Value = Elements<'de>;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a list")
                }

                fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                    let mut elements = Vec::new();
                    while let Some(element) = list.next_element()? {
                        elements.push(element);
                    }
                    Ok(Elements(elements))
                }
            }
            deserializer.deserialize_seq(ElementsVisitor)
        }
    }
    serde_json::from_str::<Elements<'_>>(value.get()).ok().map(|elements| elements.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str, pointer: &str) -> Option<String> {
        let pointer = Pointer::parse(pointer).expect("a pointer");
        let document = JsonDocument::parse(json.as_bytes()).expect("JSON");
        document.find(&pointer).and_then(scalar).map(Cow::into_owned)
    }

    #[test]
    fn pointers_follow_rfc_6901() {
        let json =
            r#"{"a/b":{"m~n":{"~1":"x"}},"list":[{"id":1},{"id":2.50}],"":true,"n":null,"s":"caf\u00e9"}"#;
        assert_eq!(found(json, "/a~1b/m~0n/~01").as_deref(), Some("x"));
        assert_eq!(found(json, "/list/1/id").as_deref(), Some("2.50"));
        assert_eq!(found(json, "/").as_deref(), Some("true"));
        assert_eq!(found(json, "/s").as_deref(), Some("café"));
        assert_eq!(found(r#"[[7]]"#, "/0/0").as_deref(), Some("7"));
        for absent in ["/n", "/list", "/list/2/id", "/list/01/id", "/list/+1/id", "/list/-/id", "/s/x", "/x"]
        {
            assert_eq!(found(json, absent), None, "{absent}");
        }
        assert!(Pointer::parse("a").is_none());
    }

    #[test]
    fn neither_half_a_surrogate_pair_nor_a_byte_order_mark_hides_a_member() {
        for json in [r#"{"\ud83d":1,"a":{"\ud83d":"\ud83d","b":"x"}}"#, "\u{feff}{\"a\":{\"b\":\"x\"}}"] {
            assert_eq!(found(json, "/a/b").as_deref(), Some("x"), "{json}");
        }
    }
}
