//! Bodies of `multipart/form-data` (RFC 7578), as far as they are read: the text fields, in the encoding of forms, so that they
//! are read and delivered as those of other forms; and the names and sizes of files.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, header};
use memchr::memmem;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::content_type::ContentType;

/// The fields and files that a body may have.
const MAX_PARTS: usize = 256;

/// The longest name of a field or a file, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// The longest head of a part, in bytes, and its headers.
const MAX_HEAD_BYTES: usize = 4096;
const MAX_HEADERS: usize = 16;

/// The longest boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY_BYTES: usize = 70;

/// A body that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipart {
    /// The text fields in the encoding of forms.
    pub fields: Bytes,
    pub files: Vec<FilePart>,
    /// A digest of all parts. The body itself has another boundary in each attempt.
    pub digest: [u8; 32],
}

/// A file of a body, which is only counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FilePart {
    pub field: String,
    pub name: String,
    /// In bytes.
    pub size: usize,
}

/// A field or a file: its names, and where its value is.
struct Part {
    field: String,
    file: Option<String>,
    value: Range<usize>,
}

/// Whether the headers say that the body is one.
pub fn is_multipart(headers: &HeaderMap) -> bool {
    ContentType::of(headers).is_multipart()
}

/// Reads a body.
///
/// # Errors
/// The reason why it is not one.
pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Multipart, &'static str> {
    let mut fields = url::form_urlencoded::Serializer::new(String::new());
    let mut files = Vec::new();
    let mut digest = Sha256::new();
    for Part { field, file, value } in parts(headers, body)? {
        let value = &body[value];
        for piece in [field.as_bytes(), file.as_deref().map_or(&b"\0"[..], str::as_bytes), value] {
            digest.update((piece.len() as u64).to_be_bytes());
            digest.update(piece);
        }
        match file {
            Some(name) => files.push(FilePart { field, name, size: value.len() }),
            None => drop(fields.append_pair(&field, &String::from_utf8_lossy(value))),
        }
    }
    Ok(Multipart { fields: fields.finish().into(), files, digest: digest.finalize().into() })
}

/// Returns where the values of the fields with this name are; nothing if the body cannot be read.
pub(crate) fn ranges_of_values(headers: &HeaderMap, body: &[u8], name: &str) -> Vec<Range<usize>> {
    let parts = parts(headers, body).unwrap_or_default();
    parts.into_iter().filter(|part| part.field == name).map(|part| part.value).collect()
}

fn parts(headers: &HeaderMap, body: &[u8]) -> Result<Vec<Part>, &'static str> {
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let boundary = parameter(content_type, "boundary").filter(|boundary| !boundary.is_empty());
    let boundary = boundary.ok_or("the content-type has no boundary")?;
    if boundary.len() > MAX_BOUNDARY_BYTES {
        return Err("the boundary is too long");
    }
    let delimiter = [b"\r\n--", &boundary[..]].concat();
    let delimiters = Delimiters { body, finder: memmem::Finder::new(&delimiter) };
    let mut parts = Vec::new();
    let mut before = delimiters.first().ok_or(UNFINISHED)?;
    while !before.is_last {
        if parts.len() == MAX_PARTS {
            return Err("there are too many parts");
        }
        let (field, file, length) = read_head(&body[before.end..])?;
        let start = before.end + length;
        // The empty line after the head may be all that there is before the next delimiter.
        let after = delimiters.next(start - 2).ok_or(UNFINISHED)?;
        parts.push(Part { field, file, value: start..after.start.max(start) });
        before = after;
    }
    Ok(parts)
}

const UNFINISHED: &str = "the last part has no end";

/// Finds the lines between parts: two hyphens and the boundary.
struct Delimiters<'a> {
    body: &'a [u8],
    /// With the line end before them.
    finder: memmem::Finder<'a>,
}

struct Delimiter {
    /// Where the line end before it is.
    start: usize,
    end: usize,
    is_last: bool,
}

