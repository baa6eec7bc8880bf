//! The proof in every form that it is one of our own pages.
//!
//! A token is a MAC of whose form it is: of the session, or of the user where there is no session. It is masked with random bytes, so that
//! it looks different in every page: a page is compressed together with text of others, and its length must say nothing about the token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac::{HMAC_SHA256, Key, sign, verify};

const LENGTH: usize = 32;

/// The name of the field in a form.
pub(super) const FIELD: &str = "csrf";

/// Makes and checks the tokens.
pub(super) struct CsrfKey(Key);

impl CsrfKey {
    pub(super) fn new(key: &[u8]) -> Self {
        Self(Key::new(HMAC_SHA256, key))
    }

    /// Returns a new token for the forms of this subject.
    pub(super) fn token(&self, subject: &[u8]) -> String {
        let mask: [u8; LENGTH] = rand::random();
        let mut token = [0; 2 * LENGTH];
        token[..LENGTH].copy_from_slice(&mask);
        for (byte, (mask, mac)) in
            token[LENGTH..].iter_mut().zip(mask.iter().zip(sign(&self.0, subject).as_ref()))
        {
            *byte = mask ^ mac;
        }
        URL_SAFE_NO_PAD.encode(token)
    }

    /// Returns whether it is a token for the forms of this subject.
    pub(super) fn accepts(&self, subject: &[u8], token: &str) -> bool {
        let Ok(token) = URL_SAFE_NO_PAD.decode(token) else { return false };
        let Some((mask, masked)) = token.split_first_chunk::<LENGTH>() else { return false };
        let mac: Vec<u8> = masked.iter().zip(mask).map(|(masked, mask)| masked ^ mask).collect();
        verify(&self.0, subject, &mac).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_of_one_subject_and_never_looks_the_same() {
        let key = CsrfKey::new(b"key");
        let (one, other) = (key.token(b"session"), key.token(b"session"));
        assert_ne!(one, other);
        assert!(key.accepts(b"session", &one) && key.accepts(b"session", &other));
        assert!(!key.accepts(b"another", &one));
        assert!(!CsrfKey::new(b"other key").accepts(b"session", &one));
        for bad in ["", "AAAA", &one[1..], &"A".repeat(one.len()), "é"] {
            assert!(!key.accepts(b"session", bad), "{bad}");
        }
    }
}
