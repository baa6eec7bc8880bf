//! HTTP basic authentication.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;

use super::{Incoming, Refused};

/// `user:password`, decoded.
pub(super) fn credentials(incoming: &Incoming<'_>) -> Result<Vec<u8>, Refused> {
    let mut values = incoming.headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| Refused::Missing("the header authorization".to_owned()))?;
    if values.next().is_some() {
        return Err(Refused::Repeated("the header authorization".to_owned()));
    }
    let (scheme, encoded) = value.as_bytes().split_at_checked(6).ok_or(Refused::Unreadable)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return Err(Refused::Unreadable);
    }
    STANDARD.decode(encoded).map_err(|_| Refused::Unreadable)
}
