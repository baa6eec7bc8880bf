//! Names and values in the encoding of forms (`application/x-www-form-urlencoded`), which queries share.

use std::borrow::Cow;
use std::ops::Range;

/// Returns the decoded names and values in their order.
pub fn fields(encoded: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    url::form_urlencoded::parse(encoded)
}

/// Returns the value of the field with this name, if there is exactly one.
pub(crate) fn value<'a>(encoded: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    let mut values = fields(encoded).filter(|(field, _)| field == name);
    let (_, value) = values.next()?;
    values.next().is_none().then_some(value)
}

/// Returns where the values of the fields with this name are, as they are encoded.
pub(crate) fn ranges_of_values(encoded: &[u8], name: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    for field in encoded.split(|byte| *byte == b'&') {
        let end = start + field.len();
        if let Some(equals) = field.iter().position(|byte| *byte == b'=')
            && contains(field, name)
        {
            ranges.push(start + equals + 1..end);
        }
        start = end + 1;
    }
    ranges
}

/// Whether there is a field with this name.
pub(crate) fn contains(encoded: &[u8], name: &str) -> bool {
    fields(encoded).any(|(field, _)| field == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_field_is_present_and_has_no_value() {
        let form = b"a=1&b=%C3%A9+x&a=2&c";
        assert_eq!(value(form, "b").as_deref(), Some("é x"));
        assert_eq!(value(form, "c").as_deref(), Some(""));
        assert!(contains(form, "a") && value(form, "a").is_none());
        assert!(!contains(form, "d") && value(form, "d").is_none());
    }
}
