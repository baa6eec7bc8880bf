//! Signs deliveries: Standard Webhooks 1.0, the symmetric scheme `v1` (HMAC-SHA256).
//!
//! Parses signing secrets and builds the value of the `webhook-signature` header. The HMAC key is hashed once, when the
//! secret is parsed, and that state is cloned for each signature.
//!
//! See <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use std::fmt;
use std::io::Write;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::zeroize::Zeroizing;
use sha2::Sha256;

const PREFIX: &str = "whsec_";
/// The lengths that the specification allows for a symmetric secret, in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Base64 of the 32 bytes of an HMAC-SHA256.
const SIGNATURE_CHARACTERS: usize = 44;
/// The digits of the smallest `i64`, with its sign.
const LONGEST_TIMESTAMP: usize = 20;

/// Senders and receivers disagree about padding, so it may be missing in a secret.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The key of one destination's signatures. Zeroized when dropped, redacted when printed.
#[derive(Clone)]
pub struct SigningKey {
    mac: Hmac<Sha256>,
}

/// An invalid signing secret. No message repeats any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// The secret is empty.
    #[error("the signing secret is empty")]
    Empty,
    /// The secret is not base64, so no receiver's library could use it.
    #[error("the signing secret is not whsec_ followed by base64")]
    Base64,
    /// The specification allows 24 to 64 bytes.
    #[error("the signing secret has {length} bytes; expected 24 to 64")]
    Length {
        /// Bytes after decoding.
        length: usize,
    },
}

impl SigningKey {
    /// Parses a secret: base64 of 24 to 64 bytes, usually after `whsec_`. White space around it is ignored, since
    /// secrets come from files.
    ///
    /// The prefix may be missing because every Standard Webhooks library accepts that. Other text is refused
    /// rather than taken as raw bytes: the receiver's library would read the same text as base64 or reject it, and then it
    /// could verify none of our signatures.
    ///
    /// # Errors
    /// When the secret is empty, is not base64, or has another length.
    pub fn parse(secret: &str) -> Result<Self, SigningKeyError> {
        let secret = secret.trim_ascii();
        let encoded = secret.strip_prefix(PREFIX).unwrap_or(secret);
        if encoded.is_empty() {
            return Err(SigningKeyError::Empty);
        }
        let key = Zeroizing::new(BASE64.decode(encoded).map_err(|_| SigningKeyError::Base64)?);
        if !KEY_BYTES.contains(&key.len()) {
            return Err(SigningKeyError::Length { length: key.len() });
        }
        let mac = Hmac::new_from_slice(&key).expect("HMAC takes a key of any length");
        Ok(Self { mac })
    }
}

/// Two keys are equal when they sign alike.
impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        // Compared in constant time.
        self.mac.clone().finalize() == other.mac.clone().finalize()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey([REDACTED])")
    }
}

