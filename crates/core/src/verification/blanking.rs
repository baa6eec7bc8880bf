//! Blanks a token that a request carries in the clear, so that it is neither stored, shown nor delivered.
//!
//! A token proves the sender to whoever knows it, unlike a signature, which is worth nothing with other content. It is blanked in
//! its place: the text keeps its length and stays valid JSON or a valid form, and every other byte is as received.

use std::ops::Range;

use http::HeaderName;

use super::scheme::CompiledScheme;
use super::{SignatureFormat, Verifier};
use crate::request::{IncomingRequest, Source, form, json, multipart};

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
    pub fn blanked_body(&self, request: &IncomingRequest<'_>) -> Option<Vec<u8>> {
        let IncomingRequest { headers, body, .. } = request;
        let mut blanked = body.to_vec();
        if let CompiledScheme::ElementToken { token, .. } = &self.scheme {
            token.ranges(body).into_iter().for_each(|range| blank_scalar(&mut blanked, range));
            return Some(blanked);
        }
        match self.token_source()? {
            Source::Header(_) | Source::Query(_) => return None,
            Source::Form(name) => {
                let ranges = match request.form {
                    Some(_) => multipart::ranges_of_values(headers, body, name),
                    None => form::ranges_of_values(body, name),
                };
                for range in ranges {
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

    /// Returns a query that is stored, with its token blanked; `None` if the scheme has none there.
    pub fn blanked_query(&self, query: &str) -> Option<Vec<u8>> {
        let Source::Query(name) = self.token_source()? else { return None };
        let mut blanked = query.as_bytes().to_vec();
        for range in form::ranges_of_values(query.as_bytes(), name) {
            blanked[range].fill(b'*');
        }
        Some(blanked)
    }

    fn token_source(&self) -> Option<&Source> {
        self.token_format().and_then(SignatureFormat::source)
    }

    fn token_format(&self) -> Option<&SignatureFormat> {
        match &self.scheme {
            CompiledScheme::Token { format, .. } => Some(format),
            CompiledScheme::Signature { .. }
            | CompiledScheme::ElementToken { .. }
            | CompiledScheme::Basic(_)
            | CompiledScheme::Certificate(_) => None,
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
    use http::{HeaderMap, Method, Uri};
    use serde_json::json as value;

    use super::*;

    fn blank(verifier: &Verifier, headers: &HeaderMap, body: &[u8], form: Option<&[u8]>) -> Option<Vec<u8>> {
        let (method, uri) = (&Method::POST, &Uri::from_static("/"));
        let (encoded_body, public_url, json) = (None, None, None);
        verifier.blanked_body(&IncomingRequest {
            method,
            uri,
            headers,
            body,
            encoded_body,
            form,
            public_url,
            json,
        })
    }

    fn blanked(from: &str, body: &str) -> Option<String> {
        let scheme: Scheme =
            serde_json::from_value(value!({"type": "token", "signature": {"from": from}})).expect("a scheme");
        let split = ["/value/*".to_owned()];
        let verifier = Verifier::with_split(&scheme, &split, None, None, &["secret"]).expect("a verifier");
        let blanked = blank(&verifier, &HeaderMap::new(), body.as_bytes(), None);
        blanked.map(|body| String::from_utf8(body).expect("text"))
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
    fn a_token_of_elements_is_blanked_in_each_of_them_and_nowhere_else() {
        assert_eq!(
            blanked(
                "element:/a/s",
                r#"{"s":"x","value":[{"a":{"s":"secret"},"s":1},{"a":{"s":12}}],"a":{"s":2}}"#
            )
            .as_deref(),
            Some(r#"{"s":"x","value":[{"a":{"s":"******"},"s":1},{"a":{"s":11}}],"a":{"s":2}}"#)
        );
    }

    #[test]
    fn a_token_in_a_form_is_blanked_as_it_is_encoded() {
        assert_eq!(
            blanked("form:a b", "x=1&a+b=se%63ret&a%20b=2&y=a+b&a+b").as_deref(),
            Some("x=1&a+b=********&a%20b=*&y=a+b&a+b")
        );
    }

    #[test]
    fn a_token_in_a_part_is_blanked() {
        let body = "--b\r\ncontent-disposition: form-data; name=k\r\n\r\nsecret\r\n--b--";
        let scheme = value!({"type": "token", "signature": {"from": "form:k"}});
        let scheme: Scheme = serde_json::from_value(scheme).expect("a scheme");
        let verifier = Verifier::new(&scheme, None, None, &["secret"]).expect("a verifier");
        let content_type = http::HeaderValue::from_static("multipart/form-data; boundary=b");
        let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, content_type)]);
        let blanked = blank(&verifier, &headers, body.as_bytes(), Some(b"k=secret"));
        assert_eq!(blanked, Some(body.replace("secret", "******").into_bytes()));
    }

    #[test]
    fn a_body_without_a_token_is_not_copied() {
        assert_eq!(blanked("header:x-token", "{}"), None);
        assert_eq!(blanked("query:code", "{}"), None);
    }

    #[test]
    fn a_token_in_a_query_is_blanked_where_the_query_is_stored() {
        let blanked = |from: &str| {
            let scheme: Scheme =
                serde_json::from_value(value!({"type": "token", "signature": {"from": from}}))
                    .expect("a scheme");
            let verifier = Verifier::new(&scheme, None, None, &["secret"]).expect("a verifier");
            verifier.blanked_query("a=1&k=secret&k=&b=k").map(|query| String::from_utf8(query).expect("text"))
        };
        assert_eq!(blanked("query:k").as_deref(), Some("a=1&k=******&k=&b=k"));
        assert_eq!(
            (blanked("query:none").as_deref(), blanked("form:k")),
            (Some("a=1&k=secret&k=&b=k"), None)
        );
    }
}
