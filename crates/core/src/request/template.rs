//! Texts with placeholders, parsed once: the message that is signed, the answer of a handshake, and what a condition expects.
//!
//! A message is written piece by piece to whoever computes over it and is never built as a whole.

use std::borrow::Cow;

use ring::digest;

use crate::request::{Incoming, Place};

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    Value(Value, Vec<Filter>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Body,
    Timestamp,
    Method,
    Url,
    Secret,
    SortedForm,
    Place(Place),
    /// The integration's MAC over the joined values.
    Hmac(Vec<Place>),
    /// The integration's signature over the joined values.
    Sign(Vec<Place>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    /// The CRC-32 in decimal.
    Crc32,
    /// The SHA-256 in hexadecimal.
    Sha256,
    /// Twelve percent-escapes of a URL decoded, others untouched.
    Unescape,
    /// A JSON string with its quotes.
    Json,
    Hex,
    Base64,
}

/// What the placeholders stand for.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub incoming: Incoming<'a>,
    pub timestamp: &'a [u8],
    pub secret: &'a [u8],
    pub url: Url<'a>,
}

/// The URL that was called, in the form in which it is signed.
#[derive(Clone, Copy)]
pub enum Url<'a> {
    /// From the platform's public URL and the request, as they are.
    AsReceived,
    /// In place of everything before the query.
    Base(&'a str),
    /// As a whole.
    Text(&'a str),
}

/// What a template can ask a key for.
pub trait Keyed {
    fn hmac(&self, pieces: &[Cow<'_, [u8]>]) -> Vec<u8>;
    fn sign(&self, pieces: &[Cow<'_, [u8]>]) -> Vec<u8>;
}

/// For messages, which ask no key.
pub struct Keyless;

impl Keyed for Keyless {
    fn hmac(&self, _: &[Cow<'_, [u8]>]) -> Vec<u8> {
        Vec::new()
    }

    fn sign(&self, _: &[Cow<'_, [u8]>]) -> Vec<u8> {
        Vec::new()
    }
}

impl Template {
    /// `None` when the text is no template.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = rest.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else {
                let (placeholder, after) = rest.strip_prefix('{')?.split_once('}')?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal).into_bytes()));
                }
                parts.push(placeholder_of(placeholder)?);
                rest = after;
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into_bytes()));
        }
        Some(Self(parts))
    }

    /// Whether the value is part of the message.
    pub fn has_timestamp(&self) -> bool {
        self.has(|value| *value == Value::Timestamp)
    }

    pub fn has_url(&self) -> bool {
        self.has(|value| *value == Value::Url)
    }

    pub fn covers_body(&self) -> bool {
        self.has(|value| *value == Value::Body)
    }

    pub fn covers_place(&self, place: &Place) -> bool {
        self.has(|value| matches!(value, Value::Place(known) if known == place))
    }

    pub fn asks_for_hmac(&self) -> bool {
        self.has(|value| matches!(value, Value::Hmac(_)))
    }

    pub fn asks_for_signature(&self) -> bool {
        self.has(|value| matches!(value, Value::Sign(_)))
    }

    /// The places whose values are part of the text.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.0.iter().filter_map(|part| match part {
            Part::Value(Value::Place(place), _) => Some(place),
            _ => None,
        })
    }

    /// The places whose values a key is asked about.
    pub fn keyed_places(&self) -> impl Iterator<Item = &Place> {
        self.0.iter().flat_map(|part| match part {
            Part::Value(Value::Hmac(places) | Value::Sign(places), _) => places.as_slice(),
            _ => &[],
        })
    }

    fn has(&self, wanted: impl Fn(&Value) -> bool) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Value(value, _) if wanted(value)))
    }

    /// Writes the text piece by piece. What is absent is empty.
    pub fn write(&self, context: &Context<'_>, key: &dyn Keyed, sink: &mut dyn FnMut(&[u8])) {
        for part in &self.0 {
            match part {
                Part::Literal(text) => sink(text),
                Part::Value(value, filters) if filters.is_empty() => value.write(context, key, sink),
                Part::Value(value, filters) => {
                    let mut whole = Vec::new();
                    value.write(context, key, &mut |piece| whole.extend_from_slice(piece));
                    for filter in filters {
                        whole = filter.apply(&whole);
                    }
                    sink(&whole);
                }
            }
        }
    }

    /// The text as a whole.
    pub fn build(&self, context: &Context<'_>, key: &dyn Keyed) -> Vec<u8> {
        let mut whole = Vec::new();
        self.write(context, key, &mut |piece| whole.extend_from_slice(piece));
        whole
    }
}

