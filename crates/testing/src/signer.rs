//! The provider's side of a scheme: signs a request as the preset says.
//!
//! It shares nothing with the code under test, not even its types: a scheme is read as JSON. Only signatures with a
//! certificate (`builtin:aws-sns`, `builtin:paypal`) cannot be made here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use ring::{digest, hmac};
use serde::Serialize;
use serde_json::Value;

use crate::request::WebhookRequest;

/// Marks the place of the signature in a body that carries its own.
pub const PLACEHOLDER: &str = "@signature@";

const SECRET: &str = "a-secret-of-the-provider-0123456";

/// The SubjectPublicKeyInfo of a P-256 key in DER, up to its point.
const P256_PREFIX: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";

/// A provider with its key.
pub struct Signer {
    scheme: Value,
    key: Key,
    /// The text that the receiver keeps in a Secret.
    pub secret: String,
}

enum Key {
    Bytes(Vec<u8>),
    Ed25519(Ed25519KeyPair),
    Ecdsa(Box<EcdsaKeyPair>),
}

/// The part of a request that carries the signature, with its value.
pub enum Placement {
    Header(String, String),
    Query(String),
    /// Replaces [`PLACEHOLDER`].
    Body(String),
}

impl Signer {
    /// Reads the scheme as JSON, whether it is JSON already or a type of the crate under test.
    pub fn new(scheme: &impl Serialize) -> Self {
        Self::with(&serde_json::to_value(scheme).expect("JSON"), SECRET)
    }

    /// Uses a secret of the provider's choice, if the scheme is keyed with one.
    pub fn with(scheme: &Value, text: &str) -> Self {
        let prefix = scheme["key"]["stripPrefix"].as_str().unwrap_or_default();
        let encoding = scheme["key"]["encoding"].as_str().unwrap_or("utf8");
        let encode = |bytes: &[u8]| match encoding {
            "base64" => format!("{prefix}{}", STANDARD.encode(bytes)),
            "hex" => format!("{prefix}{}", hex::encode(bytes)),
            _ => format!("{prefix}{}", String::from_utf8_lossy(bytes)),
        };
        let bytes = text.as_bytes().to_vec();
        let (key, secret) = match scheme["type"].as_str() {
            Some("ed25519") if encoding == "seed" => {
                let seed: Vec<u8> = bytes.iter().copied().cycle().take(32).collect();
                (Key::Ed25519(ed25519(&seed)), encode(&bytes))
            }
            Some("ed25519") => {
                let pair = ed25519(&[9; 32]);
                let secret = encode(pair.public_key().as_ref());
                (Key::Ed25519(pair), secret)
            }
            Some("ecdsa") => {
                let pair = ecdsa();
                let prefix = hex::decode(P256_PREFIX).expect("hex");
                let secret = encode(&[&prefix, pair.public_key().as_ref()].concat());
                (Key::Ecdsa(Box::new(pair)), secret)
            }
            Some("builtin:aws-sns") => {
                (Key::Bytes(bytes), "arn:aws:sns:eu-central-1:123456789012:orders".to_owned())
            }
            _ => {
                let secret = encode(&bytes);
                (Key::Bytes(bytes), secret)
            }
        };
        Self { scheme: scheme.clone(), key, secret }
    }

    /// Returns the request with its times and its signature of this moment. `spoil` changes the signature before it is put
    /// in its place.
    pub fn sign(&self, request: &WebhookRequest, spoil: impl Fn(String) -> String) -> WebhookRequest {
        self.sign_at(request, Timestamp::now(), spoil)
    }

    pub fn sign_at(
        &self,
        request: &WebhookRequest,
        now: Timestamp,
        spoil: impl Fn(String) -> String,
    ) -> WebhookRequest {
        let timed = |text: &str| {
            text.replace("@now@", &now.as_second().to_string())
                .replace("@nowMs@", &now.as_millisecond().to_string())
                .replace("@nowIso@", &now.to_string())
        };
        let mut request = request.clone();
        request.headers.iter_mut().for_each(|(_, value)| *value = timed(value));
        request.body = timed(std::str::from_utf8(&request.body).expect("text")).into_bytes();
        let timestamp = self.timestamp(&request, now);
        let signature = if self.scheme["type"] == "token" {
            self.secret.clone()
        } else {
            let signature = self.signature(&self.message(&request, &timestamp));
            self.encode(&signature.expect("a scheme with a key of the provider"))
        };
        match self.placement(&timestamp, &spoil(signature)).expect("a place of the signature") {
            Placement::Header(name, value) => request.headers.push((name, value)),
            Placement::Query(query) => request.query = Some(query),
            Placement::Body(value) => {
                let body = String::from_utf8(request.body).expect("text");
                request.body = body.replace(PLACEHOLDER, &value).into_bytes();
            }
        }
        request
    }

