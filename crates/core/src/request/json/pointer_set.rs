//! Finds several values of a JSON text in one pass: a message may be made of a dozen.
//!
//! It finds the same values as [`JsonDocument`] does one by one, and reads no more of the text.

use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Characters, JsonDocument, Pointer, index, without_byte_order_mark};

/// Pointers that are looked up together. A pointer to the whole text is left out: nothing is found there.
#[derive(Debug, Default)]
pub struct PointerSet {
    all: Vec<Pointer>,
    root: Branch,
}

/// The pointers that share a beginning.
#[derive(Debug, Default)]
struct Branch {
    /// The index of the pointer that ends here.
    slot: Option<usize>,
    below: Vec<Child>,
}

#[derive(Debug)]
struct Child {
    segment: String,
    /// The segment as the index of an element.
    index: Option<usize>,
    branch: Branch,
}

/// The values that were found.
#[derive(Debug)]
pub struct FoundValues<'a> {
    pointers: &'a PointerSet,
    values: Vec<Option<&'a RawValue>>,
}

impl PointerSet {
    pub fn new<'p>(pointers: impl IntoIterator<Item = &'p Pointer>) -> Self {
        let mut set = Self::default();
        for pointer in pointers {
            if pointer.is_whole() || set.all.contains(pointer) {
                continue;
            }
            let end = pointer.segments.iter().fold(&mut set.root, |branch, segment| branch.child(segment));
            end.slot = Some(set.all.len());
            set.all.push(pointer.clone());
        }
        set
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// # Errors
    /// When the bytes are not one JSON value in UTF-8.
    pub fn find<'a>(&'a self, body: &'a [u8]) -> serde_json::Result<FoundValues<'a>> {
        if let Some(found) = self.walk(body) {
            return Ok(found);
        }
        // Something on the way cannot be parsed, such as a number out of range; other values may still be found.
        let document = JsonDocument::parse(body)?;
        let values = self.all.iter().map(|pointer| document.find(pointer)).collect();
        Ok(FoundValues { pointers: self, values })
    }

    /// The result for a text in which nothing is found.
    pub fn none_found(&self) -> FoundValues<'_> {
        FoundValues { pointers: self, values: vec![None; self.all.len()] }
    }

    fn walk<'a>(&'a self, body: &'a [u8]) -> Option<FoundValues<'a>> {
        let text = std::str::from_utf8(without_byte_order_mark(body)).ok()?;
        let mut found = self.none_found();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let walk = Walk { branch: &self.root, values: &mut found.values };
        walk.deserialize(&mut deserializer).ok()?;
        deserializer.end().ok()?;
        Some(found)
    }
}

impl<'a> FoundValues<'a> {
    /// Returns the value there, if any; `None` if the pointer is not in the set.
    pub fn get(&self, pointer: &Pointer) -> Option<Option<&'a RawValue>> {
        let slot = self.pointers.all.iter().position(|looked_up| looked_up == pointer)?;
        Some(self.values[slot])
    }
}

impl Branch {
    fn child(&mut self, segment: &str) -> &mut Self {
        let at = self.below.iter().position(|child| child.segment == segment).unwrap_or_else(|| {
            let child = Child { segment: segment.to_owned(), index: index(segment), branch: Self::default() };
            self.below.push(child);
            self.below.len() - 1
        });
        &mut self.below[at].branch
    }

    /// Forgets the values of an earlier member with the same name.
    fn clear(&self, values: &mut [Option<&RawValue>]) {
        if let Some(slot) = self.slot {
            values[slot] = None;
        }
        self.below.iter().for_each(|child| child.branch.clear(values));
    }
}

/// Reads one value of the text.
struct Walk<'w, 'a> {
    branch: &'w Branch,
    values: &'w mut [Option<&'a RawValue>],
}

impl<'a> DeserializeSeed<'a> for Walk<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        let Some(slot) = self.branch.slot else { return deserializer.deserialize_any(self) };
        let value = <&RawValue>::deserialize(deserializer)?;
        self.values[slot] = Some(value);
        if self.branch.below.is_empty() {
            return Ok(());
        }
        serde_json::Deserializer::from_str(value.get()).deserialize_any(self).map_err(D::Error::custom)
    }
}

