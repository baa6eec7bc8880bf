//! The content type of a body, as far as the way to read it depends on it.

use http::{HeaderMap, header};

/// The value of a content-type header without its parameters; empty if the header is missing.
#[derive(Debug, Clone, Copy)]
pub struct ContentType<'a>(&'a [u8]);

impl<'a> ContentType<'a> {
    pub fn of(headers: &'a HeaderMap) -> Self {
        Self::parse(headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes()))
    }

    /// Takes the value of the header.
    pub fn parse(value: &'a [u8]) -> Self {
        Self(value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii())
    }

    /// Whether the body is JSON. A missing type counts as JSON.
    pub fn is_json(self) -> bool {
        let suffix = self.0.len().checked_sub(5).map(|start| &self.0[start..]);
        self.0.is_empty()
            || self.0.eq_ignore_ascii_case(b"application/json")
            || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"+json"))
    }

    /// Whether the body is a form with parts.
    pub fn is_multipart(self) -> bool {
        self.0.eq_ignore_ascii_case(b"multipart/form-data")
    }

    /// Whether it is this one, which is in lower case.
    pub fn is(self, expected: &str) -> bool {
        self.0.eq_ignore_ascii_case(expected.as_bytes())
    }

    /// Whether the body is a form.
    pub fn is_form(self) -> bool {
        self.0.eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_case_and_structured_suffixes_are_understood() {
        let check = |value: &'static str, is_json: bool, is_form: bool| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().expect("a value"))]);
            let content_type = ContentType::of(&headers);
            assert_eq!((content_type.is_json(), content_type.is_form()), (is_json, is_form), "{value:?}");
        };
        check("", true, false);
        check("Application/JSON; charset=utf-8", true, false);
        check("application/cloudevents+json", true, false);
        check("json", false, false);
        check("application/x-www-form-urlencoded; charset=utf-8", false, true);
        check("Application/X-WWW-Form-Urlencoded", false, true);
        check("text/plain", false, false);
        let none = HeaderMap::new();
        assert!(ContentType::of(&none).is_json() && !ContentType::of(&none).is_form());
    }
}
