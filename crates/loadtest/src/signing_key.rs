//! The key that verifies the signature of a delivery (Standard Webhooks 1.0, symmetric `v1`).

use std::fmt;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// How far the timestamp of a delivery may be from this clock, as in the reference libraries.
const TOLERANCE_SECONDS: u64 = 300;

/// Secrets come with and without the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A key that deliveries are signed with.
#[derive(Clone)]
pub struct VerificationKey(Hmac<Sha256>);

impl VerificationKey {
    /// Parses `whsec_` followed by base64.
    ///
    /// # Errors
    /// When the text has another form. The message does not contain the text.
    pub fn parse(secret: &SecretString) -> anyhow::Result<VerificationKey> {
        let text =
            secret.expose_secret().strip_prefix("whsec_").context("a signing secret begins with whsec_")?;
        let key = BASE64.decode(text).ok().context("the signing secret is not valid base64 after whsec_")?;
        ensure!(!key.is_empty(), "the signing secret is empty");
        Ok(VerificationKey(Hmac::new_from_slice(&key).context("use the signing secret as an HMAC key")?))
    }

    /// Whether the request is signed with this key, at a time close to `now_seconds` (Unix).
    pub(crate) fn verifies(&self, headers: &HeaderMap, body: &[u8], now_seconds: u64) -> bool {
        let header = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
        let (Some(id), Some(timestamp), Some(signatures)) =
            (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"))
        else {
            return false;
        };
        let sent_seconds = std::str::from_utf8(timestamp).ok().and_then(|text| text.parse::<u64>().ok());
        if id.is_empty() || sent_seconds.is_none_or(|sent| sent.abs_diff(now_seconds) > TOLERANCE_SECONDS) {
            return false;
        }
        let mut hmac = self.0.clone();
        for part in [id, b".", timestamp, b".", body] {
            hmac.update(part);
        }
        signatures.split(|byte| *byte == b' ').filter_map(|item| item.strip_prefix(b"v1,")).any(|item| {
            BASE64.decode(item).is_ok_and(|signature| hmac.clone().verify_slice(&signature).is_ok())
        })
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("VerificationKey([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in the reference libraries of Standard Webhooks.
    fn example() -> (VerificationKey, HeaderMap, &'static [u8], u64) {
        let key = VerificationKey::parse(&SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
            .expect("a good key");
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", HeaderValue::from_static("msg_p5jXN8AQM9LWM0D4loKWxJek"));
        headers.insert("webhook-timestamp", HeaderValue::from_static("1614265330"));
        headers.insert(
            "webhook-signature",
            HeaderValue::from_static("v1,bm9ldHUjKzFob2VudXRob2VodWUzMjRvdWVvdW9ldQo= v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        );
        (key, headers, br#"{"test": 2432232314}"#, 1_614_265_330)
    }

    #[test]
    fn any_signature_of_a_delivery_may_match() {
        let (key, headers, body, now) = example();
        assert!(key.verifies(&headers, body, now));
        assert!(key.verifies(&headers, body, now + TOLERANCE_SECONDS));
    }

    #[test]
    fn a_changed_delivery_is_not_verified() {
        let (key, headers, body, now) = example();
        assert!(!key.verifies(&headers, b"{}", now));
        assert!(!key.verifies(&headers, body, now + TOLERANCE_SECONDS + 1));
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            let mut without = headers.clone();
            without.remove(name);
            assert!(!key.verifies(&without, body, now), "without {name}");
            let mut changed = headers.clone();
            changed.insert(name, HeaderValue::from_static("1614265331"));
            assert!(!key.verifies(&changed, body, now), "changed {name}");
        }
    }

    #[test]
    fn an_invalid_signing_secret_is_refused_and_not_repeated() {
        for bad in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_not base64"] {
            let error = VerificationKey::parse(&SecretString::from(bad)).expect_err(bad);
            assert!(!format!("{error:#}").contains(bad));
        }
    }
}
