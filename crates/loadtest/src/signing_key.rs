//! Keys of both directions: how a provider signs its webhook, and how a delivery's signature is verified
//! (Standard Webhooks 1.0, symmetric `v1`).

use std::fmt;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{BufMut, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use super::config::Provider;

const ACME_SIGNATURE: HeaderName = HeaderName::from_static("x-acme-signature");
const GLOBEX_TOKEN: HeaderName = HeaderName::from_static("x-globex-token");

/// How far a delivery's timestamp may be from our clock; the figure that the reference libraries use.
const TOLERANCE_SECONDS: u64 = 300;

/// Secrets are written with and without the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The credentials that go with a webhook.
#[derive(Clone)]
pub(crate) enum Credentials {
    Acme(Hmac<Sha256>),
    Globex(HeaderValue),
}

impl Credentials {
    pub(crate) fn new(provider: Provider, secret: &SecretString) -> anyhow::Result<Credentials> {
        let secret = secret.expose_secret();
        ensure!(!secret.is_empty(), "the provider's secret is empty");
        match provider {
            Provider::Acme => {
                let key = Hmac::new_from_slice(secret.as_bytes()).context("use the secret as an HMAC key")?;
                Ok(Credentials::Acme(key))
            }
            Provider::Globex => {
                let mut token = HeaderValue::from_str(secret).context("use the secret as a header")?;
                token.set_sensitive(true);
                Ok(Credentials::Globex(token))
            }
            Provider::Preset(name) => bail!("{name} has credentials of its own"),
        }
    }

    /// The header for this body. `scratch` lends its memory to the header's text.
    pub(crate) fn header(
        &self,
        body: &[u8],
        scratch: &mut BytesMut,
    ) -> anyhow::Result<(HeaderName, HeaderValue)> {
        match self {
            Credentials::Acme(key) => {
                let mut hmac = key.clone();
                hmac.update(body);
                let mut text = [0; 64];
                hex::encode_to_slice(hmac.finalize().into_bytes(), &mut text)
                    .context("write the signature in hex")?;
                scratch.put_slice(&text);
                let value = HeaderValue::from_maybe_shared(scratch.split().freeze())?;
                Ok((ACME_SIGNATURE, value))
            }
            Credentials::Globex(token) => Ok((GLOBEX_TOKEN, token.clone())),
        }
    }
}

/// The key with which deliveries are signed.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Reads `whsec_` followed by base64.
    ///
    /// # Errors
    /// When the text is not of that form. The message does not repeat it.
    pub fn parse(secret: &SecretString) -> anyhow::Result<SigningKey> {
        let text =
            secret.expose_secret().strip_prefix("whsec_").context("a signing secret begins with whsec_")?;
        let key = BASE64.decode(text).ok().context("the signing secret is not base64 after whsec_")?;
        ensure!(!key.is_empty(), "the signing secret is empty");
        Ok(SigningKey(Hmac::new_from_slice(&key).context("use the signing secret as an HMAC key")?))
    }

    /// Whether the request is signed with this key, at a time near `now_seconds` (Unix).
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

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SigningKey([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_of(provider: Provider, secret: &str, body: &[u8]) -> (HeaderName, HeaderValue) {
        let credentials = Credentials::new(provider, &SecretString::from(secret)).expect("a usable secret");
        credentials.header(body, &mut BytesMut::new()).expect("a header")
    }

    #[test]
    fn acme_is_signed_with_the_hex_hmac_of_the_body() {
        // RFC 4231, test case 2.
        let (name, value) = header_of(Provider::Acme, "Jefe", b"what do ya want for nothing?");
        assert_eq!(name, "x-acme-signature");
        assert_eq!(value, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn globex_carries_its_token_and_hides_it() {
        let (name, value) = header_of(Provider::Globex, "token-1", b"any");
        assert_eq!((name.as_str(), value.as_bytes()), ("x-globex-token", &b"token-1"[..]));
        assert!(value.is_sensitive());
        assert!(Credentials::new(Provider::Globex, &SecretString::from("a\nb")).is_err());
        assert!(Credentials::new(Provider::Acme, &SecretString::from("")).is_err());
    }

    /// The example of the Standard Webhooks reference libraries.
    fn example() -> (SigningKey, HeaderMap, &'static [u8], u64) {
        let key = SigningKey::parse(&SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
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
    fn any_of_the_signatures_of_a_delivery_may_match() {
        let (key, headers, body, now) = example();
        assert!(key.verifies(&headers, body, now));
        assert!(key.verifies(&headers, body, now + TOLERANCE_SECONDS));
    }

    #[test]
    fn a_delivery_with_anything_changed_is_not_verified() {
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
    fn a_signing_secret_of_another_form_is_refused_without_repeating_it() {
        for bad in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_not base64"] {
            let error = SigningKey::parse(&SecretString::from(bad)).expect_err(bad);
            assert!(!format!("{error:#}").contains(bad));
        }
    }
}
