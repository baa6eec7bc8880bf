//! Finds the values of a JSON text that are events of their own: at paths in which `*` stands for every item of an array.
//!
//! No item is lost: one in which no path goes on is an event itself, and of a repeated member every value counts.

use std::fmt;

use serde::Deserializer;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Characters, Pointer, index, without_byte_order_mark};

/// The most events of one request.
pub const MAX_ELEMENTS: usize = 5_000;

/// A text with more events than one request may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the body has more than {MAX_ELEMENTS} events")]
pub struct TooManyElements;

/// Paths that are followed together.
#[derive(Debug, Default)]
pub struct SplitPaths(Step);

/// What follows a beginning that paths share.
#[derive(Debug, Default)]
struct Step {
    /// A path ends here.
    is_end: bool,
    /// For every item of an array.
    items: Option<Box<Step>>,
    /// For a member, or for the item of an array with that index.
    members: Vec<(String, Step)>,
}

impl SplitPaths {
    /// Parses paths; `None` if one is not a JSON Pointer with a `*`, or is inside another.
    pub fn parse(texts: &[String]) -> Option<Self> {
        let mut root = Step::default();
        for text in texts {
            let path = Pointer::parse(text)?;
            if !path.segments.iter().any(|segment| segment == "*") {
                return None;
            }
            let mut step = &mut root;
            for segment in &path.segments {
                step = (!step.is_end).then(|| step.child(segment))?;
            }
            if step.is_end || step.items.is_some() || !step.members.is_empty() {
                return None;
            }
            step.is_end = true;
        }
        Some(Self(root))
    }

    pub fn is_empty(&self) -> bool {
        self.0.items.is_none() && self.0.members.is_empty()
    }

    /// Returns the values in the order of the text: none if no path leads to an item, or if the bytes are not JSON.
    ///
    /// # Errors
    /// When there are too many.
    pub fn find<'a>(&self, body: &'a [u8]) -> Result<Vec<&'a RawValue>, TooManyElements> {
        let mut found = Found(Vec::new());
        let Ok(value) = serde_json::from_slice::<&RawValue>(without_byte_order_mark(body)) else {
            return Ok(Vec::new());
        };
        let walked = found.walk(&self.0, value);
        if found.0.len() > MAX_ELEMENTS {
            return Err(TooManyElements);
        }
        // What was parsed as a raw value is valid, and only a count stops the walk.
        debug_assert!(walked.is_ok());
        Ok(found.0)
    }
}

impl Step {
    fn child(&mut self, segment: &str) -> &mut Self {
        if segment == "*" {
            return self.items.get_or_insert_default();
        }
        let at = self.members.iter().position(|(name, _)| name == segment).unwrap_or_else(|| {
            self.members.push((segment.to_owned(), Self::default()));
            self.members.len() - 1
        });
        &mut self.members[at].1
    }

    fn item(&self, position: usize) -> Option<&Self> {
        let indexed = self.members.iter().find(|(name, _)| index(name) == Some(position));
        indexed.map(|(_, step)| step).or(self.items.as_deref())
    }
}

/// The values that were found so far.
struct Found<'a>(Vec<&'a RawValue>);

impl<'a> Found<'a> {
    fn walk(&mut self, step: &Step, value: &'a RawValue) -> serde_json::Result<()> {
        if step.is_end {
            return self.push(value);
        }
        let mut json = serde_json::Deserializer::from_str(value.get());
        match value.get().as_bytes().first() {
            Some(b'{') if !step.members.is_empty() => json.deserialize_map(Walk { step, found: self }),
            Some(b'[') => json.deserialize_seq(Walk { step, found: self }),
            _ => Ok(()),
        }
    }

    fn push(&mut self, element: &'a RawValue) -> serde_json::Result<()> {
        self.0.push(element);
        if self.0.len() > MAX_ELEMENTS { Err(serde_json::Error::custom(TooManyElements)) } else { Ok(()) }
    }
}

/// Reads one object or array.
struct Walk<'w, 'a> {
    step: &'w Step,
    found: &'w mut Found<'a>,
}

