//! Values of headers from texts that are not ours: percent-encoded where a header cannot carry a character.

use std::borrow::Cow;

use http::HeaderValue;
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

/// What the HTTP binding of CloudEvents encodes: all but visible ASCII, and what would be ambiguous.
const CLOUD_EVENT: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Returns a value in which all but visible ASCII and spaces is percent-encoded.
pub fn header_value(text: &str) -> HeaderValue {
    encoded(text.as_bytes(), CONTROLS)
}

/// Returns the value of a header of the webhook, which is stored as text: of bytes beyond ASCII each is one character.
pub fn forwarded_value(stored: &str) -> HeaderValue {
    if stored.is_ascii() {
        return header_value(stored);
    }
    match stored.chars().map(|char| u8::try_from(char).ok()).collect::<Option<Vec<u8>>>() {
        Some(bytes) => encoded(&bytes, CONTROLS),
        None => header_value(stored),
    }
}

/// Returns the value of an attribute of a CloudEvent in binary mode.
pub fn cloud_event_value(text: &str) -> HeaderValue {
    encoded(text.as_bytes(), CLOUD_EVENT)
}

fn encoded(bytes: &[u8], set: &'static AsciiSet) -> HeaderValue {
    let text: Cow<'_, str> = percent_encode(bytes, set).into();
    HeaderValue::from_str(&text).expect("what is left is visible ASCII")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_a_header_cannot_carry_is_encoded() {
        assert_eq!(header_value("order.created 100%"), "order.created 100%");
        assert_eq!(header_value("bestellt\u{e4}\r\n\t\u{7f}"), "bestellt%C3%A4%0D%0A%09%7F");
        assert_eq!(cloud_event_value("a \"b\" 5% \u{20ac}"), "a%20%22b%22%205%25%20%E2%82%AC");
    }

    #[test]
    fn a_forwarded_value_has_the_bytes_that_came() {
        assert_eq!(forwarded_value("plain, text"), "plain, text");
        // The provider sent UTF-8, which is stored as one character for each byte.
        assert_eq!(forwarded_value("\u{c3}\u{a9}"), "%C3%A9");
        assert_eq!(forwarded_value("\u{20ac}"), "%E2%82%AC");
    }

    proptest! {
        #[test]
        fn every_text_has_a_value(text: String) {
            for value in [header_value(&text), forwarded_value(&text), cloud_event_value(&text)] {
                prop_assert!(value.as_bytes().iter().all(|byte| matches!(byte, b' '..=b'~')));
            }
        }
    }
}
