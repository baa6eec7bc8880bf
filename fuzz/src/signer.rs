//! The provider's side of a scheme: signs a request, so that any later change must be refused.
//!
//! The message is taken from the verifier itself: the fuzzer does not look for a wrong message, which vectors find, but for a
//! request that passes without a signature over its message.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use grapnel_core::verification::Verifier;
use grapnel_crds::{HashAlgorithm, KeyEncoding, Scheme, SchemeType, SignatureEncoding};
use http::{HeaderName, HeaderValue};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use ring::{digest, hmac};

use crate::request::Request;

/// The time at which requests are verified: 2026-01-31T09:00:00Z.
pub const NOW: i64 = 1_769_850_000;

/// The placeholder of a signature that is in the body of its request.
pub const PLACEHOLDER: &str = "@signature@";

/// SubjectPublicKeyInfo of a P-256 key in DER, before its point.
const P256_PREFIX: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";

/// A provider's key, and the secret that the receiver is given.
pub struct Signer {
    scheme: Scheme,
    key: Key,
    /// The value of the Secret.
    pub secret: String,
}

enum Key {
    Hmac(hmac::Key),
    Digest,
    Ed25519(Ed25519KeyPair),
    Ecdsa(Box<EcdsaKeyPair>),
    /// The request carries the secret itself, or is signed with a certificate that is not ours.
    None,
}

impl Signer {
    /// Makes a key for a complete scheme.
    pub fn new(scheme: &Scheme) -> Self {
        let raw: Vec<u8> = (0..32).map(|index: u8| b'A' + index % 26).collect();
        let pair = || Ed25519KeyPair::from_seed_unchecked(&raw).expect("a seed has 32 bytes");
        let (key, bytes) = match scheme.kind {
            Some(SchemeType::Hmac) => {
                let algorithm = match scheme.hash.unwrap_or(HashAlgorithm::Sha256) {
                    HashAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                    HashAlgorithm::Sha256 => hmac::HMAC_SHA256,
                    HashAlgorithm::Sha384 => hmac::HMAC_SHA384,
                    HashAlgorithm::Sha512 => hmac::HMAC_SHA512,
                };
                (Key::Hmac(hmac::Key::new(algorithm, &raw)), raw.clone())
            }
            Some(SchemeType::Digest) => (Key::Digest, raw.clone()),
            Some(SchemeType::Ed25519) if encoding(scheme) == KeyEncoding::Seed => {
                (Key::Ed25519(pair()), raw.clone())
            }
            Some(SchemeType::Ed25519) => {
                let pair = pair();
                let public = pair.public_key().as_ref().to_vec();
                (Key::Ed25519(pair), public)
            }
            Some(SchemeType::Ecdsa) => {
                let random = SystemRandom::new();
                let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
                let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
                let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).expect("a pair");
                let prefix = hex::decode(P256_PREFIX).expect("hex");
                let public = [&prefix, pair.public_key().as_ref()].concat();
                (Key::Ecdsa(Box::new(pair)), public)
            }
            Some(SchemeType::AwsSns) => (Key::None, b"arn:aws:sns:eu-central-1:123456789012:orders".to_vec()),
            Some(SchemeType::Token | SchemeType::Basic | SchemeType::Paypal) | None => {
                (Key::None, raw.clone())
            }
        };
        let prefix = scheme.key.as_ref().and_then(|key| key.strip_prefix.clone()).unwrap_or_default();
        let text = match encoding(scheme) {
            KeyEncoding::Base64 => STANDARD.encode(&bytes),
            KeyEncoding::Hex => hex::encode(&bytes),
            KeyEncoding::Utf8 | KeyEncoding::Seed => String::from_utf8_lossy(&bytes).into_owned(),
        };
        Self { scheme: scheme.clone(), key, secret: format!("{prefix}{text}") }
    }

    /// Returns the request with its signature; `None` if it cannot be signed. `spoil` is called with the bytes of the signature
    /// before they are written.
    pub fn sign(
        &self,
        verifier: &Verifier,
        request: &Request,
        spoil: impl Fn(&mut Vec<u8>),
    ) -> Option<Request> {
        // A timestamp in the signature's list must be there before the message can be built.
        let unsigned = self.place(request.clone(), "00")?;
        let in_body = self.from()?.starts_with("json:");
        let message = verifier.message(&if in_body { request.incoming() } else { unsigned.incoming() })?;
        let mut signature = self.compute(&message)?;
        spoil(&mut signature);
        let text = match self.scheme.signature.as_ref().and_then(|signature| signature.encoding) {
            Some(SignatureEncoding::Base64) => STANDARD.encode(signature),
            Some(SignatureEncoding::Hex) | None => hex::encode(signature),
        };
        self.place(request.clone(), &text)
    }

    fn from(&self) -> Option<&str> {
        self.scheme.signature.as_ref()?.from.as_deref()
    }

    fn compute(&self, message: &[u8]) -> Option<Vec<u8>> {
        Some(match &self.key {
            Key::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Key::Digest => {
                let known = String::from_utf8_lossy(message).replacen("{secret}", &self.secret, 1);
                digest::digest(&digest::SHA256, known.as_bytes()).as_ref().to_vec()
            }
            Key::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Key::Ecdsa(pair) => pair.sign(&SystemRandom::new(), message).ok()?.as_ref().to_vec(),
            Key::None => return None,
        })
    }

    fn place(&self, mut request: Request, signature: &str) -> Option<Request> {
        let source = self.scheme.signature.as_ref()?;
        let separator = match source.separator {
            Some(grapnel_crds::Separator::Semicolon) => ";",
            Some(grapnel_crds::Separator::Space) => " ",
            _ => ",",
        };
        let mut value = format!("{}{signature}", source.prefix.as_deref().unwrap_or_default());
        if let Some(field) = source.field.as_deref().filter(|field| !field.is_empty()) {
            value = format!("{field}={value}");
        }
        let timed = self.scheme.timestamp.as_ref();
        let time = match timed.and_then(|source| source.unit) {
            Some(grapnel_crds::TimeUnit::Ms) => format!("{NOW}000"),
            Some(grapnel_crds::TimeUnit::Iso8601) => "2026-01-31T09:00:00Z".to_owned(),
            _ => NOW.to_string(),
        };
        match timed.and_then(|source| source.from.as_deref()).and_then(|from| from.split_once(':')) {
            Some(("field", name)) => value = format!("{name}={time}{separator}{value}"),
            Some(("item", _)) => value = format!("{time}{separator}{value}"),
            _ => {}
        }
        match source.from.as_deref()?.split_once(':')? {
            ("header", name) => {
                request.headers.insert(name.parse::<HeaderName>().ok()?, HeaderValue::from_str(&value).ok()?);
            }
            ("headerPrefix", prefix) => {
                let name = format!("{prefix}1").parse::<HeaderName>().ok()?;
                request.headers.insert(name, HeaderValue::from_str(&value).ok()?);
            }
            ("query", name) => request = request.with_query(&format!("{name}={value}")),
            ("json" | "form", _) => {
                let at = request
                    .body
                    .windows(PLACEHOLDER.len())
                    .position(|window| window == PLACEHOLDER.as_bytes())?;
                request.body.splice(at..at + PLACEHOLDER.len(), value.bytes());
            }
            _ => return None,
        }
        Some(request)
    }
}

fn encoding(scheme: &Scheme) -> KeyEncoding {
    scheme.key.as_ref().and_then(|key| key.encoding).unwrap_or(KeyEncoding::Utf8)
}
