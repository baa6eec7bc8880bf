//! A request as text, because a fuzzer mutates text well: `POST /path?query`, headers, an empty line, and the body.

use grapnel_core::request::IncomingRequest;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

/// The part before the path of the URLs that providers sign.
const PUBLIC_URL: &str = "https://hooks.example.com";

/// A request that the server would let through: invalid headers, paths and methods are left out.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Request {
    pub fn parse(text: &[u8]) -> Self {
        let mut lines = text.splitn(2, |byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        let mut rest = lines.next().unwrap_or_default();
        let mut words = first.split(|byte| *byte == b' ');
        let method = Method::from_bytes(words.next().unwrap_or_default()).unwrap_or(Method::POST);
        let uri =
            std::str::from_utf8(words.next().unwrap_or_default()).ok().and_then(|text| text.parse().ok());
        let uri = uri.filter(|uri: &Uri| uri.path().starts_with('/'));
        let mut headers = HeaderMap::new();
        loop {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let (line, after) = end.map_or((rest, &b""[..]), |end| (&rest[..end], &rest[end + 1..]));
            rest = after;
            if line.is_empty() {
                break;
            }
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let name = HeaderName::from_bytes(line[..colon].trim_ascii());
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        let uri = uri.unwrap_or_else(|| Uri::from_static("/api/v1/webhooks/r"));
        Self { method, uri, headers, body: rest.to_vec() }
    }

    /// Returns the request as the verifier sees it.
    pub fn incoming(&self) -> IncomingRequest<'_> {
        let Self { method, uri, headers, body } = self;
        IncomingRequest {
            method,
            uri,
            headers,
            body,
            encoded_body: None,
            form: None,
            public_url: Some(PUBLIC_URL),
            json: None,
        }
    }

    /// Replaces the query.
    pub fn with_query(mut self, query: &str) -> Self {
        if let Ok(uri) = format!("{}?{query}", self.uri.path()).parse() {
            self.uri = uri;
        }
        self
    }
}
