//! The platform's HTTP proxy: what goes through it, and tunnels by CONNECT.
//!
//! Invariants: the credentials of its URL are in no message and no `Debug`; what the proxy answers to CONNECT is read no further
//! than its head.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;
use url::{Host, Url};

pub(super) use hyper_util::client::proxy::matcher::Intercept;

/// The largest head of an answer to CONNECT.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// A proxy for everything but what is excepted.
pub(crate) struct EgressProxy {
    host: Host,
    port: u16,
    matcher: Matcher,
    resolves_names: bool,
}

impl fmt::Debug for EgressProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressProxy")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// The URL of a proxy is not `http://[user:password@]host[:port]`.
#[derive(Debug, thiserror::Error)]
#[error("not the URL of an HTTP proxy, such as http://proxy.example.com:3128")]
pub(crate) struct InvalidProxy;

/// No tunnel through the proxy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    /// It is the platform's fault.
    #[error("the egress proxy cannot be reached")]
    Unreachable(#[source] io::Error),
    #[error("the egress proxy answered {} to CONNECT", _0.as_u16())]
    Refused(StatusCode),
    #[error("the egress proxy did not answer CONNECT as HTTP defines it")]
    Invalid(#[source] Option<hyper::Error>),
}

impl ProxyError {
    /// Returns whether the proxy could not reach the address that it was asked for.
    pub(super) fn is_about_the_address(&self) -> bool {
        matches!(self, Self::Refused(status) if status.is_server_error())
    }
}

impl EgressProxy {
    /// `exceptions` are names with their subdomains, addresses and networks, comma-separated, as in `NO_PROXY`; `*` is every
    /// name. With `resolves_names`, names are handed to the proxy as they are.
    ///
    /// # Errors
    /// When the URL is not that of an HTTP proxy.
    pub(crate) fn new(
        url: &SecretString,
        exceptions: &str,
        resolves_names: bool,
    ) -> Result<Self, InvalidProxy> {
        let parsed = Url::parse(url.expose_secret()).map_err(|_| InvalidProxy)?;
        let is_base = parsed.path() == "/" && parsed.query().is_none() && parsed.fragment().is_none();
        if parsed.scheme() != "http" || !is_base {
            return Err(InvalidProxy);
        }
        let (Some(host), Some(port)) = (parsed.host(), parsed.port_or_known_default()) else {
            return Err(InvalidProxy);
        };
        let matcher = Matcher::builder().all(url.expose_secret()).no(exceptions).build();
        Ok(Self { host: host.to_owned(), port, matcher, resolves_names })
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn resolves_names(&self) -> bool {
        self.resolves_names
    }

    /// Returns how to reach the proxy, unless the URL is excepted.
    pub(super) fn intercept(&self, url: &Url) -> Option<Intercept> {
        self.matcher.intercept(&Uri::try_from(url.as_str()).ok()?)
    }
}

/// Asks the proxy at the other end of `stream` for a connection to `authority`, a host with a port.
pub(super) async fn open_tunnel(
    stream: TcpStream,
    authority: &str,
    credentials: Option<&HeaderValue>,
) -> Result<TcpStream, ProxyError> {
    let invalid = |error| ProxyError::Invalid(Some(error));
    let mut request = Request::connect(authority)
        .header(HOST, authority)
        .body(Empty::<Bytes>::new())
        // A host of a parsed URL is valid here.
        .map_err(|_| ProxyError::Invalid(None))?;
    if let Some(credentials) = credentials {
        request.headers_mut().insert(PROXY_AUTHORIZATION, credentials.clone());
    }
    let (mut sender, connection) = http1::Builder::new()
        .max_header_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(invalid)?;
    let mut connection = pin!(connection.without_shutdown());
    let mut answer = pin!(sender.send_request(request));
    let mut ended = None;
    let answer = poll_fn(|cx| {
        if ended.is_none()
            && let Poll::Ready(parts) = connection.as_mut().poll(cx)
        {
            ended = Some(parts);
        }
        answer.as_mut().poll(cx)
    })
    .await
    .map_err(invalid)?;
    if !answer.status().is_success() {
        return Err(ProxyError::Refused(answer.status()));
    }
    let parts = match ended {
        Some(parts) => parts.map_err(invalid)?,
        None => connection.await.map_err(invalid)?,
    };
    // Neither TLS nor HTTP begins with the server.
    if !parts.read_buf.is_empty() {
        return Err(ProxyError::Invalid(None));
    }
    Ok(parts.io.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str, exceptions: &str) -> Result<EgressProxy, InvalidProxy> {
        EgressProxy::new(&url.to_owned().into(), exceptions, false)
    }

    #[test]
    fn a_url_that_is_no_http_proxy_is_refused() {
        for url in [
            "",
            "proxy",
            "proxy:3128",
            "https://proxy",
            "socks5://proxy",
            "http://proxy/path",
            "http://proxy?a",
        ] {
            assert!(proxy(url, "").is_err(), "{url}");
        }
        for (url, port) in
            [("http://proxy", 80), ("http://user:word@proxy:3128/", 3128), ("http://[::1]:1", 1)]
        {
            assert_eq!(proxy(url, "").unwrap().port(), port, "{url}");
        }
    }

    #[test]
    fn no_credential_is_shown() {
        let proxy = proxy("http://user:hunter2@proxy:3128", "").unwrap();
        let intercept = proxy.intercept(&"https://a.example/".parse().unwrap()).unwrap();
        let shown = format!("{proxy:?} {intercept:?} {:?}", intercept.basic_auth());
        assert!(!shown.contains("hunter2") && !shown.contains("Basic"), "{shown}");
        assert_eq!(intercept.basic_auth().unwrap(), "Basic dXNlcjpodW50ZXIy");
    }

    #[test]
    fn exceptions_are_names_with_their_subdomains_addresses_and_networks() {
        let proxy =
            proxy("http://proxy:3128", "example.com, .svc.cluster.local,192.0.2.0/24,2001:db8::1").unwrap();
        let is_proxied = |url: &str| proxy.intercept(&url.parse().unwrap()).is_some();
        for url in [
            "https://example.com/",
            "http://EXAMPLE.com:8080/a",
            "https://a.example.com/",
            "http://orders.shop.svc.cluster.local/",
            "https://192.0.2.7/",
            "https://[2001:db8::1]/",
        ] {
            assert!(!is_proxied(url), "{url}");
        }
        for url in [
            "https://notexample.com/",
            "https://example.com.evil.test/",
            "http://192.0.3.1/",
            "https://[2001:db8::2]/",
        ] {
            assert!(is_proxied(url), "{url}");
        }
    }

    #[test]
    fn every_name_can_be_excepted() {
        let proxy = proxy("http://proxy:3128", "*").unwrap();
        assert!(proxy.intercept(&"https://example.com/".parse().unwrap()).is_none());
    }
}
