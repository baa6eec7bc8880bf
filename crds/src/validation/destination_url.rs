//! The check of the URL of a destination.
//!
//! URL libraries disagree: one reads as a host the text that another reads as a path or repairs silently. A
//! destination's URL is therefore accepted only in the form that all of them read alike, and only if the library that
//! will call it reads it too.

use std::net::Ipv4Addr;

use url::Url;

use crate::rules::{CelRule, destination as rules};

/// A problem of a URL: a rule that it breaks, or else the reason why it cannot be called.
#[derive(Debug)]
pub(super) enum UrlProblem {
    /// A broken rule, which the API server checks too.
    Rule(CelRule),
    /// The error of the library that would call the URL, which satisfies the rules.
    Invalid(url::ParseError),
}

/// Returns all problems of a URL; none when it can be called.
pub(super) fn problems(text: &str) -> Vec<UrlProblem> {
    let parts = UrlParts::of(text);
    let broken = [
        (parts.as_ref().is_some_and(UrlParts::is_absolute), rules::URL_ABSOLUTE),
        (text.bytes().all(|byte| byte.is_ascii_graphic()), rules::URL_ASCII),
        (!after_slashes(text).is_some_and(|authority| authority.contains('@')), rules::URL_USERINFO),
        (!text.contains('#'), rules::URL_FRAGMENT),
        (parts.as_ref().is_none_or(UrlParts::has_valid_port), rules::URL_PORT),
        (parts.as_ref().is_none_or(UrlParts::has_plain_host), rules::URL_ADDRESS),
    ];
    let problems: Vec<_> =
        broken.into_iter().filter(|(holds, _)| !holds).map(|(_, rule)| UrlProblem::Rule(rule)).collect();
    match Url::parse(text) {
        Err(error) if problems.is_empty() => vec![UrlProblem::Invalid(error)],
        _ => problems,
    }
}

/// The parts of a URL between its delimiters, without any repair.
struct UrlParts<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<&'a str>,
    path: &'a str,
}

impl<'a> UrlParts<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let authority = after_slashes(text)?;
        let path = rest.get(authority.len()..)?.split('?').next()?;
        let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, after)| after);
        // The colons within the brackets of an IPv6 address do not begin a port.
        let host_end = host_and_port.rfind(']').map_or(0, |bracket| bracket + 1);
        let (host, port) = match host_and_port[host_end..].split_once(':') {
            Some((before, port)) => (&host_and_port[..host_end + before.len()], Some(port)),
            None => (host_and_port, None),
        };
        Some(Self { scheme, host, port, path })
    }

    fn is_absolute(&self) -> bool {
        (self.scheme.eq_ignore_ascii_case("http") || self.scheme.eq_ignore_ascii_case("https"))
            && !self.host.is_empty()
            && self.host.bytes().all(|byte| !byte.is_ascii_control() && !b" \"#%/<>?@\\^`{|}".contains(&byte))
            && self.port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
            && percent_escapes_are_whole(self.path)
    }

    /// Returns whether a port that is a number is in its range. Another port makes the URL not absolute.
    fn has_valid_port(&self) -> bool {
        let digits = self.port.unwrap_or_default();
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        !is_number || (digits.len() <= 5 && digits.parse::<u16>().is_ok_and(|port| port > 0))
    }

    /// Returns whether the host is a name or a complete address. A host whose last label is a number is an address.
    fn has_plain_host(&self) -> bool {
        let host = self.host.strip_suffix('.').unwrap_or(self.host);
        let last = host.rsplit('.').next().unwrap_or_default();
        let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
        let is_hex = last
            .strip_prefix("0x")
            .or_else(|| last.strip_prefix("0X"))
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        !(is_number || is_hex) || self.host.parse::<Ipv4Addr>().is_ok()
    }
}

/// Returns the text between "//" and the path.
fn after_slashes(text: &str) -> Option<&str> {
    let (before, rest) = text.split_once("//")?;
    if before.contains(['/', '?', '#']) {
        return None;
    }
    rest.split(['/', '?', '#']).next()
}

fn percent_escapes_are_whole(path: &str) -> bool {
    path.split('%').skip(1).all(|after| {
        after.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(|digit| digit.is_ascii_hexdigit()))
    })
}