/// Returns the value of `webhook-signature`: `v1,` and the base64 of the signature for each key, separated by spaces. `id` and
/// the timestamp (Unix seconds of this attempt) are the values of `webhook-id` and `webhook-timestamp`.
pub fn sign(keys: &[SigningKey], id: &str, timestamp_seconds: i64, body: &[u8]) -> String {
    let mut timestamp = [0; LONGEST_TIMESTAMP];
    let mut unwritten = timestamp.as_mut_slice();
    write!(unwritten, "{timestamp_seconds}").expect("an i64 has at most 20 characters");
    let length = LONGEST_TIMESTAMP - unwritten.len();

    let mut header = String::with_capacity(keys.len() * (" v1,".len() + SIGNATURE_CHARACTERS));
    for key in keys {
        let mut mac = key.mac.clone();
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(&timestamp[..length]);
        mac.update(b".");
        mac.update(body);
        header.push_str(if header.is_empty() { "v1," } else { " v1," });
        BASE64.encode_string(mac.finalize().into_bytes(), &mut header);
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published vectors of the specification's own libraries (id, timestamp, body, secret, signature).
    const LIBRARIES: (&str, i64, &str, &str, &str) = (
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        r#"{"test": 2432232314}"#,
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    );
    const RUST_LIBRARY: (&str, i64, &str, &str, &str) = (
        "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        1_649_367_553,
        r#"{"email":"test@example.com","username":"test_user"}"#,
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    );
    const OPENAI: (&str, i64, &str, &str, &str) = (
        "wh_685c059ae39c8190af8c71ed1022a24d",
        1_750_861_210,
        r#"{"id": "evt_685c059ae3a481909bdc86819b066fb6", "object": "event", "created_at": 1750861210, "type": "response.completed", "data": {"id": "resp_123"}}"#,
        "whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c=",
        "v1,gUAg4R2hWouRZqRQG4uJypNS8YK885G838+EHb4nKBY=",
    );

    #[test]
    fn published_signatures_are_reproduced() {
        for (id, timestamp, body, secret, signature) in [LIBRARIES, RUST_LIBRARY, OPENAI] {
            let key = SigningKey::parse(secret).unwrap();
            assert_eq!(sign(&[key], id, timestamp, body.as_bytes()), signature, "{id}");
        }
    }

    #[test]
    fn a_large_body_has_its_published_signature() {
        let (id, timestamp, _, secret, _) = LIBRARIES;
        let key = SigningKey::parse(secret).unwrap();
        let signature = sign(&[key], id, timestamp, &vec![b'a'; 262_143]);
        assert_eq!(signature, "v1,NTItnqyWMoFhk2Bbe5V/BMdcFRWgcSQaTgqLHX7FC7c=");
    }

    #[test]
    fn the_prefix_padding_and_surrounding_white_space_do_not_matter() {
        let (id, timestamp, body, secret, signature) = LIBRARIES;
        let bare = secret.trim_start_matches(PREFIX);
        for same in [bare.to_owned(), format!(" {secret}\n")] {
            let key = SigningKey::parse(&same).unwrap();
            assert_eq!(sign(&[key], id, timestamp, body.as_bytes()), signature, "{same:?}");
        }
        let (id, timestamp, body, secret, signature) = OPENAI;
        let key = SigningKey::parse(secret.trim_end_matches('=')).unwrap();
        assert_eq!(sign(&[key], id, timestamp, body.as_bytes()), signature);
    }

    #[test]
    fn each_key_of_a_rotation_signs_in_order_and_without_a_reallocation() {
        let (id, timestamp, body, new, new_signature) = LIBRARIES;
        let keys = [SigningKey::parse(new).unwrap(), SigningKey::parse(RUST_LIBRARY.3).unwrap()];
        let header = sign(&keys, id, timestamp, body.as_bytes());
        let old_signature = sign(&keys[1..], id, timestamp, body.as_bytes());
        assert_eq!(header, format!("{new_signature} {old_signature}"));
        assert_eq!(header.capacity(), 2 * (4 + SIGNATURE_CHARACTERS));
        assert_eq!(sign(&[], id, timestamp, body.as_bytes()), "");
    }

    #[test]
    fn every_timestamp_fits() {
        let key = SigningKey::parse(LIBRARIES.3).unwrap();
        for timestamp in [i64::MIN, -1, 0, i64::MAX] {
            assert!(sign(std::slice::from_ref(&key), "id", timestamp, b"").starts_with("v1,"));
        }
    }

    #[test]
    fn secrets_that_no_receiver_could_use_are_refused() {
        fn check(secret: &str, expected: SigningKeyError) {
            assert_eq!(SigningKey::parse(secret).unwrap_err(), expected, "{secret:?}");
        }
        check("", SigningKeyError::Empty);
        check(" \n", SigningKeyError::Empty);
        check("whsec_", SigningKeyError::Empty);
        check("my secret!", SigningKeyError::Base64);
        check("whsec_my secret!", SigningKeyError::Base64);
        check("c2hvcnQ=", SigningKeyError::Length { length: 5 });
        check(&BASE64.encode([1; 23]), SigningKeyError::Length { length: 23 });
        check(&BASE64.encode([1; 65]), SigningKeyError::Length { length: 65 });
        for length in KEY_BYTES {
            assert!(SigningKey::parse(&BASE64.encode(vec![1; length])).is_ok());
        }
    }

    #[test]
    fn nothing_printed_contains_the_secret() {
        let key = SigningKey::parse(LIBRARIES.3).unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey([REDACTED])");
    }
}