impl Delimiters<'_> {
    /// The first one may be at the very beginning.
    fn first(&self) -> Option<Delimiter> {
        let line = &self.finder.needle()[2..];
        let rest = self.body.strip_prefix(line);
        match rest.and_then(|rest| self.ended(0, self.body.len() - rest.len())) {
            Some(first) => Some(first),
            None => self.next(0),
        }
    }

    fn next(&self, mut from: usize) -> Option<Delimiter> {
        loop {
            let start = from + self.finder.find(&self.body[from..])?;
            from = start + self.finder.needle().len();
            // A longer line is none, though it begins alike.
            if let Some(found) = self.ended(start, from) {
                return Some(found);
            }
        }
    }

    /// Returns the delimiter whose boundary ends here: two further hyphens make it the last, and white space may follow.
    fn ended(&self, start: usize, at: usize) -> Option<Delimiter> {
        let rest = &self.body[at..];
        if rest.starts_with(b"--") {
            return Some(Delimiter { start, end: at + 2, is_last: true });
        }
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let is_line = rest[padding..].starts_with(b"\r\n");
        is_line.then_some(Delimiter { start, end: at + padding + 2, is_last: false })
    }
}

/// Returns the names of a field and of its file, and the length of the head with the empty line after it.
fn read_head(text: &[u8]) -> Result<(String, Option<String>, usize), &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let head = httparse::parse_headers(&text[..text.len().min(MAX_HEAD_BYTES)], &mut headers);
    let Ok(httparse::Status::Complete((length, headers))) = head else {
        return Err("the head of a part is invalid or too long");
    };
    let disposition = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-disposition"));
    let disposition = disposition.map_or(&b""[..], |header| header.value);
    let text = |name| {
        let value = parameter(disposition, name);
        value.map(|value| String::from_utf8_lossy(&value).into_owned())
    };
    let field = text("name").ok_or("a part has no name")?;
    let file = text("filename").or_else(|| text("filename*"));
    if field.len() > MAX_NAME_BYTES || file.as_ref().is_some_and(|file| file.len() > MAX_NAME_BYTES) {
        return Err("the name of a part is too long");
    }
    Ok((field, file, length))
}

/// Returns a parameter of a header's value.
fn parameter(value: &[u8], name: &str) -> Option<Vec<u8>> {
    let after = |text: &[u8]| text.iter().position(|byte| *byte == b';').map(|at| at + 1);
    let mut rest = &value[after(value)?..];
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'=' | b';'))?;
        if rest[end] == b';' {
            rest = &rest[end + 1..];
            continue;
        }
        let is_wanted = rest[..end].trim_ascii().eq_ignore_ascii_case(name.as_bytes());
        let (text, following) = parameter_value(rest[end + 1..].trim_ascii_start());
        if is_wanted {
            return Some(text);
        }
        rest = &following[after(following)?..];
    }
}