impl<'a> Visitor<'a> for Walk<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Characters(name)) = map.next_key()? {
            match self.step.members.iter().find(|(member, _)| *member.as_bytes() == *name) {
                Some((_, step)) => self.found.walk(step, map.next_value()?).map_err(A::Error::custom)?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        for position in 0.. {
            let Some(step) = self.step.item(position) else {
                if list.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
                continue;
            };
            let Some(item) = list.next_element::<&RawValue>()? else { break };
            let before = self.found.0.len();
            self.found.walk(step, item).map_err(A::Error::custom)?;
            if self.found.0.len() == before {
                self.found.push(item).map_err(A::Error::custom)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths(texts: &[&str]) -> Option<SplitPaths> {
        SplitPaths::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    fn found(body: &str, texts: &[&str]) -> Vec<String> {
        let elements = paths(texts).expect("paths").find(body.as_bytes()).expect("not too many");
        elements.into_iter().map(|element| element.get().to_owned()).collect()
    }

    #[test]
    fn every_item_is_found_in_the_order_of_the_text() {
        let check = |body: &str, texts: &[&str], expected: &[&str]| {
            assert_eq!(found(body, texts), expected, "{texts:?} in {body}");
        };
        check(r#"[{"a": 1.0}, 2,"x",null]"#, &["/*"], &[r#"{"a": 1.0}"#, "2", "\"x\"", "null"]);
        check("\u{feff} [1]", &["/*"], &["1"]);
        check(r#"{"b":[3],"a":[1,2]}"#, &["/a/*", "/b/*"], &["3", "1", "2"]);
        check(r#"{"\u0061":[1],"a":[2]}"#, &["/a/*"], &["1", "2"]);
        check(r#"[[1,2],[[3]]]"#, &["/*/*"], &["1", "2", "[3]"]);
        check(r#"{"l":[[1],[2,3]]}"#, &["/l/1/*"], &["2", "3"]);
        check(r#"{"a/b":{"*":[1]}}"#, &["/a~1b/*"], &[]);
        check(r#"[{"d":1},{"d":2}]"#, &["/*/d"], &["1", "2"]);
    }

    #[test]
    fn nothing_is_found_where_no_path_ends() {
        for body in
            ["{}", "[]", r#"{"events":[]}"#, r#"{"events":{"0":1}}"#, "7", "\"x\"", "{", "", "\u{feff}"]
        {
            assert_eq!(found(body, &["/events/*"]), Vec::<String>::new(), "{body}");
        }
    }

    #[test]
    fn an_item_in_which_no_path_goes_on_is_an_element_itself() {
        let texts = ["/entry/*/changes/*/messages/*", "/entry/*/changes/*/statuses/*"];
        let body = r#"{"entry":[{"changes":[{"messages":[1,2]},{"field":"other"},{"statuses":[3],"messages":[]}]},
            {"changes":[]},{"id":4},{"changes":[{"field":5},{"field":6}]}]}"#;
        let expected = [
            "1",
            "2",
            r#"{"field":"other"}"#,
            "3",
            r#"{"changes":[]}"#,
            r#"{"id":4}"#,
            r#"{"field":5}"#,
            r#"{"field":6}"#,
        ];
        assert_eq!(found(body, &texts), expected);
    }

    #[test]
    fn a_path_without_an_asterisk_or_inside_another_is_refused() {
        for texts in [
            &["/a"][..],
            &["a/*"],
            &[""],
            &["/a/*", "/a/*"],
            &["/a/*", "/a/*/b"],
            &["/a/*/b", "/a/*"],
            &["/a*"],
        ] {
            assert!(paths(texts).is_none(), "{texts:?}");
        }
        assert!(paths(&["/a/*", "/b/*", "/a*/*", "/*/a"]).is_some() && paths(&[]).expect("none").is_empty());
    }

    #[test]
    fn the_number_of_elements_is_bounded() {
        let body = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        let found =
            |count| paths(&["/*"]).expect("paths").find(body(count).as_bytes()).map(|found| found.len());
        assert_eq!((found(MAX_ELEMENTS), found(MAX_ELEMENTS + 1)), (Ok(MAX_ELEMENTS), Err(TooManyElements)));
        assert_eq!(found(1_000_000), Err(TooManyElements));
    }

    proptest! {
        #[test]
        fn any_bytes_are_split_without_a_panic_and_into_parts_of_them(text in r#"[\[\]{}:,"a*0 \\]{0,60}"#) {
            let paths = paths(&["/*", "/a/*/a"]).expect("paths");
            let elements = paths.find(text.as_bytes()).expect("not too many");
            for element in elements {
                prop_assert!(super::super::range_in(text.as_bytes(), element).end <= text.len());
            }
        }
    }
}
