//! Writes a JSON value so that equal values become equal texts.

use serde_json::value::RawValue;

use super::{Characters, Members, Pointer, elements, index};

/// Values that are left out of a canonical text, and whatever is in them.
#[derive(Debug, Default)]
pub struct Omitted {
    /// A pointer ends here.
    is_end: bool,
    /// What follows, by the segment that leads to it.
    below: Vec<(String, Self)>,
}

impl Omitted {
    pub const NOTHING: &Self = &Self { is_end: false, below: Vec::new() };

    /// A pointer to the whole value is left out of the set: something must be written.
    pub fn new<'p>(pointers: impl IntoIterator<Item = &'p Pointer>) -> Self {
        let mut root = Self::default();
        for pointer in pointers.into_iter().filter(|pointer| !pointer.is_whole()) {
            let end = pointer.segments.iter().fold(&mut root, |above, segment| above.child(segment));
            end.is_end = true;
        }
        root
    }

    pub fn is_empty(&self) -> bool {
        self.below.is_empty()
    }

    /// Returns whether the value at the pointer is left out, alone or with one that it is in.
    pub fn covers(&self, pointer: &Pointer) -> bool {
        let mut above = self;
        for segment in &pointer.segments {
            match above.member(segment.as_bytes()) {
                Some(below) if below.is_end => return true,
                Some(below) => above = below,
                None => return false,
            }
        }
        false
    }

    fn child(&mut self, segment: &str) -> &mut Self {
        let at = self.below.iter().position(|(name, _)| name == segment).unwrap_or_else(|| {
            self.below.push((segment.to_owned(), Self::default()));
            self.below.len() - 1
        });
        &mut self.below[at].1
    }

    fn member(&self, name: &[u8]) -> Option<&Self> {
        self.below.iter().find(|(segment, _)| segment.as_bytes() == name).map(|(_, below)| below)
    }

    fn item(&self, position: usize) -> Option<&Self> {
        self.below.iter().find(|(segment, _)| index(segment) == Some(position)).map(|(_, below)| below)
    }
}

/// Writes the value so that equal values become equal texts: members in the order of their names, no white space, strings
/// with the same escapes. Numbers are left as they are, so that none becomes another. What is omitted is written as if it were
/// not there. The caller must have bounded the nesting.
///
/// Returns whether the text stands for this value alone, apart from what is omitted. It does not if a string has half of a
/// surrogate pair, for which there is no text, or if a name is repeated, since only the last of its values is written.
pub fn canonical(value: &str, omitted: &Omitted, out: &mut Vec<u8>) -> bool {
    match value.as_bytes().first() {
        Some(b'{') => {
            let Ok(Members(mut members)) = serde_json::from_str::<Members<'_>>(value) else { return false };
            // Of members with the same name the last counts, and a stable sort keeps it last.
            members.sort_by(|one, other| one.0.cmp(&other.0));
            let mut is_exact = true;
            out.push(b'{');
            for (index, (name, value)) in members.iter().enumerate() {
                let below = omitted.member(name).unwrap_or(Omitted::NOTHING);
                if below.is_end {
                    continue;
                }
                if members.get(index + 1).is_some_and(|next| next.0 == *name) {
                    is_exact = false;
                    continue;
                }
                is_exact &= push_text(name, out);
                out.push(b':');
                is_exact &= canonical(value.get(), below, out);
                out.push(b',');
            }
            out.push(b'}');
            is_exact
        }
        Some(b'[') => {
            let Ok(value) = serde_json::from_str::<&RawValue>(value) else { return false };
            let mut is_exact = true;
            out.push(b'[');
            for (position, element) in elements(value).unwrap_or_default().into_iter().enumerate() {
                let below = omitted.item(position).unwrap_or(Omitted::NOTHING);
                if below.is_end {
                    continue;
                }
                is_exact &= canonical(element.get(), below, out);
                out.push(b',');
            }
            out.push(b']');
            is_exact
        }
        Some(b'"') => serde_json::from_str::<Characters<'_>>(value).is_ok_and(|text| push_text(&text.0, out)),
        _ => {
            out.extend_from_slice(value.as_bytes());
            true
        }
    }
}

