//! Proves that a request comes from the provider: over the raw bytes, before anything is parsed.
//!
//! Comparisons are in constant time. A credential that does not decode is a wrong one, not an error. Every live secret
//! is tried; an empty secret never gets this far, since a verifier refuses to be made of one.

use axum::http::{HeaderMap, HeaderName};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;

use crate::preset::{Encoding, Verification};

/// The request does not prove that it comes from the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("the credentials are missing")]
    Missing,
    #[error("the credentials are wrong")]
    Wrong,
}

#[derive(Debug, Error)]
#[error("a verification secret is empty")]
pub struct EmptySecret;

/// A preset's verification with an integration's secrets, compiled once for each version of the integration.
pub struct Verifier {
    header: HeaderName,
    scheme: Scheme,
}

enum Scheme {
    HmacSha256 {
        keys: Vec<Hmac<Sha256>>,
        encoding: Encoding,
    },
    /// SHA-256 of each secret, so that the comparison tells nothing about a length.
    Token {
        digests: Vec<[u8; 32]>,
    },
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("header", &self.header).finish_non_exhaustive()
    }
}

impl Verifier {
    /// # Errors
    /// An empty secret would verify what anyone can compute.
    pub fn new(verification: &Verification, secrets: &[impl AsRef<[u8]>]) -> Result<Self, EmptySecret> {
        if secrets.is_empty() || secrets.iter().any(|secret| secret.as_ref().is_empty()) {
            return Err(EmptySecret);
        }
        let secrets = secrets.iter().map(AsRef::as_ref);
        let (header, scheme) = match verification {
            Verification::HmacSha256 { header, encoding } => {
                let keys =
                    secrets.map(|secret| Hmac::<Sha256>::new_from_slice(secret).map_err(|_| EmptySecret));
                (header, Scheme::HmacSha256 { keys: keys.collect::<Result<_, _>>()?, encoding: *encoding })
            }
            Verification::Token { header } => (
                header,
                Scheme::Token { digests: secrets.map(|secret| Sha256::digest(secret).into()).collect() },
            ),
        };
        Ok(Self { header: header.0.clone(), scheme })
    }

    /// The header that carries a secret in the clear and must not be stored; `None` when there is none.
    pub fn secret_header(&self) -> Option<&HeaderName> {
        matches!(self.scheme, Scheme::Token { .. }).then_some(&self.header)
    }

    pub fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), Refused> {
        let mut values = headers.get_all(&self.header).iter();
        let credential = values.next().ok_or(Refused::Missing)?.as_bytes();
        // Two values are two claims; which one counts would be a matter of taste.
        if values.next().is_some() {
            return Err(Refused::Wrong);
        }
        let proven = match &self.scheme {
            Scheme::HmacSha256 { keys, encoding } => {
                let signature = decode(credential, *encoding).ok_or(Refused::Wrong)?;
                keys.iter().any(|key| key.clone().chain_update(body).verify_slice(&signature).is_ok())
            }
            Scheme::Token { digests } => {
                let digest: [u8; 32] = Sha256::digest(credential).into();
                let matched =
                    digests.iter().fold(Choice::from(0), |found, known| found | digest.ct_eq(known));
                matched.into()
            }
        };
        if proven { Ok(()) } else { Err(Refused::Wrong) }
    }
}

/// Exactly 32 bytes, or nothing.
fn decode(text: &[u8], encoding: Encoding) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    match encoding {
        Encoding::Hex => hex::decode_to_slice(text, &mut bytes).ok()?,
        Encoding::Base64 => {
            let decoded = STANDARD.decode(text).ok()?;
            bytes = decoded.try_into().ok()?;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset;

    fn verifier(provider: &str, secrets: &[&str]) -> Verifier {
        let preset = preset::find(provider).expect("a preset");
        Verifier::new(&preset.verification, secrets).expect("not empty")
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    /// RFC 4231, test case 2, in Acme's header.
    const KEY: &str = "Jefe";
    const BODY: &[u8] = b"what do ya want for nothing?";
    const MAC: &str = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";

    #[test]
    fn the_published_hmac_is_accepted_in_either_case() {
        let verifier = verifier("acme", &[KEY]);
        for signature in [MAC.to_owned(), MAC.to_uppercase()] {
            assert_eq!(verifier.verify(&headers(&[("x-acme-signature", &signature)]), BODY), Ok(()));
        }
    }

    #[test]
    fn anything_but_the_exact_signature_is_refused() {
        let verifier = verifier("acme", &[KEY]);
        let flipped = MAC.replacen('5', "4", 1);
        let cases =
            [flipped.as_str(), &MAC[..62], "", "zz", " ", &format!("{MAC}00"), &format!("sha256={MAC}")]
                .map(str::to_owned);
        for signature in cases {
            let refused = verifier.verify(&headers(&[("x-acme-signature", &signature)]), BODY);
            assert_eq!(refused, Err(Refused::Wrong), "{signature:?}");
        }
        assert_eq!(verifier.verify(&headers(&[("x-acme-signature", MAC)]), b"other"), Err(Refused::Wrong));
        assert_eq!(verifier.verify(&headers(&[]), BODY), Err(Refused::Missing));
    }

    #[test]
    fn two_signature_headers_are_refused_though_one_is_right() {
        let mut headers = headers(&[("x-acme-signature", MAC)]);
        headers.append("x-acme-signature", MAC.parse().expect("a value"));
        assert_eq!(verifier("acme", &[KEY]).verify(&headers, BODY), Err(Refused::Wrong));
    }

    #[test]
    fn the_previous_secret_is_accepted_beside_the_current_one() {
        let verifier = verifier("acme", &["new", KEY]);
        assert_eq!(verifier.verify(&headers(&[("x-acme-signature", MAC)]), BODY), Ok(()));
    }

    #[test]
    fn a_token_must_equal_a_secret() {
        let verifier = verifier("globex", &["one", "two"]);
        for (token, expected) in [
            ("one", Ok(())),
            ("two", Ok(())),
            ("On", Err(Refused::Wrong)),
            ("one ", Err(Refused::Wrong)),
            ("", Err(Refused::Wrong)),
        ] {
            // A header value keeps no trailing space; bytes do.
            let mut headers = HeaderMap::new();
            headers.insert(
                "x-globex-token",
                axum::http::HeaderValue::from_bytes(token.as_bytes()).expect("a value"),
            );
            assert_eq!(verifier.verify(&headers, b""), expected, "{token:?}");
        }
    }

    #[test]
    fn an_empty_secret_makes_no_verifier() {
        let preset = preset::find("globex").expect("a preset");
        assert!(Verifier::new(&preset.verification, &[""]).is_err());
        assert!(Verifier::new(&preset.verification, &["a", ""]).is_err());
        assert!(Verifier::new(&preset.verification, &[] as &[&str]).is_err());
    }
}
