//! The URL that a provider called, in the forms in which it may have signed it.

use crate::request::IncomingRequest;

/// The URL that was called, in the form in which it is signed.
#[derive(Clone, Copy)]
pub enum SignedUrl<'a> {
    /// From the platform's public URL and the request, as they are.
    AsReceived,
    /// With this text in place of everything before the query.
    Base(&'a str),
    /// This text as a whole.
    Text(&'a str),
}

impl SignedUrl<'_> {
    /// Returns the URL without its port, and with the default port of its scheme: some providers are not consistent about
    /// which of the two they sign.
    pub fn port_variants(&self, request: &IncomingRequest<'_>) -> Vec<String> {
        let mut url = Vec::new();
        self.write(request, &mut |piece| url.extend_from_slice(piece));
        port_variants(&String::from_utf8_lossy(&url))
    }

    pub(super) fn write(&self, request: &IncomingRequest<'_>, sink: &mut dyn FnMut(&[u8])) {
        match self {
            Self::Text(text) => return sink(text.as_bytes()),
            Self::Base(base) => sink(base.as_bytes()),
            Self::AsReceived => {
                sink(request.public_url.unwrap_or_default().as_bytes());
                sink(request.uri.path().as_bytes());
            }
        }
        if let Some(query) = request.uri.query() {
            sink(b"?");
            sink(query.as_bytes());
        }
    }
}

fn port_variants(url: &str) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://") else { return Vec::new() };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let default_port = if scheme == "http" { 80 } else { 443 };
    vec![format!("{scheme}://{host}{path}"), format!("{scheme}://{host}:{default_port}{path}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_have_no_port_or_the_default_one() {
        assert_eq!(
            port_variants("https://a.example:8443/p?q=:1"),
            ["https://a.example/p?q=:1", "https://a.example:443/p?q=:1"]
        );
        assert_eq!(port_variants("http://a.example?q"), ["http://a.example?q", "http://a.example:80?q"]);
        assert!(port_variants("/p").is_empty());
    }
}
