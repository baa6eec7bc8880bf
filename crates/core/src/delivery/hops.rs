//! How often an event has passed through Grapnel, so that a delivery loop ends.
//!
//! A destination may be a route of Grapnel, of this installation or of another, directly or behind other services. Each
//! delivery carries the count in `CDN-Loop` (RFC 8586), the standard header for this purpose: `grapnel; hops=2`. Services in
//! between must neither remove nor change it, and what others wrote into it does not count here. `Via` would be the
//! alternative, but it makes servers treat the sender as a proxy, and a delivery is a request of its own. For that reason
//! what a CDN wrote on the way in is not sent on: it would take its customer's next request for a loop.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The header, received and sent.
pub static CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// The most hops of a webhook that is accepted. An integration has up to 16 destinations, so each further hop may multiply an
/// event by 16; chains of routes that somebody builds on purpose are shorter.
pub const MAX_HOPS: u16 = 3;

/// Our name in the header.
const CDN_ID: &[u8] = b"grapnel";

/// Returns how often Grapnel has delivered what this request carries.
pub fn hops_of(headers: &HeaderMap) -> u16 {
    count(headers.get_all(&CDN_LOOP).iter().map(HeaderValue::as_bytes))
}

/// Returns the highest count of the values of the header. An element of ours whose count cannot be read counts as too many,
/// and one without a count as one.
pub fn count<'a>(values: impl Iterator<Item = &'a [u8]>) -> u16 {
    let elements = values.flat_map(|value| value.split(|byte| *byte == b','));
    elements.filter_map(hops_of_element).max().unwrap_or(0)
}

fn hops_of_element(element: &[u8]) -> Option<u16> {
    let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    if !parts.next()?.eq_ignore_ascii_case(CDN_ID) {
        return None;
    }
    let Some(hops) = parts.find_map(|parameter| parameter.strip_prefix(b"hops=")) else { return Some(1) };
    Some(std::str::from_utf8(hops).ok().and_then(|hops| hops.parse().ok()).unwrap_or(u16::MAX))
}

/// Returns the header of a delivery of an event that came after `received` hops.
pub fn next_hop(received: u16) -> HeaderValue {
    match received {
        0 => HeaderValue::from_static("grapnel; hops=1"),
        // Text of ASCII is always valid.
        _ => HeaderValue::try_from(format!("grapnel; hops={}", received.saturating_add(1)))
            .unwrap_or_else(|_| HeaderValue::from_static("grapnel; hops=65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_hops_count() {
        let count = |values: &[&str]| count(values.iter().map(|value| value.as_bytes()));
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&["cloudflare; loops=7", "akamai;v=1.0;c=9"]), 0);
        assert_eq!(count(&["grapnel"]), 1);
        assert_eq!(count(&["cloudflare; loops=1, Grapnel;hops=2"]), 2);
        assert_eq!(count(&["grapnel; hops=1", "grapnel; v=1; hops=3, grapnel; hops=2"]), 3);
        for unreadable in
            ["grapnel; hops=", "grapnel; hops=-1", "grapnel; hops=65536", "grapnel; hops=\u{e9}"]
        {
            assert!(count(&[unreadable]) > MAX_HOPS, "{unreadable}");
        }
    }

    #[test]
    fn a_delivery_is_one_hop_more() {
        for received in [0, 1, MAX_HOPS] {
            let sent = next_hop(received);
            assert_eq!(count([sent.as_bytes()].into_iter()), received + 1);
        }
        assert_eq!(count([next_hop(u16::MAX).as_bytes()].into_iter()), u16::MAX);
    }
}