impl<'a> Visitor<'a> for Walk<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Characters(name)) = map.next_key()? {
            match self.branch.below.iter().find(|child| *child.segment.as_bytes() == *name) {
                Some(Child { branch, .. }) => {
                    branch.clear(self.values);
                    map.next_value_seed(Walk { branch, values: &mut *self.values })?;
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        for index in 0.. {
            let element = match self.branch.below.iter().find(|child| child.index == Some(index)) {
                Some(Child { branch, .. }) => {
                    list.next_element_seed(Walk { branch, values: &mut *self.values })?
                }
                None => list.next_element::<IgnoredAny>()?.map(|_| ()),
            };
            if element.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pointers(texts: &[&str]) -> Vec<Pointer> {
        texts.iter().map(|text| Pointer::parse(text).expect("a pointer")).collect()
    }

    /// Checks that each pointer finds the same together with the others and alone.
    fn check(json: &str, texts: &[&str]) {
        let all = pointers(texts);
        let set = PointerSet::new(&all);
        let document = JsonDocument::parse(json.as_bytes());
        let Ok(found) = set.find(json.as_bytes()) else { return assert!(document.is_err(), "{json}") };
        let document = document.expect("it was read");
        for (pointer, text) in all.iter().zip(texts) {
            let together = found.get(pointer).map(|value| value.map(RawValue::get));
            let alone = document.find(pointer).map(RawValue::get);
            assert_eq!(together, (!pointer.is_whole()).then_some(alone), "{text} in {json}");
        }
    }

    #[test]
    fn several_values_are_found_as_each_alone() {
        let texts = ["/a", "/a/b", "/a/b/0", "/a/b/1/c", "/a/b/01", "/a~1b", "/list/2", "/0", "", "/a/0"];
        for json in [
            r#"{"a":{"b":[1,{"c":2.50}]},"a/b":"x","list":[[],[],{"d":1}]}"#,
            r#"[{"b":1},2,3]"#,
            r#"{"a":{"b":[0]},"a":{"c":1}}"#,
            r#"{"a":{"b":[0]},"a":7}"#,
            r#"{"\u0061":{"b":{"0":1,"01":2}}}"#,
            r#"{"a":1e999,"list":[1e999,0,3]}"#,
            r#"{"a":{"b":"\ud800"},"0":"\ud800","list":[1,2,3]}"#,
            r#"{"a":{"\ud800":1,"b":[1]},"list":[1,2,3]}"#,
            "1e999",
            "7",
            r#""a""#,
            "null",
            "{",
            "[1,]",
            r#"{"a":1} x"#,
            "",
        ] {
            check(json, &texts);
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_refused_and_nothing_is_found_in_them() {
        let all = pointers(&["/a"]);
        let set = PointerSet::new(&all);
        assert!(set.find(b"{\"a\":1,\"b\":\"\xff\"}").is_err());
        assert!(set.find(b"{\"a\":1,\"\xff\":1}").is_err());
        assert!(set.none_found().get(&all[0]).is_some_and(|value| value.is_none()));
        assert!(PointerSet::new(&pointers(&[""])).is_empty());
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("1".to_owned()),
            Just("-0.5e3".to_owned()),
            Just("1e999".to_owned()),
            Just("true".to_owned()),
            Just("null".to_owned()),
            Just(r#""a\u00e9""#.to_owned()),
        ];
        let name = prop::sample::select(vec!["a", "b", "0", "1", "\\u0061", "~", "/"]);
        leaf.prop_recursive(4, 40, 4, move |inner| {
            let member =
                (name.clone(), inner.clone()).prop_map(|(name, value)| format!("\"{name}\": {value}"));
            prop_oneof![
                prop::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(", "))),
                prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(" ,"))),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_the_text_they_are_found_as_each_alone(
            json in json(),
            paths in prop::collection::vec(prop::collection::vec(prop::sample::select(vec!["a", "b", "0", "1", "~0", "~1"]), 1..4), 1..8),
        ) {
            let texts: Vec<String> = paths.iter().map(|path| format!("/{}", path.join("/"))).collect();
            check(&json, &texts.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}
