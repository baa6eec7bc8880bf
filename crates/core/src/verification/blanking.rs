//! Blanks a token that a request carries in the clear, so that it is neither stored, shown nor delivered.
//!
//! A token proves the sender to whoever knows it, unlike a signature, which is worth nothing with other content. It is blanked in
//! its place: the text keeps its length and stays valid JSON or a valid form, and every other byte is as received.

use std::ops::Range;

use http::HeaderName;

use super::scheme::CompiledScheme;
use super::{SignatureFormat, Verifier};
use crate::request::{IncomingRequest, Source, form, json};

impl Verifier {
    /// Whether this header carries a token in the clear.
    pub fn is_token_header(&self, name: &HeaderName) -> bool {
        self.token_format().is_some_and(|format| format.is_in_header(name))
    }

    /// Returns the values of the query parameter that carries the token, as they are in the URL. The URL is not stored, but
    /// proxies copy it into headers.
    pub fn tokens_in_query<'a>(&self, request: &IncomingRequest<'a>) -> Vec<&'a str> {
        let (Some(Source::Query(name)), Some(query)) = (self.token_source(), request.uri.query()) else {
            return Vec::new();
        };
        let ranges = form::ranges_of_values(query.as_bytes(), name);
        ranges.into_iter().filter_map(|range| query.get(range)).filter(|value| !value.is_empty()).collect()
    }

    /// Returns the body with its token blanked; `None` if the scheme has none there.
    pub fn blanked_body(&self, body: &[u8]) -> Option<Vec<u8>> {
        let mut blanked = body.to_vec();
        match self.token_source()? {
            Source::Header(_) | Source::Query(_) => return None,
            Source::Form(name) => {
                for range in form::ranges_of_values(body, name) {
                    blanked[range].fill(b'*');
                }
            }
            Source::Json(pointer) => {
                for range in json::ranges_of_scalars(body, pointer) {
                    blank_scalar(&mut blanked, range);
                }
            }
        }
        Some(blanked)
    }

    fn token_source(&self) -> Option<&Source> {
        self.token_format().and_then(SignatureFormat::source)
    }

    fn token_format(&self) -> Option<&SignatureFormat> {
        match &self.scheme {
            CompiledScheme::Token { format, .. } => Some(format),
            CompiledScheme::Signature { .. } | CompiledScheme::Basic(_) | CompiledScheme::Certificate(_) => {
                None
            }
        }
    }
}

/// Blanks a string between its quotation marks, and a number or a boolean by digits, so that the text stays JSON.
fn blank_scalar(json: &mut [u8], Range { start, end }: Range<usize>) {
    if json[start] == b'"' {
        json[start + 1..end - 1].fill(b'*');
    } else {
        json[start..end].fill(b'1');
    }
}

#[cfg(test)]
mod tests {
    use grapnel_crds::Scheme;
    use serde_json::json as value;

    use super::*;

    fn blanked(from: &str, body: &str) -> Option<String> {
        let scheme: Scheme =
            serde_json::from_value(value!({"type": "token", "signature": {"from": from}})).expect("a scheme");
        let verifier = Verifier::new(&scheme, None, None, &["secret"]).expect("a verifier");
        verifier.blanked_body(body.as_bytes()).map(|body| String::from_utf8(body).expect("text"))
    }

    #[test]
    fn a_token_in_json_is_blanked_in_every_element_and_nothing_else_changes() {
        let body = r#"{ "value" : [ {"s":"se\u0063ret","n":1.0}, {"s":"other"}, {"s":{"s":"kept"}}, {"s":null} ], "s":"secret"}"#;
        let expected = r#"{ "value" : [ {"s":"***********","n":1.0}, {"s":"*****"}, {"s":{"s":"kept"}}, {"s":null} ], "s":"secret"}"#;
        assert_eq!(blanked("json:/value/0/s", body).as_deref(), Some(expected));
        // Of a repeated member only the last one is read, and the others are as secret.
        assert_eq!(
            blanked("json:/s", r#"{"s":"a","s":"secret"}"#).as_deref(),
            Some(r#"{"s":"*","s":"******"}"#)
        );
        assert_eq!(blanked("json:/s", r#"{"s":-12.5e3,"t":1}"#).as_deref(), Some(r#"{"s":1111111,"t":1}"#));
        assert_eq!(blanked("json:/0", r#"[true,"x"]"#).as_deref(), Some(r#"[1111,"*"]"#));
        assert_eq!(blanked("json:/s", "no JSON").as_deref(), Some("no JSON"));
        let body = "\u{feff}{\"\\ud83d\":1,\"s\":\"secret\"}";
        assert_eq!(blanked("json:/s", body).as_deref(), Some("\u{feff}{\"\\ud83d\":1,\"s\":\"******\"}"));
    }

    #[test]
    fn a_token_in_a_form_is_blanked_as_it_is_encoded() {
        assert_eq!(
            blanked("form:a b", "x=1&a+b=se%63ret&a%20b=2&y=a+b&a+b").as_deref(),
            Some("x=1&a+b=********&a%20b=*&y=a+b&a+b")
        );
    }

    #[test]
    fn a_body_without_a_token_is_not_copied() {
        assert_eq!(blanked("header:x-token", "{}"), None);
        assert_eq!(blanked("query:code", "{}"), None);
    }
}
