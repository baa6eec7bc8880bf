//! JSON as a tree that can be folded, for people.
//!
//! It is read as text and never as numbers, so each digit stays as it was sent, and members keep their order. It is bounded: what is too deep, too
//! long or too much is cut, and says so, and the raw body has it all.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::console::show;

/// Values that are shown.
const MAX_VALUES: usize = 2_000;

/// Values inside of each other that are shown.
const MAX_DEPTH: usize = 24;

/// Characters of a text, and of the name of a member, that are shown.
const MAX_CHARS: usize = 2_000;
const MAX_NAME_CHARS: usize = 200;

/// Values at this depth are folded when nothing is searched.
const FOLDED_DEPTH: usize = 3;

/// A part of the tree, in the order of the document.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// An object or an array; its values follow, up to the `Close` of the same depth.
    Open {
        name: Option<Text>,
        size: String,
        is_open: bool,
    },
    Close,
    Value {
        name: Option<Text>,
        kind: Kind,
        text: Text,
    },
    /// What is not shown.
    Left {
        text: String,
    },
}

/// The type of a value, which decides how it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    /// true, false or null.
    Word,
}

impl Kind {
    /// Returns the name of its style.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Text => "s",
            Self::Number => "n",
            Self::Word => "k",
        }
    }
}

/// A text in pieces, of which some are what was searched.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Text(pub(super) Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) is_found: bool,
}

/// A document as a tree.
#[derive(Debug, Default)]
pub(super) struct PayloadTree {
    pub(super) parts: Vec<Part>,
    /// Names and values in which the text that was searched is.
    pub(super) found: usize,
}

impl PayloadTree {
    /// Reads a JSON document. `search` is looked for in names and values, in upper or lower case; what contains it is unfolded.
    pub(super) fn new(json: &RawValue, search: &str) -> Self {
        let mut reader = Reader { search: search.to_lowercase(), values: 0, tree: Self::default() };
        reader.read(None, json, 0);
        reader.tree
    }
}

struct Reader {
    search: String,
    values: usize,
    tree: PayloadTree,
}

impl Reader {
    /// Reads a value at a depth, and returns whether what was searched is in it.
    fn read(&mut self, name: Option<&str>, json: &RawValue, depth: usize) -> bool {
        self.values += 1;
        let text = json.get();
        match text.as_bytes().first() {
            Some(b'{' | b'[') if depth >= MAX_DEPTH => {
                let (name, found) = self.name(name);
                let text = Text::plain(format!("… {} characters, too deep to be shown", text.len()));
                self.tree.parts.push(Part::Value { name, kind: Kind::Word, text });
                found
            }
            Some(b'{') => match serde_json::from_str::<Members<'_>>(text) {
                Ok(Members(members)) => {
                    let values = members.iter().map(|(name, value)| (Some(&**name), *value));
                    self.read_values(name, "member", values.collect(), depth)
                }
                Err(_) => self.read_scalar(name, Kind::Word, text),
            },
            Some(b'[') => match serde_json::from_str::<Items<'_>>(text) {
                Ok(Items(items)) => self.read_values(
                    name,
                    "item",
                    items.into_iter().map(|item| (None, item)).collect(),
                    depth,
                ),
                Err(_) => self.read_scalar(name, Kind::Word, text),
            },
            Some(b'"') => {
                // A lone surrogate is no text; it is shown as it is written.
                let value = serde_json::from_str::<String>(text).unwrap_or_else(|_| text.to_owned());
                self.read_scalar(name, Kind::Text, &value)
            }
            Some(b't' | b'f' | b'n') => self.read_scalar(name, Kind::Word, text),
            _ => self.read_scalar(name, Kind::Number, text),
        }
    }

    fn read_values(
        &mut self,
        name: Option<&str>,
        kind: &str,
        values: Vec<(Option<&str>, &RawValue)>,
        depth: usize,
    ) -> bool {
        let (name, mut found) = self.name(name);
        let plural = if values.len() == 1 { "" } else { "s" };
        let size = format!("{} {kind}{plural}", values.len());
        let start = self.tree.parts.len();
        self.tree.parts.push(Part::Open { name, size, is_open: false });
        let count = values.len();
        for (index, (name, value)) in values.into_iter().enumerate() {
            if self.values >= MAX_VALUES {
                let text = format!("… {} more, which the raw body has", count - index);
                self.tree.parts.push(Part::Left { text });
                break;
            }
            found |= self.read(name, value, depth + 1);
        }
        self.tree.parts.push(Part::Close);
        let unfolded = if self.search.is_empty() { depth < FOLDED_DEPTH } else { found || depth == 0 };
        if let Some(Part::Open { is_open, .. }) = self.tree.parts.get_mut(start) {
            *is_open = unfolded;
        }
        found
    }

    fn read_scalar(&mut self, name: Option<&str>, kind: Kind, value: &str) -> bool {
        let (name, name_found) = self.name(name);
        let (mut text, found) = self.text(value, MAX_CHARS);
        if kind == Kind::Text {
            text.quote();
        }
        self.tree.parts.push(Part::Value { name, kind, text });
        name_found || found
    }

    fn name(&mut self, name: Option<&str>) -> (Option<Text>, bool) {
        match name {
            None => (None, false),
            Some(name) => {
                let (text, found) = self.text(name, MAX_NAME_CHARS);
                (Some(text), found)
            }
        }
    }

    /// Cuts a text to length, and into what was searched and the rest.
    fn text(&mut self, value: &str, max_chars: usize) -> (Text, bool) {
        let (end, left) = match value.char_indices().nth(max_chars) {
            None => (value.len(), 0),
            Some((end, _)) => (end, value[end..].chars().count()),
        };
        let shown = show::lines(value.get(..end).unwrap_or_default(), max_chars);
        let mut text = Text::searched(&shown, &self.search);
        let is_found = text.0.iter().any(|piece| piece.is_found);
        self.tree.found += usize::from(is_found);
        if left > 0 {
            text.0.push(Piece { text: format!("… {left} more characters"), is_found: false });
        }
        (text, is_found)
    }
}

