//! The credentials of the two providers whose events the load test writes itself: an HMAC of the body, or a token.

use anyhow::{Context, bail, ensure};
use bytes::{BufMut, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::config::Provider;

const ACME_SIGNATURE: HeaderName = HeaderName::from_static("x-acme-signature");
const GLOBEX_TOKEN: HeaderName = HeaderName::from_static("x-globex-token");

/// The credentials of a provider, ready to use.
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
            Provider::Preset(name) => bail!("{name} is signed by its preset"),
        }
    }

    /// Returns the header for this body. The text of the header uses the memory of `scratch`.
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
    fn globex_sends_its_token_in_a_sensitive_header() {
        let (name, value) = header_of(Provider::Globex, "token-1", b"any");
        assert_eq!((name.as_str(), value.as_bytes()), ("x-globex-token", &b"token-1"[..]));
        assert!(value.is_sensitive());
        assert!(Credentials::new(Provider::Globex, &SecretString::from("a\nb")).is_err());
        assert!(Credentials::new(Provider::Acme, &SecretString::from("")).is_err());
    }
}
