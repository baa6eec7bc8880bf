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

use super::{Context, Keyed, Keyless, Known, SchemeError, Template};

/// Keys are pasted by people, with their padding or without it.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// SubjectPublicKeyInfo of a P-256 key in DER, before the 65 bytes of the uncompressed point (RFC 5480).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The keys of a scheme that computes over a message.
pub(super) enum Keys {
    Hmac(Vec<hmac::Key>),
    Digest { algorithm: &'static digest::Algorithm, secrets: Vec<Zeroizing<Vec<u8>>> },
    Public { algorithm: &'static dyn VerificationAlgorithm, keys: Vec<Vec<u8>>, pair: Option<Ed25519KeyPair> },
}

/// SHA-256 of each secret, so that a comparison tells nothing about a length.
pub(super) struct Digests(Vec<Known<[u8; 32]>>);

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
        Self(secrets.iter().map(|secret| Known(sha256(secret))).collect())
    }

    /// Which secret it is. All are compared, whichever matches.
    pub(super) fn position(&self, text: &[u8]) -> Option<usize> {
        let digest = sha256(text);
        let mut found = None;
        for (index, known) in self.0.iter().enumerate().rev() {
            if known.is(&digest) {
                found = Some(index);
            }
        }
        found
    }
}

/// The bytes that a secret stands for.
fn key_bytes(scheme: &Scheme, secret: &[u8]) -> Result<Zeroizing<Vec<u8>>, SchemeError> {
    let key = scheme.key.clone().unwrap_or_default();
    let prefix = key.strip_prefix.unwrap_or_default();
    let encoding = key.encoding.unwrap_or(KeyEncoding::Utf8);
    // White space around an encoded key is never part of it; around a text it may be.
    let text = if encoding == KeyEncoding::Utf8 { secret } else { secret.trim_ascii() };
    let text = text.strip_prefix(prefix.as_bytes()).unwrap_or(text);
    let bytes = match encoding {
        KeyEncoding::Utf8 | KeyEncoding::Seed => text.to_vec(),
        KeyEncoding::Base64 => KEY_BASE64.decode(text).map_err(|_| SchemeError::Key("it is not base64"))?,
        KeyEncoding::Hex => hex::decode(text).map_err(|_| SchemeError::Key("it is not hexadecimal"))?,
    };
    if bytes.is_empty() { Err(SchemeError::EmptySecret) } else { Ok(Zeroizing::new(bytes)) }
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
                Ok(Self::Digest { algorithm: digest_algorithm(scheme.hash), secrets: keys })
            }
            Some(SchemeType::Ecdsa) => {
                let point = |key: &Zeroizing<Vec<u8>>| {
                    let point = key.strip_prefix(&P256_PREFIX[..]).filter(|point| point.len() == 65);
                    point.map(<[u8]>::to_vec).ok_or(SchemeError::Key("it is not a P-256 public key"))
                };
                let keys = keys.iter().map(point).collect::<Result<_, _>>()?;
                Ok(Self::Public { algorithm: &ECDSA_P256_SHA256_ASN1, keys, pair: None })
            }
            _ if scheme.key.as_ref().is_some_and(|key| key.encoding == Some(KeyEncoding::Seed)) => {
                let mut pairs = keys.iter().map(|key| pair_of(key)).collect::<Result<Vec<_>, _>>()?;
                let keys = pairs.iter().map(|pair| pair.public_key().as_ref().to_vec()).collect();
                let pair = (!pairs.is_empty()).then(|| pairs.swap_remove(0));
                Ok(Self::Public { algorithm: &ED25519, keys, pair })
            }
            _ => {
                if keys.iter().any(|key| key.len() != 32) {
                    return Err(SchemeError::Key("an Ed25519 public key has 32 bytes"));
                }
                let keys = keys.iter().map(|key| key.to_vec()).collect();
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

    /// Which key gives one of the signatures over the message. `any` asks for each candidate whether it is the one.
    pub(super) fn position(
        &self,
        message: &Template,
        context: &Context<'_>,
        any: impl Fn(&dyn Fn(&[u8]) -> bool) -> bool,
    ) -> Option<usize> {
        let equals = |computed: &[u8]| {
            let computed = Known(computed);
            any(&|candidate| computed.is(candidate))
        };
        match self {
            Self::Hmac(keys) => keys.iter().position(|key| {
                let mut mac = hmac::Context::with_key(key);
                message.write(context, &Keyless, &mut |piece| mac.update(piece));
                equals(mac.sign().as_ref())
            }),
            Self::Digest { algorithm, secrets } => secrets.iter().position(|secret| {
                let mut hash = digest::Context::new(algorithm);
                let context = Context { secret, ..*context };
                message.write(&context, &Keyless, &mut |piece| hash.update(piece));
                equals(hash.finish().as_ref())
            }),
            Self::Public { algorithm, keys, .. } => {
                // These want the message in one piece.
                let message = message.build(context, &Keyless);
                keys.iter().position(|key| {
                    let key = UnparsedPublicKey::new(*algorithm, key);
                    any(&|candidate| key.verify(&message, candidate).is_ok())
                })
            }
        }
    }
}

/// The pair whose seed is the text, repeated to 32 bytes.
fn pair_of(text: &[u8]) -> Result<Ed25519KeyPair, SchemeError> {
    let seed: Zeroizing<Vec<u8>> = Zeroizing::new(text.iter().copied().cycle().take(32).collect());
    Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| SchemeError::Key("it is no seed"))
}

impl Keyed for Keys {
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