impl Text {
    fn plain(text: impl Into<String>) -> Self {
        Self(vec![Piece { text: text.into(), is_found: false }])
    }

    /// `search` is in lower case. Where lower case has another length, nothing is marked.
    fn searched(text: &str, search: &str) -> Self {
        let lower = text.to_lowercase();
        if search.is_empty() || lower.len() != text.len() {
            return Self::plain(text);
        }
        let (mut pieces, mut end) = (Vec::new(), 0);
        for (start, part) in lower.match_indices(search) {
            let next = start + part.len();
            let (Some(before), Some(found)) = (text.get(end..start), text.get(start..next)) else {
                return Self::plain(text);
            };
            if !before.is_empty() {
                pieces.push(Piece { text: before.to_owned(), is_found: false });
            }
            pieces.push(Piece { text: found.to_owned(), is_found: true });
            end = next;
        }
        if let Some(rest) = text.get(end..).filter(|rest| !rest.is_empty()) {
            pieces.push(Piece { text: rest.to_owned(), is_found: false });
        }
        Self(pieces)
    }

    fn quote(&mut self) {
        self.0.insert(0, Piece { text: "\"".to_owned(), is_found: false });
        self.0.push(Piece { text: "\"".to_owned(), is_found: false });
    }
}

/// The members of an object, in their order, each value as it is written.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// The items of an array, each as it is written.
struct Items<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemsVisitor;
        impl<'de> Visitor<'de> for ItemsVisitor {
            type Value = Items<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some(item) = items.next_element()? {
                    values.push(item);
                }
                Ok(Items(values))
            }
        }
        deserializer.deserialize_seq(ItemsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line for each part.
    fn drawn(json: &str, search: &str) -> String {
        let raw = RawValue::from_string(json.to_owned()).expect("JSON");
        let text = |text: &Text| {
            let piece =
                |piece: &Piece| if piece.is_found { format!("[{}]", piece.text) } else { piece.text.clone() };
            text.0.iter().map(piece).collect::<String>()
        };
        let name =
            |name: &Option<Text>| name.as_ref().map_or_else(String::new, |name| format!("{}: ", text(name)));
        let line = |part: &Part| match part {
            Part::Open { name: of, size, is_open } => {
                format!("{}{} {size}\n", name(of), if *is_open { "-" } else { "+" })
            }
            Part::Close => ".\n".to_owned(),
            Part::Value { name: of, kind, text: value } => {
                format!("{}{} {}\n", name(of), kind.class(), text(value))
            }
            Part::Left { text } => format!("{text}\n"),
        };
        PayloadTree::new(&raw, search).parts.iter().map(line).collect()
    }

    #[test]
    fn members_keep_their_order_and_numbers_their_digits() {
        insta::assert_snapshot!(drawn(r#"{"z": 12345678901234567890.10, "a": [true, null, "é\n"], "": {}}"#, ""), @r#"
        - 3 members
        z: n 12345678901234567890.10
        a: - 3 items
        k true
        k null
        s "é
        "
        .
        : - 0 members
        .
        .
        "#);
    }

    #[test]
    fn what_is_searched_is_marked_and_unfolded() {
        let json =
            r#"{"Order": {"id": "ord-1"}, "other": {"deep": {"note": "an ORDER of oRd"}}, "rest": {"a": 1}}"#;
        insta::assert_snapshot!(drawn(json, "ord"), @r#"
        - 3 members
        [Ord]er: - 1 member
        id: s "[ord]-1"
        .
        other: - 1 member
        deep: - 1 member
        note: s "an [ORD]ER of [oRd]"
        .
        .
        rest: + 1 member
        a: n 1
        .
        .
        "#);
    }

    #[test]
    fn what_is_too_much_is_cut_and_says_so() {
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        let drawn_deep = drawn(&deep, "");
        assert!(drawn_deep.contains("too deep"), "{drawn_deep}");
        let long = drawn(&format!("[{}0]", "0,".repeat(5_000)), "");
        assert!(long.contains("… 3002 more"), "{}", &long[long.len() - 100..]);
        let text = drawn(&format!("\"{}\"", "x".repeat(1_000_000)), "");
        assert!(text.len() < 3_000 && text.contains("998000 more characters"));
    }

    #[test]
    fn markup_and_turned_text_stay_text() {
        let shown = drawn(r#"{"<b>": "\u202e</script>"}"#, "script");
        assert_eq!(shown, "- 1 member\n<b>: s \"[U+202E]</[script]>\"\n.\n");
        assert!(drawn(r#""\ud800""#, "").contains(r"\ud800"));
    }
}
