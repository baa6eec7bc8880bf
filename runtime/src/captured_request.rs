//! A webhook that somebody captured, as text, and what Grapnel makes of it: for `grapnel verify`, `grapnel filter` and the console.
//!
//! It is judged by the verifier and the mapper of the ingress, and offline: nothing is stored or sent. A secret is never shown, and no signature is
//! computed for anybody.

use std::borrow::Cow;
use std::fmt;

use anyhow::{Context, bail};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

mod events;
pub(crate) mod verification;

/// A thing that is said of a request, under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) name: Cow<'static, str>,
    pub(crate) text: String,
}

impl Note {
    fn new(name: impl Into<Cow<'static, str>>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }
}

/// As a line of text.
impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{:<18}{}", self.name, self.text)
    }
}

/// A request as it was received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CapturedRequest {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// As it was received.
    pub(crate) body: Vec<u8>,
}

/// Reads a request as it goes over the wire, with either kind of line ends before the body.
pub(crate) fn parse(text: &[u8]) -> anyhow::Result<CapturedRequest> {
    let mut rest = text;
    let mut line = || -> anyhow::Result<&str> {
        let end =
            rest.iter().position(|byte| *byte == b'\n').context("there is no empty line before the body")?;
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).context("a header is not valid UTF-8")
    };
    let first = line()?;
    let mut parts = first.split(' ');
    let (Some(method), Some(uri)) = (parts.next(), parts.next()) else {
        bail!("the first line is not like: POST /path HTTP/1.1");
    };
    let mut headers = HeaderMap::new();
    loop {
        let header = line()?;
        if header.is_empty() {
            break;
        }
        let (name, value) =
            header.split_once(':').with_context(|| format!("{header:?} is not a header line"))?;
        let name = HeaderName::try_from(name.trim())
            .with_context(|| format!("{name:?} is not a valid header name"))?;
        let value = HeaderValue::from_bytes(value.trim().as_bytes()).context("invalid header value")?;
        headers.append(name, value);
    }
    Ok(CapturedRequest {
        method: method.parse().with_context(|| format!("invalid method {method:?}"))?,
        uri: uri.parse().with_context(|| format!("invalid request path {uri:?}"))?,
        headers,
        body: rest.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_request_is_not_read() {
        for text in
            ["", "POST", "POST / HTTP/1.1", "POST / HTTP/1.1\nno header\n\n", "POST / HTTP/1.1\na: b\n"]
        {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
