//! What is read of a browser's request: its cookies, how it came, and which part of a page it wants.

use http::header::{ACCEPT_ENCODING, COOKIE, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::Console;
use crate::management::peer;

/// Returns the value of a cookie that the request has exactly once.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(known, _)| *known == name).map(|(_, value)| value);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Makes a cookie that only we read, for the time that it says; an empty one that lasts no time removes it.
pub(super) fn new_cookie(
    name: &str,
    value: &str,
    seconds: u64,
    root: &str,
    is_https: bool,
) -> Option<HeaderValue> {
    let secure = if is_https { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path={root}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&text).ok()
}

/// Whether the browser uses https. Only a trusted proxy is believed.
pub(super) fn is_https(console: &Console, parts: &Parts) -> bool {
    let peer = peer(parts).to_canonical();
    let is_trusted = console.management.trusted_proxies.iter().any(|network| network.contains(&peer));
    let forwarded = parts.headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
    // With several proxies, the first entry is the browser's.
    let first = forwarded.and_then(|value| value.split(',').next()).map(str::trim);
    is_trusted && first.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
}

/// Whether the request is for a part of a page.
pub(super) fn wants_fragment(headers: &HeaderMap) -> bool {
    headers.contains_key("hx-request")
}

/// Whether the answer may be compressed.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    accepted.flat_map(|line| line.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim().eq_ignore_ascii_case("gzip")
            && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}

/// Whether the request names this machine by a name of its own. Another site's name that leads here is one by which its scripts would read
/// our pages.
pub(super) fn names_this_machine(parts: &Parts) -> bool {
    let host = parts.uri.authority().map(|authority| authority.as_str());
    let Some(host) = host.or_else(|| parts.headers.get(HOST)?.to_str().ok()) else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse().is_ok_and(|address: std::net::IpAddr| address.to_canonical().is_loopback())
}

/// Whether the browser says that another site made the request. Older ones say nothing.
pub(super) fn comes_from_another_site(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    site.is_some_and(|site| !matches!(site, "same-origin" | "none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::builder().uri("/console/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_cookie_counts_if_it_is_given_once() {
        let value = |lines: &[&'static str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
            cookie(&parts(&lines).headers, "session").map(str::to_owned)
        };
        assert_eq!(value(&["a=b; session=x=y"]).as_deref(), Some("x=y"));
        assert_eq!(value(&["a=b", "session=x"]).as_deref(), Some("x"));
        assert_eq!(value(&["session=x; session=y"]), None);
        assert_eq!(value(&["xsession=x", "session"]), None);
    }

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        let is_ours = |host: &'static str| names_this_machine(&parts(&[("host", host)]));
        for ours in ["localhost", "LOCALHOST:8081", "127.0.0.1:8081", "127.9.9.9", "[::1]:8081"] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in [
            "example.com",
            "localhost.example.com:8081",
            "192.0.2.1",
            "[2001:db8::1]:80",
            "",
            "127.0.0.1.example.com",
        ] {
            assert!(!is_ours(other), "{other}");
        }
        assert!(!names_this_machine(&parts(&[])));
    }

    #[test]
    fn compression_is_what_the_browser_accepts() {
        let accepts = |value: &'static str| accepts_gzip(&parts(&[("accept-encoding", value)]).headers);
        assert!(accepts("gzip, deflate, br") && accepts("br;q=1.0, GZIP;q=0.5"));
        assert!(!accepts("br") && !accepts("gzip;q=0") && !accepts("xgzip"));
    }
}
