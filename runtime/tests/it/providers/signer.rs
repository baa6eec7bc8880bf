//! The provider's side of a scheme: signs a request as the preset says. It shares nothing with the code under test.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use ring::{digest, hmac};
use serde_json::Value;

use super::{PUBLIC_URL, Sent};

/// A provider's key and what the receiver is given of it.
pub(super) struct Signer {
    scheme: Value,
    key: Key,
    /// What goes into the Secret.
    pub(super) secret: String,
}

enum Key {
    Bytes(Vec<u8>),
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
}

const P256_PREFIX: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";

impl Signer {
    pub(super) fn new(scheme: &Value) -> Self {
        Self::with(scheme, "a-secret-of-the-provider-0123456")
    }

    /// With a secret of the provider's choice, where the scheme is keyed with one.
    pub(super) fn with(scheme: &Value, text: &str) -> Self {
        let prefix = scheme["key"]["stripPrefix"].as_str().unwrap_or_default();
        let encoding = scheme["key"]["encoding"].as_str().unwrap_or("utf8");
        let encode = |bytes: &[u8]| match encoding {
            "base64" => format!("{prefix}{}", STANDARD.encode(bytes)),
            "hex" => format!("{prefix}{}", hex::encode(bytes)),
            _ => String::from_utf8(bytes.to_vec()).expect("text"),
        };
        let text = text.as_bytes().to_vec();
        let (key, secret) = match scheme["type"].as_str().expect("a type") {
            "ed25519" if encoding == "seed" => {
                let seed: Vec<u8> = text.iter().copied().cycle().take(32).collect();
                let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a pair");
                (Key::Ed25519(pair), encode(&text))
            }
            "ed25519" => {
                let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("a pair");
                let secret = encode(pair.public_key().as_ref());
                (Key::Ed25519(pair), secret)
            }
            "ecdsa" => {
                let random = SystemRandom::new();
                let pkcs8 =
                    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key");
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random);
                let pair = pair.expect("a pair");
                let public =
                    [hex::decode(P256_PREFIX).expect("hex"), pair.public_key().as_ref().to_vec()].concat();
                (Key::Ecdsa(pair), encode(&public))
            }
            _ => {
                let secret = encode(&text);
                (Key::Bytes(text), secret)
            }
        };
        Self { scheme: scheme.clone(), key, secret }
    }

    /// The request with its times and its signature. `spoil` changes the signature before it is put in its place.
    pub(super) fn sign(&self, request: &Sent, spoil: impl Fn(String) -> String) -> Sent {
        let now = Timestamp::now();
        let timed = |text: &str| {
            text.replace("@now@", &now.as_second().to_string())
                .replace("@nowMs@", &now.as_millisecond().to_string())
                .replace("@nowIso@", &now.to_string())
        };
        let mut request = request.clone();
        request.headers.iter_mut().for_each(|(_, value)| *value = timed(value));
        request.body = timed(std::str::from_utf8(&request.body).expect("text")).into_bytes();
        let timestamp = self.timestamp(&request, now);
        let signature = spoil(self.signature(&request, &timestamp));
        self.place(request, &timestamp, &signature)
    }

    fn timestamp(&self, request: &Sent, now: Timestamp) -> String {
        match self.scheme["timestamp"]["from"].as_str() {
            None => String::new(),
            Some(from) if from.starts_with("field:") || from.starts_with("item:") => {
                match self.scheme["timestamp"]["unit"].as_str() {
                    Some("ms") => now.as_millisecond().to_string(),
                    _ => now.as_second().to_string(),
                }
            }
            Some(from) => value_at(request, from),
        }
    }

    /// The signature in its encoding, without its prefix.
    fn signature(&self, request: &Sent, timestamp: &str) -> String {
        let kind = self.scheme["type"].as_str().expect("a type");
        if kind == "token" {
            return self.secret.clone();
        }
        let message = self.message(request, timestamp);
        let hash = self.scheme["hash"].as_str().unwrap_or("sha256");
        let bytes = match (&self.key, kind) {
            (Key::Bytes(key), "hmac") => {
                let algorithm = match hash {
                    "sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                    "sha384" => hmac::HMAC_SHA384,
                    "sha512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(algorithm, key), &message).as_ref().to_vec()
            }
            (Key::Bytes(_), "digest") => digest::digest(&digest::SHA256, &message).as_ref().to_vec(),
            (Key::Ed25519(pair), _) => pair.sign(&message).as_ref().to_vec(),
            (Key::Ecdsa(pair), _) => {
                pair.sign(&SystemRandom::new(), &message).expect("signed").as_ref().to_vec()
            }
            (_, other) => panic!("{other} is not signed by this test"),
        };
        match self.scheme["signature"]["encoding"].as_str() {
            Some("base64") => STANDARD.encode(bytes),
            _ => hex::encode(bytes),
        }
    }

    fn message(&self, request: &Sent, timestamp: &str) -> Vec<u8> {
        let mut message = Vec::new();
        let mut rest = self.scheme["message"].as_str().expect("a message");
        while let Some((literal, after)) = rest.split_once('{') {
            message.extend_from_slice(literal.as_bytes());
            let (placeholder, after) = after.split_once('}').expect("a placeholder");
            rest = after;
            // The fixtures' URLs have nothing to unescape.
            match placeholder.trim_end_matches("|unescape") {
                "body" => message.extend_from_slice(&request.body),
                "timestamp" => message.extend_from_slice(timestamp.as_bytes()),
                "method" => message.extend_from_slice(request.method.as_bytes()),
                "url" => message.extend_from_slice(format!("{PUBLIC_URL}{}", request.path()).as_bytes()),
                "secret" => message.extend_from_slice(self.secret.as_bytes()),
                "form:sorted" => {
                    let mut fields: Vec<_> = url::form_urlencoded::parse(&request.body).collect();
                    fields.sort();
                    fields.iter().for_each(|(name, value)| {
                        message.extend_from_slice(format!("{name}{value}").as_bytes())
                    });
                }
                place => message.extend_from_slice(value_at(request, place).as_bytes()),
            }
        }
        message.extend_from_slice(rest.as_bytes());
        message
    }

    fn place(&self, mut request: Sent, timestamp: &str, signature: &str) -> Sent {
        let source = &self.scheme["signature"];
        let text = |name: &str| source[name].as_str().unwrap_or_default();
        let separator = source["separator"].as_str().unwrap_or("none");
        let mut value = format!("{}{signature}", text("prefix"));
        if !text("field").is_empty() {
            value = format!("{}={value}", text("field"));
        }
        value = match self.scheme["timestamp"]["from"]
            .as_str()
            .map(|from| from.split_once(':').expect("a source"))
        {
            Some(("field", name)) => format!("{name}={timestamp}{separator}{value}"),
            Some(("item", _)) => format!("{timestamp}{separator}{value}"),
            _ => value,
        };
        match text("from").split_once(':').expect("a source") {
            ("header", name) => request.headers.push((name.to_owned(), value)),
            ("headerPrefix", prefix) => request.headers.push((format!("{prefix}1"), value)),
            ("query", name) => request.query = Some(format!("{name}={value}")),
            ("json", _) => {
                let body = String::from_utf8(request.body).expect("text");
                request.body = body.replace("@signature@", &value).into_bytes();
            }
            (other, _) => panic!("{other} is no place"),
        }
        request
    }
}

/// The text at a place, or nothing.
fn value_at(request: &Sent, place: &str) -> String {
    let (kind, name) = place.split_once(':').expect("a source");
    match kind {
        "header" => {
            let mut headers = request.headers.iter();
            headers
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.clone())
                .unwrap_or_default()
        }
        "json" => {
            let body: Value = serde_json::from_slice(&request.body).expect("JSON");
            match body.pointer(name) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            }
        }
        other => panic!("{other} is no place"),
    }
}

/// Changes the first character to another of hexadecimal and of base64, which changes a bit of what it stands for.
pub(super) fn flip(text: String) -> String {
    let first = if text.starts_with('a') { 'b' } else { 'a' };
    format!("{first}{}", &text[1..])
}