    /// Returns the signature of a message; `None` if the scheme signs nothing, or with a certificate.
    pub fn signature(&self, message: &[u8]) -> Option<Vec<u8>> {
        Some(match (&self.key, self.scheme["type"].as_str()?) {
            (Key::Bytes(key), "hmac") => {
                let algorithm = match self.scheme["hash"].as_str() {
                    Some("sha1") => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                    Some("sha384") => hmac::HMAC_SHA384,
                    Some("sha512") => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(algorithm, key), message).as_ref().to_vec()
            }
            (Key::Bytes(_), "digest") => digest::digest(&digest::SHA256, message).as_ref().to_vec(),
            (Key::Ed25519(pair), _) => pair.sign(message).as_ref().to_vec(),
            (Key::Ecdsa(pair), _) => pair.sign(&SystemRandom::new(), message).ok()?.as_ref().to_vec(),
            _ => return None,
        })
    }

    /// Returns a signature in the encoding of the scheme.
    pub fn encode(&self, signature: &[u8]) -> String {
        match self.scheme["signature"]["encoding"].as_str() {
            Some("base64") => STANDARD.encode(signature),
            _ => hex::encode(signature),
        }
    }

    /// Returns where the request carries the encoded signature; `None` if the scheme does not name a known place.
    pub fn placement(&self, timestamp: &str, signature: &str) -> Option<Placement> {
        let source = &self.scheme["signature"];
        let text = |name: &str| source[name].as_str().unwrap_or_default();
        let separator = match text("separator") {
            "" | "none" => ",",
            separator => separator,
        };
        let mut value = format!("{}{signature}", text("prefix"));
        if !text("field").is_empty() {
            value = format!("{}={value}", text("field"));
        }
        match self.scheme["timestamp"]["from"].as_str().and_then(|from| from.split_once(':')) {
            Some(("field", name)) => value = format!("{name}={timestamp}{separator}{value}"),
            Some(("item", _)) => value = format!("{timestamp}{separator}{value}"),
            _ => {}
        }
        Some(match text("from").split_once(':')? {
            ("header", name) => Placement::Header(name.to_owned(), value),
            ("headerPrefix", prefix) => Placement::Header(format!("{prefix}1"), value),
            ("query", name) => Placement::Query(format!("{name}={value}")),
            ("json" | "form" | "element", _) => Placement::Body(value),
            _ => return None,
        })
    }

    /// Returns the time that is signed, in the unit of the scheme if the signature carries it.
    fn timestamp(&self, request: &WebhookRequest, now: Timestamp) -> String {
        match self.scheme["timestamp"]["from"].as_str() {
            None => String::new(),
            Some(from) if from.starts_with("field:") || from.starts_with("item:") => {
                match self.scheme["timestamp"]["unit"].as_str() {
                    Some("ms") => now.as_millisecond().to_string(),
                    Some("iso8601") => now.to_string(),
                    _ => now.as_second().to_string(),
                }
            }
            Some(from) => value_at(request, from),
        }
    }

    fn message(&self, request: &WebhookRequest, timestamp: &str) -> Vec<u8> {
        let mut message = Vec::new();
        let mut rest = self.scheme["message"].as_str().expect("a message");
        while let Some((literal, after)) = rest.split_once('{') {
            message.extend_from_slice(literal.as_bytes());
            let (placeholder, after) = after.split_once('}').expect("a placeholder");
            rest = after;
            // The URLs of the fixtures have nothing to unescape.
            match placeholder.trim_end_matches("|unescape") {
                "body" => message.extend_from_slice(&request.body),
                "timestamp" => message.extend_from_slice(timestamp.as_bytes()),
                "method" => message.extend_from_slice(request.method.as_bytes()),
                "url" => {
                    message.extend_from_slice(format!("{}{}", request.public_url, request.path()).as_bytes());
                }
                "secret" => message.extend_from_slice(self.secret.as_bytes()),
                "form:sorted" => {
                    let mut fields: Vec<_> = url::form_urlencoded::parse(&request.body).collect();
                    fields.sort();
                    fields.iter().for_each(|(name, value)| {
                        message.extend_from_slice(format!("{name}{value}").as_bytes());
                    });
                }
                place => message.extend_from_slice(value_at(request, place).as_bytes()),
            }
        }
        message.extend_from_slice(rest.as_bytes());
        message
    }
}

/// Replaces the first character with another one of hexadecimal and base64, which changes a bit of the signature.
pub fn flip(text: String) -> String {
    let first = if text.starts_with('a') { 'b' } else { 'a' };
    format!("{first}{}", &text[1..])
}

fn ed25519(seed: &[u8]) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed of 32 bytes")
}

fn ecdsa() -> EcdsaKeyPair {
    let (algorithm, random) = (&ECDSA_P256_SHA256_ASN1_SIGNING, SystemRandom::new());
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).expect("a pair")
}

/// Returns the text at a place of the request, or an empty one.
fn value_at(request: &WebhookRequest, place: &str) -> String {
    let (kind, name) = place.split_once(':').expect("a source");
    match kind {
        "header" => {
            let found = request.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        }
        "json" => {
            let body: Value = serde_json::from_slice(&request.body).expect("JSON");
            match body.pointer(name) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            }
        }
        other => panic!("unknown source {other}"),
    }
}