/// Returns the value of a parameter, without quotation marks, and what follows it.
fn parameter_value(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| *byte == b';').unwrap_or(text.len());
        return (text[..end].trim_ascii().to_vec(), &text[end..]);
    };
    let mut unquoted = Vec::new();
    let mut is_escaped = false;
    for (at, byte) in quoted.iter().enumerate() {
        // Only these two are escaped: other backslashes are part of the names of files.
        let is_escape = *byte == b'\\' && matches!(quoted.get(at + 1), Some(b'"' | b'\\'));
        match byte {
            b'"' if !is_escaped => return (unquoted, &quoted[at + 1..]),
            _ if is_escape && !is_escaped => is_escaped = true,
            byte => {
                unquoted.push(*byte);
                is_escaped = false;
            }
        }
    }
    (unquoted, b"")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(content_type: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.parse().expect("a value"))])
    }

    fn read_text(body: &str) -> Result<Multipart, &'static str> {
        read(&headers("multipart/form-data; boundary=b"), body.as_bytes())
    }

    fn field(name: &str, value: &str) -> String {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    }

    #[test]
    fn text_fields_are_a_form_and_files_are_counted() {
        let file = "--b\r\ncontent-type: image/png\r\ncontent-disposition: form-data; name=f; filename=\"a \\\"b\\\";\\c.png\"\r\n\r\n\0\r\n--bytes\r\n--\r\n";
        let body = format!(
            "{}{file}{}{}--b--\r\n",
            field("from", "a+b@x & y"),
            field("", ""),
            field("from", "é\r\n")
        );
        let multipart = read_text(&body).expect("a body");
        assert_eq!(&multipart.fields[..], b"from=a%2Bb%40x+%26+y&=&from=%C3%A9%0D%0A");
        let expected = FilePart { field: "f".to_owned(), name: "a \"b\";\\c.png".to_owned(), size: 14 };
        assert_eq!(multipart.files, [expected]);
    }

    #[test]
    fn the_digest_is_of_the_parts_and_not_of_the_boundary() {
        let digest = |boundary: &str, body: &str| {
            let headers = headers(&format!("Multipart/Form-Data; charset=utf-8; BOUNDARY=\"{boundary}\""));
            assert!(is_multipart(&headers));
            read(&headers, body.replace("--b", &format!("--{boundary}")).as_bytes()).expect("a body").digest
        };
        let (one, other) = (field("a", "1") + "--b--", field("a", "2") + "--b--");
        assert_eq!(digest("b", &one), digest("x y", &one));
        assert_ne!(digest("b", &one), digest("b", &other));
        let file = one.replace("name=\"a\"", "name=\"a\"; filename=\"\"");
        assert_ne!(digest("b", &one), digest("b", &file));
    }

    #[test]
    fn what_comes_before_and_after_the_parts_is_ignored() {
        let body = format!("preamble\r\n{}--b \t\r\n{}--b--epilogue", field("a", "1"), &field("c", "")[5..]);
        assert_eq!(&read_text(&body).expect("a body").fields[..], b"a=1&c=");
        assert!(read_text("--b--").expect("a body").fields.is_empty());
    }

    #[test]
    fn a_body_that_is_none_is_refused_with_a_reason() {
        let check = |body: &str, reason: &str| assert_eq!(read_text(body), Err(reason), "{body}");
        check("", UNFINISHED);
        check(&field("a", "1"), UNFINISHED);
        check("--b\r\n\r\n1\r\n--b--", "a part has no name");
        check("--b\r\nno header\r\n\r\n1\r\n--b--", "the head of a part is invalid or too long");
        check(&(field(&"x".repeat(257), "") + "--b--"), "the name of a part is too long");
        check(&(field(&"x".repeat(5000), "") + "--b--"), "the head of a part is invalid or too long");
        check(&(field("a", "").repeat(257) + "--b--"), "there are too many parts");
        assert_eq!(read(&headers("multipart/form-data"), b"--b--"), Err("the content-type has no boundary"));
        let long = format!("multipart/form-data; boundary={}", "b".repeat(71));
        assert_eq!(read(&headers(&long), b"--b--"), Err("the boundary is too long"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(pieces in prop::collection::vec(
            prop_oneof![
                Just(b"--b".to_vec()), Just(b"\r\n".to_vec()), Just(b"--".to_vec()),
                Just(b"content-disposition: form-data; name=\"a".to_vec()), Just(b"\"; filename=x".to_vec()),
                prop::collection::vec(any::<u8>(), 0..20),
            ],
            0..30,
        )) {
            let body = pieces.concat();
            let headers = headers("multipart/form-data; boundary=b");
            for range in ranges_of_values(&headers, &body, "a") {
                prop_assert!(range.start <= range.end && range.end <= body.len());
            }
            drop(read(&headers, &body));
        }

        #[test]
        fn fields_are_read_as_they_were_written(fields in prop::collection::vec(("[a-z]{1,9}", "[^b]{0,40}"), 0..20)) {
            let body: String = fields.iter().map(|(name, value)| field(name, value)).collect();
            let read = read_text(&(body + "--b--")).expect("a body");
            let found: Vec<(String, String)> = url::form_urlencoded::parse(&read.fields).into_owned().collect();
            prop_assert_eq!(found, fields);
        }
    }
}
