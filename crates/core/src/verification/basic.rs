//! HTTP basic authentication.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;

use super::VerifyError;
use crate::request::IncomingRequest;

/// Returns `user:password` of the request, decoded.
pub(super) fn credentials(request: &IncomingRequest<'_>) -> Result<Vec<u8>, VerifyError> {
    let mut values = request.headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| VerifyError::Missing("the header authorization".to_owned()))?;
    if values.next().is_some() {
        return Err(VerifyError::Repeated("the header authorization".to_owned()));
    }
    let (scheme, encoded) = value.as_bytes().split_at_checked(6).ok_or(VerifyError::Unreadable)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return Err(VerifyError::Unreadable);
    }
    STANDARD.decode(encoded.trim_ascii()).map_err(|_| VerifyError::Unreadable)
}