fn placeholder_of(text: &str) -> Option<Part> {
    // A pointer or a parameter's name has no '|'.
    let mut pieces = text.split('|');
    let name = pieces.next()?;
    let places = |list: &str| list.split('+').map(Place::parse).collect::<Option<Vec<_>>>();
    let value = match name {
        "body" => Value::Body,
        "timestamp" => Value::Timestamp,
        "method" => Value::Method,
        "url" => Value::Url,
        "secret" => Value::Secret,
        "form:sorted" => Value::SortedForm,
        _ => match name.split_once(':') {
            Some(("hmac", list)) => Value::Hmac(places(list)?),
            Some(("sign", list)) => Value::Sign(places(list)?),
            _ => Value::Place(Place::parse(name)?),
        },
    };
    let filters = pieces.map(|name| match name {
        "crc32" => Some(Filter::Crc32),
        "sha256" => Some(Filter::Sha256),
        "unescape" => Some(Filter::Unescape),
        "json" => Some(Filter::Json),
        "hex" => Some(Filter::Hex),
        "base64" => Some(Filter::Base64),
        _ => None,
    });
    Some(Part::Value(value, filters.collect::<Option<_>>()?))
}

impl Value {
    fn write(&self, context: &Context<'_>, key: &dyn Keyed, sink: &mut dyn FnMut(&[u8])) {
        let incoming = &context.incoming;
        let values = |places: &[Place]| {
            places.iter().map(|place| place.find(incoming).unwrap_or_default()).collect::<Vec<_>>()
        };
        match self {
            Self::Body => sink(incoming.body),
            Self::Timestamp => sink(context.timestamp),
            Self::Method => sink(incoming.method.as_str().as_bytes()),
            Self::Secret => sink(context.secret),
            Self::Url => context.url.write(incoming, sink),
            Self::SortedForm => write_sorted_form(incoming, sink),
            Self::Place(place) => sink(&place.find(incoming).unwrap_or_default()),
            Self::Hmac(places) => sink(&key.hmac(&values(places))),
            Self::Sign(places) => sink(&key.sign(&values(places))),
        }
    }
}

impl Url<'_> {
    fn write(&self, incoming: &Incoming<'_>, sink: &mut dyn FnMut(&[u8])) {
        match self {
            Self::Text(text) => return sink(text.as_bytes()),
            Self::Base(base) => sink(base.as_bytes()),
            Self::AsReceived => {
                sink(incoming.public_url.unwrap_or_default().as_bytes());
                sink(incoming.uri.path().as_bytes());
            }
        }
        if let Some(query) = incoming.uri.query() {
            sink(b"?");
            sink(query.as_bytes());
        }
    }
}