/// Writes a string. Returns whether it could: nothing is written for one that has half of a surrogate pair.
fn push_text(text: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    serde_json::to_writer(out, text).expect("a string can be written to a vector");
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(json: &str, pointers: &[&str]) -> (String, bool) {
        let pointers: Vec<Pointer> =
            pointers.iter().map(|text| Pointer::parse(text).expect("a pointer")).collect();
        let mut out = Vec::new();
        let is_exact = canonical(json, &Omitted::new(&pointers), &mut out);
        (String::from_utf8(out).expect("text"), is_exact)
    }

    #[test]
    fn equal_values_have_one_canonical_text_and_others_another() {
        let canonical = |json: &str| {
            let (text, is_exact) = without(json, &[]);
            assert!(is_exact, "{json}");
            text
        };
        let one = canonical(r#"{ "b" : [1, {"x":null}], "a":"\u00e9" }"#);
        assert_eq!(one, canonical(r#"{"a":"é","b":[1,{"x":null}]}"#));
        assert_ne!(canonical(r#"{"a":12345678901234567890}"#), canonical(r#"{"a":12345678901234567891}"#));
        assert_ne!(canonical(r#"["1"]"#), canonical("[1]"));
        assert_ne!(canonical(r#"{"a":1}"#), canonical(r#"{"b":1}"#));
    }

    #[test]
    fn a_value_that_has_no_text_of_its_own_is_told() {
        for json in [r#"{"a":"\ud83d"}"#, r#"{"\ud83d":1}"#, r#"[["\ude00"]]"#, r#"{"a":1,"a":2}"#] {
            assert!(!without(json, &[]).1, "{json}");
        }
        assert!(without(r#"["\ud83d\ude00"]"#, &[]).1);
    }

    #[test]
    fn what_is_omitted_makes_no_difference_and_all_else_does() {
        let text = |json: &str| without(json, &["/n", "/a/n", "/l/1/n", "/a~1b", ""]);
        let plain = r#"{"a":{"x":1},"l":[{"n":1},{"x":2}]}"#;
        for same in [
            r#"{"n":7,"a":{"x":1},"l":[{"n":1},{"x":2}]}"#,
            r#"{"a":{"n":[{"deep":"\ud83d"}],"x":1},"l":[{"n":1},{"n":null,"x":2}]}"#,
            r#"{"\u006e":1,"a/b":2,"n":3,"l":[{"n":1},{"x":2}],"a":{"x":1}}"#,
        ] {
            assert_eq!(text(same), text(plain), "{same}");
            assert!(text(same).1, "{same}");
        }
        for other in [
            r#"{"a":{"x":1},"l":[{"n":2},{"x":2}]}"#,
            r#"{"a":{"x":1},"l":[{"n":1},{"x":2,"m":1}]}"#,
            r#"{"a":{"x":1,"b":{"n":1}},"l":[{"n":1},{"x":2}]}"#,
            r#"{"A":{"x":1},"a":{"x":1},"l":[{"n":1},{"x":2}]}"#,
        ] {
            assert_ne!(text(other), text(plain), "{other}");
        }
        assert_eq!(without("[1,2]", &["/0"]), without("[3,2]", &["/0"]));
    }

    #[test]
    fn a_value_in_an_omitted_one_is_omitted() {
        let pointer = |text: &str| Pointer::parse(text).expect("a pointer");
        let omitted = Omitted::new(&[pointer("/a/b"), pointer("/c")]);
        for (path, covered) in
            [("/a/b", true), ("/a/b/x", true), ("/c/0", true), ("/a", false), ("/a/x", false), ("", false)]
        {
            assert_eq!(omitted.covers(&pointer(path)), covered, "{path}");
        }
        assert!(!omitted.is_empty() && Omitted::new(&[pointer("")]).is_empty());
    }
}
