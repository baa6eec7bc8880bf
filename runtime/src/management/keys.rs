//! The keys of the management routes.
//!
//! The key of a request is hashed and compared with the hashes of all valid keys in constant time, so the response time
//! reveals neither where a wrong key differs, nor which key matched, nor how long the keys are.

use std::fmt;

use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::http::KEY_HEADER;

/// Which of the two keys a request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MatchingKey {
    Current,
    /// The one of before, during a rotation.
    Previous,
}

/// The valid keys, hashed: none, one, or two during a rotation.
#[derive(Clone)]
pub struct ManagementKeys(Vec<(MatchingKey, [u8; 32])>);

impl fmt::Debug for ManagementKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManagementKeys({})", self.0.len())
    }
}

impl ManagementKeys {
    pub fn new(current: Option<&SecretString>, previous: Option<&SecretString>) -> Self {
        let hash = |key: &SecretString| Sha256::digest(key.expose_secret()).into();
        let current = current.map(|key| (MatchingKey::Current, hash(key)));
        let previous = previous.map(|key| (MatchingKey::Previous, hash(key)));
        Self(current.into_iter().chain(previous).collect())
    }

    /// Returns whether there is none, so that nobody can be let in by a key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the key of the request, if it has exactly one, and a valid one.
    pub(super) fn matching(&self, headers: &HeaderMap) -> Option<MatchingKey> {
        let mut presented = headers.get_all(KEY_HEADER).iter();
        let (Some(key), None) = (presented.next(), presented.next()) else { return None };
        self.matching_text(key.as_bytes())
    }

    /// Returns which key this is, if it is a valid one.
    pub(super) fn matching_text(&self, key: &[u8]) -> Option<MatchingKey> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let mut matching = None;
        // To the end, whichever matches.
        for (kind, valid) in &self.0 {
            if digest.ct_eq(valid).into() {
                matching = Some(*kind);
            }
        }
        matching
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn matching(keys: [Option<&str>; 2], presented: &[&'static str]) -> Option<MatchingKey> {
        let [current, previous] = keys.map(|key| key.map(SecretString::from));
        let mut headers = HeaderMap::new();
        for key in presented {
            headers.append(KEY_HEADER, HeaderValue::from_static(key));
        }
        ManagementKeys::new(current.as_ref(), previous.as_ref()).matching(&headers)
    }

    #[test]
    fn exactly_one_valid_key_is_admitted() {
        let keys = [Some("current-key-0123456789"), Some("previous-key-0123456789")];
        assert_eq!(matching(keys, &["current-key-0123456789"]), Some(MatchingKey::Current));
        assert_eq!(matching(keys, &["previous-key-0123456789"]), Some(MatchingKey::Previous));
        assert_eq!(matching(keys, &[]), None);
        assert_eq!(matching(keys, &[""]), None);
        assert_eq!(matching(keys, &["current-key-012345678"]), None);
        assert_eq!(matching(keys, &["current-key-01234567890"]), None);
        assert_eq!(matching(keys, &["current-key-0123456789", "current-key-0123456789"]), None);
        assert_eq!(matching([None, None], &[""]), None);
        assert_eq!(matching([None, None], &["current-key-0123456789"]), None);
    }
}
