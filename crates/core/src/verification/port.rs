//! The forms of a URL that a provider may have signed, when it is not sure about the port.

/// The URL without its port, and with the default port of its scheme.
pub(super) fn variants(url: &str) -> Vec<String> {
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
