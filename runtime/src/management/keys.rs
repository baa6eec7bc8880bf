//! The keys of the management routes.
//!
//! The key of a request is hashed and compared with the hashes of all valid keys in constant time, so the response time
//! reveals neither where a wrong key differs, nor which key matched, nor how long the keys are.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::http::KEY_HEADER;
use crate::http::envelope::{ApiError, ErrorCode};

/// The valid keys, hashed: one, or two during a rotation.
#[derive(Clone)]
pub struct ManagementKeys(Vec<[u8; 32]>);

impl ManagementKeys {
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a SecretString>) -> Self {
        Self(keys.into_iter().map(|key| Sha256::digest(key.expose_secret()).into()).collect())
    }

    /// Returns whether the request has exactly one key, and a valid one.
    fn admit(&self, headers: &HeaderMap) -> bool {
        let mut presented = headers.get_all(KEY_HEADER).iter();
        let (Some(key), None) = (presented.next(), presented.next()) else { return false };
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let mut admitted = Choice::from(0);
        for valid in &self.0 {
            admitted |= digest.ct_eq(valid);
        }
        admitted.into()
    }
}

/// Answers 401 before anything else of the request is read.
pub(super) async fn require_key(
    State(keys): State<ManagementKeys>,
    request: Request,
    next: Next,
) -> Response {
    if keys.admit(request.headers()) {
        next.run(request).await
    } else {
        ApiError::new(ErrorCode::Unauthorized, format!("A valid {KEY_HEADER} header is required"))
            .into_response()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn admitted(keys: &[&str], presented: &[&'static str]) -> bool {
        let keys: Vec<_> = keys.iter().map(|key| SecretString::from(*key)).collect();
        let mut headers = HeaderMap::new();
        for key in presented {
            headers.append(KEY_HEADER, HeaderValue::from_static(key));
        }
        ManagementKeys::new(&keys).admit(&headers)
    }

    #[test]
    fn exactly_one_valid_key_is_admitted() {
        let keys = ["current-key-0123456789", "previous-key-0123456789"];
        assert!(admitted(&keys, &["current-key-0123456789"]));
        assert!(admitted(&keys, &["previous-key-0123456789"]));
        assert!(!admitted(&keys, &[]));
        assert!(!admitted(&keys, &[""]));
        assert!(!admitted(&keys, &["current-key-012345678"]));
        assert!(!admitted(&keys, &["current-key-01234567890"]));
        assert!(!admitted(&keys, &["current-key-0123456789", "current-key-0123456789"]));
        assert!(!admitted(&[], &[""]));
    }
}
