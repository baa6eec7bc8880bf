//! An integration's secrets as keys, the current one first.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use grapnel_crds::{HashAlgorithm, KeyEncoding, Scheme, SchemeType};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey, VerificationAlgorithm,
};
use ring::{digest, hmac};
use secrecy::zeroize::Zeroizing;

use super::error::SchemeError;
use crate::constant_time::ConstantTime;
use crate::request::template::{Mac, NoMac, Template, TemplateContext};

/// People paste keys with or without padding.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const KEY_BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const PEM_BEGIN: &[u8] = b"-----BEGIN PUBLIC KEY-----";
const PEM_END: &[u8] = b"-----END PUBLIC KEY-----";

/// SubjectPublicKeyInfo of an Ed25519 key in DER, before its 32 bytes (RFC 8410).
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// SubjectPublicKeyInfo of a P-256 key in DER, before the 65 bytes of the uncompressed point (RFC 5480).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The keys of a scheme whose signatures cover a message.
pub(super) enum Keys {
    Hmac(Vec<hmac::Key>),
    Digest { algorithm: &'static digest::Algorithm, secrets: Vec<ConstantTime<Zeroizing<Vec<u8>>>> },
    Public { algorithm: &'static dyn VerificationAlgorithm, keys: Vec<Vec<u8>>, pair: Option<Ed25519KeyPair> },
}

/// The SHA-256 of each secret, so that the time of a comparison does not reveal a length.
pub(super) struct Digests(Vec<ConstantTime<[u8; 32]>>);

pub(super) fn digest_algorithm(hash: Option<HashAlgorithm>) -> &'static digest::Algorithm {
    match hash.unwrap_or(HashAlgorithm::Sha256) {
        HashAlgorithm::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        HashAlgorithm::Sha256 => &digest::SHA256,
        HashAlgorithm::Sha384 => &digest::SHA384,
        HashAlgorithm::Sha512 => &digest::SHA512,
    }
}

fn hmac_algorithm(hash: Option<HashAlgorithm>) -> hmac::Algorithm {
    match hash.unwrap_or(HashAlgorithm::Sha256) {
        HashAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        HashAlgorithm::Sha256 => hmac::HMAC_SHA256,
        HashAlgorithm::Sha384 => hmac::HMAC_SHA384,
        HashAlgorithm::Sha512 => hmac::HMAC_SHA512,
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

impl Digests {
    pub(super) fn new(secrets: &[&[u8]]) -> Self {
        Self(secrets.iter().map(|secret| ConstantTime::new(sha256(secret))).collect())
    }

    /// Returns the index of the secret that the text is. All are compared, whichever matches.
    pub(super) fn position(&self, text: &[u8]) -> Option<usize> {
        let digest = sha256(text);
        let mut found = None;
        for (index, known) in self.0.iter().enumerate().rev() {
            if known.matches(&digest) {
                found = Some(index);
            }
        }
        found
    }
}

/// Decodes the bytes of a key from a secret.
fn key_bytes(scheme: &Scheme, secret: &[u8]) -> Result<Zeroizing<Vec<u8>>, SchemeError> {
    let key = scheme.key.clone().unwrap_or_default();
    let prefix = key.strip_prefix.unwrap_or_default();
    let encoding = key.encoding.unwrap_or(KeyEncoding::Utf8);
    // White space around an encoded key is never part of the key; around a text it may be.
    let text = if encoding == KeyEncoding::Utf8 { secret } else { secret.trim_ascii() };
    let text = text.strip_prefix(prefix.as_bytes()).unwrap_or(text);
    let is_public = matches!(scheme.kind, Some(SchemeType::Ecdsa | SchemeType::Ed25519));
    let pem = pem_contents(text).filter(|_| is_public);
    let bytes = match encoding {
        _ if pem.is_some() => decode_base64(pem.unwrap_or_default())?,
        KeyEncoding::Utf8 | KeyEncoding::Seed => text.to_vec(),
        KeyEncoding::Base64 => decode_base64(text)?,
        KeyEncoding::Hex => hex::decode(text).map_err(|_| SchemeError::Key("not hexadecimal"))?,
    };
    if bytes.is_empty() { Err(SchemeError::EmptySecret) } else { Ok(Zeroizing::new(bytes)) }
}

/// Returns the base64 text of a public key in the PEM format (RFC 7468).
fn pem_contents(text: &[u8]) -> Option<&[u8]> {
    text.trim_ascii().strip_prefix(PEM_BEGIN)?.strip_suffix(PEM_END)
}

/// Decodes base64 with either alphabet, with or without padding, and with any line ends in it.
fn decode_base64(text: &[u8]) -> Result<Vec<u8>, SchemeError> {
    let text: Zeroizing<Vec<u8>> =
        Zeroizing::new(text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect());
    let decoded = KEY_BASE64.decode(&*text).or_else(|_| KEY_BASE64URL.decode(&*text));
    decoded.map_err(|_| SchemeError::Key("not base64"))
}

impl Keys {
    pub(super) fn new(scheme: &Scheme, secrets: &[&[u8]]) -> Result<Self, SchemeError> {
        let keys: Vec<Zeroizing<Vec<u8>>> =
            secrets.iter().map(|secret| key_bytes(scheme, secret)).collect::<Result<_, _>>()?;
        match scheme.kind {
            Some(SchemeType::Hmac) => {
                let algorithm = hmac_algorithm(scheme.hash);
                Ok(Self::Hmac(keys.iter().map(|key| hmac::Key::new(algorithm, key)).collect()))
            }
            Some(SchemeType::Digest) => {
                let secrets = keys.into_iter().map(ConstantTime::new).collect();
                Ok(Self::Digest { algorithm: digest_algorithm(scheme.hash), secrets })
            }
            Some(SchemeType::Ecdsa) => {
                let point = |key: &Zeroizing<Vec<u8>>| {
                    let point = key.strip_prefix(&P256_PREFIX[..]).filter(|point| point.len() == 65);
                    point.map(<[u8]>::to_vec).ok_or(SchemeError::Key("not a P-256 public key"))
                };
                let keys = keys.iter().map(point).collect::<Result<_, _>>()?;
                Ok(Self::Public { algorithm: &ECDSA_P256_SHA256_ASN1, keys, pair: None })
            }
            _ if scheme.key.as_ref().is_some_and(|key| key.encoding == Some(KeyEncoding::Seed)) => {
                let mut pairs = keys.iter().map(|key| pair_of_seed(key)).collect::<Result<Vec<_>, _>>()?;
                let keys = pairs.iter().map(|pair| pair.public_key().as_ref().to_vec()).collect();
                let pair = (!pairs.is_empty()).then(|| pairs.swap_remove(0));
                Ok(Self::Public { algorithm: &ED25519, keys, pair })
            }
            _ => {
                let bytes = |key: &Zeroizing<Vec<u8>>| {
                    let bytes = key.strip_prefix(&ED25519_PREFIX[..]).unwrap_or(key);
                    let is_key = bytes.len() == 32;
                    is_key
                        .then(|| bytes.to_vec())
                        .ok_or(SchemeError::Key("an Ed25519 public key has 32 bytes"))
                };
                let keys = keys.iter().map(bytes).collect::<Result<_, _>>()?;
                Ok(Self::Public { algorithm: &ED25519, keys, pair: None })
            }
        }
    }

    pub(super) fn has_hmac(&self) -> bool {
        matches!(self, Self::Hmac(_))
    }

    pub(super) fn can_sign(&self) -> bool {
        matches!(self, Self::Public { pair: Some(_), .. })
    }

    /// Returns the index of the key that one of the candidate signatures over the message belongs to. `any` calls the given
    /// function for each candidate, until it returns true.
    pub(super) fn position(
        &self,
        message: &Template,
        context: &TemplateContext<'_>,
        any: impl Fn(&dyn Fn(&[u8]) -> bool) -> bool,
    ) -> Option<usize> {
        match self {
            Self::Hmac(keys) => keys.iter().position(|key| {
                let computed = message_hmac(key, message, context);
                any(&|candidate| computed.matches(candidate))
            }),
            Self::Digest { algorithm, secrets } => secrets.iter().position(|secret| {
                let context = TemplateContext { secret: secret.by_ref(), ..*context };
                let computed = message_digest(algorithm, message, &context);
                any(&|candidate| computed.matches(candidate))
            }),
            Self::Public { algorithm, keys, .. } => {
                // Public keys need the message in one piece.
                let message = message.build(context, &NoMac);
                keys.iter().position(|key| {
                    let key = UnparsedPublicKey::new(*algorithm, key);
                    any(&|candidate| key.verify(&message, candidate).is_ok())
                })
            }
        }
    }
}

fn message_hmac(
    key: &hmac::Key,
    message: &Template,
    context: &TemplateContext<'_>,
) -> ConstantTime<hmac::Tag> {
    let mut mac = hmac::Context::with_key(key);
    message.write(context, &NoMac, &mut |piece| mac.update(piece));
    ConstantTime::new(mac.sign())
}

fn message_digest(
    algorithm: &'static digest::Algorithm,
    message: &Template,
    context: &TemplateContext<'_>,
) -> ConstantTime<digest::Digest> {
    let mut hash = digest::Context::new(algorithm);
    message.write(context, &NoMac, &mut |piece| hash.update(piece));
    ConstantTime::new(hash.finish())
}

/// Returns the key pair whose seed is the text, repeated to 32 bytes.
fn pair_of_seed(text: &[u8]) -> Result<Ed25519KeyPair, SchemeError> {
    let seed: Zeroizing<Vec<u8>> = Zeroizing::new(text.iter().copied().cycle().take(32).collect());
    Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| SchemeError::Key("not an Ed25519 seed"))
}

impl Mac for Keys {
    fn hmac(&self, pieces: &[Cow<'_, [u8]>]) -> Vec<u8> {
        let Self::Hmac(keys) = self else { return Vec::new() };
        let Some(key) = keys.first() else { return Vec::new() };
        let mut mac = hmac::Context::with_key(key);
        pieces.iter().for_each(|piece| mac.update(piece));
        mac.sign().as_ref().to_vec()
    }

    fn sign(&self, pieces: &[Cow<'_, [u8]>]) -> Vec<u8> {
        match self {
            Self::Public { pair: Some(pair), .. } => pair.sign(&pieces.concat()).as_ref().to_vec(),
            _ => Vec::new(),
        }
    }
}
