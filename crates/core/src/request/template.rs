//! Texts with placeholders, parsed once: the message that is signed, the response to a handshake, and the value that a
//! condition expects.
//!
//! A message is written piece by piece to a computation and is never built as a whole.

use std::borrow::Cow;

use filter::Filter;
pub use signed_url::SignedUrl;
use value::Value;

use super::{IncomingRequest, Source};
use crate::constant_time::ConstantTime;

mod filter;
mod signed_url;
mod value;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    Value(Value, Vec<Filter>),
}

/// The values of the placeholders.
#[derive(Clone, Copy)]
pub struct TemplateContext<'a> {
    pub request: IncomingRequest<'a>,
    pub timestamp: &'a [u8],
    pub secret: ConstantTime<&'a [u8]>,
    pub url: SignedUrl<'a>,
}

/// A key that computes over values of a request.
pub trait Mac {
    fn hmac(&self, pieces: &[Cow<'_, [u8]>]) -> Vec<u8>;
    fn sign(&self, pieces: &[Cow<'_, [u8]>]) -> Vec<u8>;
}

/// No key, for templates that need none, such as messages.
pub struct NoMac;

impl Mac for NoMac {
    fn hmac(&self, _: &[Cow<'_, [u8]>]) -> Vec<u8> {
        Vec::new()
    }

    fn sign(&self, _: &[Cow<'_, [u8]>]) -> Vec<u8> {
        Vec::new()
    }
}

impl Template {
    /// Parses a template; `None` if it is invalid.
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
                parts.push(Part::of_placeholder(placeholder)?);
                rest = after;
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into_bytes()));
        }
        Some(Self(parts))
    }

    pub fn has_timestamp(&self) -> bool {
        self.has(|value| *value == Value::Timestamp)
    }

    pub fn has_url(&self) -> bool {
        self.has(|value| *value == Value::Url)
    }

    pub fn covers_body(&self) -> bool {
        self.has(|value| *value == Value::Body)
    }

    pub fn covers_source(&self, source: &Source) -> bool {
        self.has(|value| matches!(value, Value::Source(covered) if covered == source))
    }

    pub fn needs_hmac(&self) -> bool {
        self.has(|value| matches!(value, Value::Hmac(_)))
    }

    pub fn needs_signature(&self) -> bool {
        self.has(|value| matches!(value, Value::Sign(_)))
    }

    /// The sources of values that are part of the text.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.0.iter().filter_map(|part| match part {
            Part::Value(Value::Source(source), _) => Some(source),
            _ => None,
        })
    }

    /// The sources of values that a key computes over.
    pub fn mac_sources(&self) -> impl Iterator<Item = &Source> {
        self.0.iter().flat_map(|part| match part {
            Part::Value(Value::Hmac(sources) | Value::Sign(sources), _) => sources.as_slice(),
            _ => &[],
        })
    }

    fn has(&self, wanted: impl Fn(&Value) -> bool) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Value(value, _) if wanted(value)))
    }

    /// Writes the text piece by piece. A missing value is empty.
    pub fn write(&self, context: &TemplateContext<'_>, mac: &dyn Mac, sink: &mut dyn FnMut(&[u8])) {
        for part in &self.0 {
            match part {
                Part::Literal(text) => sink(text),
                Part::Value(value, filters) if filters.is_empty() => value.write(context, mac, sink),
                Part::Value(value, filters) => {
                    let mut whole = Vec::new();
                    value.write(context, mac, &mut |piece| whole.extend_from_slice(piece));
                    for filter in filters {
                        whole = filter.apply(&whole);
                    }
                    sink(&whole);
                }
            }
        }
    }

    /// Builds the text as a whole.
    pub fn build(&self, context: &TemplateContext<'_>, mac: &dyn Mac) -> Vec<u8> {
        let mut whole = Vec::new();
        self.write(context, mac, &mut |piece| whole.extend_from_slice(piece));
        whole
    }
}

impl Part {
    fn of_placeholder(text: &str) -> Option<Self> {
        // A pointer or a parameter's name has no '|'.
        let mut pieces = text.split('|');
        let value = Value::parse(pieces.next()?)?;
        let filters = pieces.map(Filter::parse).collect::<Option<_>>()?;
        Some(Self::Value(value, filters))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, Uri};

    use super::*;

    fn built(template: &str, headers: &HeaderMap, uri: &str, body: &[u8]) -> String {
        let (uri, method): (Uri, _) = (uri.parse().expect("a URI"), Method::POST);
        let public_url = Some("https://hooks.example.com");
        let request = IncomingRequest {
            method: &method,
            uri: &uri,
            headers,
            body,
            encoded_body: None,
            form: None,
            public_url,
            json: None,
        };
        let secret = ConstantTime::new(&b"s"[..]);
        let context = TemplateContext { request, timestamp: b"12", secret, url: SignedUrl::AsReceived };
        let template = Template::parse(template).expect("a template");
        String::from_utf8(template.build(&context, &NoMac)).expect("text")
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
    fn an_invalid_template_is_not_parsed() {
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
}