/// Whether the body is a form, by its content-type.
pub fn is_form(incoming: &Incoming<'_>) -> bool {
    let value = incoming.headers.get(http::header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// Each name followed by its value, sorted by name; a repeated name has its distinct values, sorted.
fn write_sorted_form(incoming: &Incoming<'_>, sink: &mut dyn FnMut(&[u8])) {
    if !is_form(incoming) {
        return;
    }
    let mut fields: Vec<_> = url::form_urlencoded::parse(incoming.body).collect();
    fields.sort_unstable();
    fields.dedup();
    for (name, value) in &fields {
        sink(name.as_bytes());
        sink(value.as_bytes());
    }
}

/// Characters whose escapes are decoded: the others of a URL stay as they were sent.
const UNESCAPED: [(&[u8; 3], u8); 12] = [
    (b"%3A", b':'),
    (b"%2F", b'/'),
    (b"%3F", b'?'),
    (b"%40", b'@'),
    (b"%21", b'!'),
    (b"%24", b'$'),
    (b"%27", b'\''),
    (b"%28", b'('),
    (b"%29", b')'),
    (b"%2A", b'*'),
    (b"%2C", b','),
    (b"%3B", b';'),
];

impl Filter {
    fn apply(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Crc32 => crc32fast::hash(bytes).to_string().into_bytes(),
            Self::Sha256 => hex::encode(digest::digest(&digest::SHA256, bytes)).into_bytes(),
            Self::Unescape => unescape(bytes),
            Self::Json => serde_json::to_vec(&String::from_utf8_lossy(bytes))
                .expect("a string can be written to a vector"),
            Self::Hex => hex::encode(bytes).into_bytes(),
            Self::Base64 => {
                base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes).into_bytes()
            }
        }
    }
}

fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let escape = rest.get(..3).filter(|_| *first == b'%').map(<[u8]>::to_ascii_uppercase);
        let known = UNESCAPED.iter().find(|(known, _)| escape.as_deref() == Some(&known[..]));
        out.push(known.map_or(*first, |(_, plain)| *plain));
        rest = &rest[if known.is_some() { 3 } else { 1 }..];
    }
    out
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, Uri};

    use super::*;

    fn built(template: &str, headers: &HeaderMap, uri: &str, body: &[u8]) -> String {
        let (uri, method): (Uri, _) = (uri.parse().expect("a URI"), Method::POST);
        let public_url = Some("https://hooks.example.com");
        let incoming = Incoming { method: &method, uri: &uri, headers, body, public_url, json: None };
        let context = Context { incoming, timestamp: b"12", secret: b"s", url: Url::AsReceived };
        let template = Template::parse(template).expect("a template");
        String::from_utf8(template.build(&context, &Keyless)).expect("text")
    }

    #[test]
    fn placeholders_stand_for_the_parts_of_the_request() {
        let mut headers = HeaderMap::new();
        headers.insert("x-id", "7".parse().expect("a value"));
        let check = |template: &str, expected: &str| {
            let body = br#"{"a":{"b":"\u00e9"},"n":1.50}"#;
            assert_eq!(built(template, &headers, "/p/q?x=%20y&z", body), expected, "{template}");
        };
        check("v0:{timestamp}:{method}", "v0:12:POST");
        check("{url}", "https://hooks.example.com/p/q?x=%20y&z");
        check("{header:X-Id}{query:x}{json:/a/b}{json:/n}{json:/none}{header:none}", "7 yé1.50");
        check("{{{secret}}}", "{s}");
        check(r#"{{"id":{json:/a/b|json}}}"#, r#"{"id":"é"}"#);
        check(
            "{timestamp|crc32} {timestamp|sha256}",
            "1330857165 6b51d431df5d7f141cbececcf79edf3dd861c3b4069f0b11661a3eefacbba918",
        );
    }

    #[test]
    fn what_is_no_template_is_not_parsed() {
        for text in [
            "{",
            "}",
            "{body",
            "{other}",
            "{body|other}",
            "{header:}",
            "{json:x}",
            "{json:}",
            "a}b",
            "{hmac:x}",
        ] {
            assert_eq!(Template::parse(text), None, "{text}");
        }
    }

    #[test]
    fn twelve_escapes_are_decoded_and_others_are_not() {
        assert_eq!(unescape(b"https%3A%2f%2Fx%20%C3%a9%"), b"https://x%20%C3%a9%");
    }
}
