//! How a webhook proves where it comes from, as data: what is computed, with which key, over which parts of the request,
//! and where the result is expected.
//!
//! A preset is a named default of these fields; what an Integration sets goes before it, field by field. A header never
//! chooses the algorithm, and what is not understood is refused, never skipped.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules::provider as rules;

/// How webhooks are verified. Each field that is set goes before the preset's; a custom provider has no preset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = rules::ECDSA_HASH,
    validation = rules::SECRET_IN_MESSAGE,
    validation = rules::SEED_KEY
)]
pub struct Scheme {
    /// What is computed.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<SchemeType>,

    /// The hash of hmac and digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,

    /// How the secret becomes a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,

    /// What is signed: text with the placeholders {body} (the raw bytes), {timestamp} (as received), {method}, {url},
    /// {secret} (digest only), {form:sorted}, {header:NAME}, {query:NAME}, {form:NAME} and {json:/POINTER}. A placeholder
    /// may end in the filters |crc32, |sha256 and |unescape. A brace that is no placeholder is written twice. At most 1024
    /// characters. Default: the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = rules::MESSAGE)]
    pub message: Option<String>,

    /// Where the signature or the token is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureSource>,

    /// Where the time of the request is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TimestampSource>,

    /// Values that must be present and not empty: at most 8 sources such as header:webhook-id. Default: the preset's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("items" = source_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::SOURCES)]
    pub require: Vec<String>,

    /// What must not be there, since the signature would not cover it: at most 8 sources such as
    /// json:/notificationItems/1. Default: the preset's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("items" = source_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::SOURCES)]
    pub forbid: Vec<String>,

    /// A digest of the body that is carried elsewhere in the request and is itself signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_digest: Option<BodyDigest>,

    /// Whether {url} is also tried without its port and with the default port of its scheme. Default: the preset's, or
    /// false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_port_variants: Option<bool>,
}

fn source_items() -> serde_json::Value {
    serde_json::json!({
        "type": "string",
        "minLength": 1,
        "maxLength": 256,
        "description": "A source of at most 256 characters."
    })
}

/// What is computed. Default: the preset's. One of hmac, ed25519, ecdsa (P-256 with SHA-256 and a DER signature), digest (a
/// plain hash with the secret in the message), token (the secret itself), basic (HTTP basic authentication; the secret is
/// user:password), builtin:aws-sns (the secret is the topic's ARN) and builtin:paypal (the secret is the webhook's id).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SchemeType {
    /// A keyed hash.
    Hmac,
    /// An Ed25519 signature; the secret is the public key.
    Ed25519,
    /// An ECDSA signature; the secret is the public key as SubjectPublicKeyInfo in DER.
    Ecdsa,
    /// A plain hash over a message that contains the secret.
    Digest,
    /// The secret itself.
    Token,
    /// HTTP basic authentication.
    Basic,
    /// Amazon SNS, signed with a certificate of Amazon's.
    #[serde(rename = "builtin:aws-sns")]
    AwsSns,
    /// PayPal, signed with a certificate of PayPal's.
    #[serde(rename = "builtin:paypal")]
    Paypal,
}

/// The hash of hmac and digest. Default: the preset's, or sha256. One of sha1, sha256, sha384 and sha512.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// SHA-1, for providers that have nothing better.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// How the secret becomes a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Key {
    /// How the key is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<KeyEncoding>,

    /// What stands before the key and is not part of it, such as whsec_: at most 32 characters. Default: the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub strip_prefix: Option<String>,
}

/// How the key is written. Default: the preset's, or utf8. One of utf8 (the secret's bytes are the key), base64, hex and seed
/// (Ed25519 only: the secret's bytes, repeated to 32, are the seed of the pair of keys).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyEncoding {
    /// The secret's bytes as they are.
    Utf8,
    /// Base64 with the standard alphabet.
    Base64,
    /// Hexadecimal in either case.
    Hex,
    /// The seed of a pair of keys.
    Seed,
}

/// Where the signature or the token is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignatureSource {
    /// header:NAME, headerPrefix:NAME (all headers whose names begin so), query:NAME, form:NAME or json:/POINTER: at most
    /// 256 characters. Default: the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::SIGNATURE_SOURCE)]
    pub from: Option<String>,

    /// What stands between several signatures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separator: Option<Separator>,

    /// The key of the signatures in a list of key=value, such as v1: at most 32 characters. Default: the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub field: Option<String>,

    /// What stands before a signature and is not part of it, such as sha256=: at most 32 characters. What does not begin so
    /// is no signature. Default: the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub prefix: Option<String>,

    /// Whether a signature without the prefix counts too. Default: the preset's, or false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_optional: Option<bool>,

    /// How a signature is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<SignatureEncoding>,
}

/// What stands between several signatures. Default: the preset's, or none. One of none, comma, semicolon and space, or the
/// characters themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Separator {
    /// There is one signature.
    #[serde(rename = "none")]
    None,
    /// A comma.
    #[serde(rename = ",")]
    Comma,
    /// A semicolon.
    #[serde(rename = ";")]
    Semicolon,
    /// A space.
    #[serde(rename = " ")]
    Space,
}

/// How a signature is written. Default: the preset's, or hex. One of hex (in either case) and base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SignatureEncoding {
    /// Hexadecimal in either case.
    Hex,
    /// Base64 with the standard alphabet, padded.
    Base64,
}

/// Where the time of the request is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimestampSource {
    /// header:NAME, query:NAME, form:NAME, json:/POINTER, or field:KEY or item:NUMBER of the signature's list: at most 256
    /// characters. Default: the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::TIMESTAMP_SOURCE)]
    pub from: Option<String>,

    /// How the time is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<TimeUnit>,

    /// How far the time may be from our clock, in seconds and in both directions. Default: the preset's, or 300. 0 to 86400;
    /// 0 does not check it. verification.toleranceSeconds goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub tolerance_seconds: Option<i32>,
}

/// How the time is written. Default: the preset's, or s. One of s (whole seconds since 1970), ms (milliseconds) and iso8601
/// (such as 2026-01-31T10:00:00Z).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Whole seconds since 1970.
    S,
    /// Milliseconds since 1970.
    Ms,
    /// RFC 3339.
    Iso8601,
}

/// A digest of the body that is carried elsewhere in the request and is itself signed. It is checked for every body that is
/// not a form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BodyDigest {
    /// Where the digest is, such as query:bodySHA256: at most 256 characters. Default: the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::SOURCE)]
    pub from: Option<String>,

    /// The hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,

    /// How the digest is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<SignatureEncoding>,
}

/// `upper` where it says something, `lower` otherwise.
fn either<T: Clone>(upper: &Option<T>, lower: &Option<T>) -> Option<T> {
    upper.as_ref().or(lower.as_ref()).cloned()
}

/// Two sections, joined when both are there.
pub(crate) fn join<T: Clone>(upper: &Option<T>, lower: &Option<T>, join: fn(&T, &T) -> T) -> Option<T> {
    match (upper, lower) {
        (Some(upper), Some(lower)) => Some(join(upper, lower)),
        _ => either(upper, lower),
    }
}

impl Scheme {
    /// These fields, and those of `lower` where these say nothing.
    pub fn over(&self, lower: &Self) -> Self {
        Self {
            kind: either(&self.kind, &lower.kind),
            hash: either(&self.hash, &lower.hash),
            key: join(&self.key, &lower.key, |upper, lower| Key {
                encoding: either(&upper.encoding, &lower.encoding),
                strip_prefix: either(&upper.strip_prefix, &lower.strip_prefix),
            }),
            message: either(&self.message, &lower.message),
            signature: join(&self.signature, &lower.signature, |upper, lower| SignatureSource {
                from: either(&upper.from, &lower.from),
                separator: either(&upper.separator, &lower.separator),
                field: either(&upper.field, &lower.field),
                prefix: either(&upper.prefix, &lower.prefix),
                prefix_optional: either(&upper.prefix_optional, &lower.prefix_optional),
                encoding: either(&upper.encoding, &lower.encoding),
            }),
            timestamp: join(&self.timestamp, &lower.timestamp, |upper, lower| TimestampSource {
                from: either(&upper.from, &lower.from),
                unit: either(&upper.unit, &lower.unit),
                tolerance_seconds: either(&upper.tolerance_seconds, &lower.tolerance_seconds),
            }),
            require: if self.require.is_empty() { lower.require.clone() } else { self.require.clone() },
            forbid: if self.forbid.is_empty() { lower.forbid.clone() } else { self.forbid.clone() },
            body_digest: join(&self.body_digest, &lower.body_digest, |upper, lower| BodyDigest {
                from: either(&upper.from, &lower.from),
                hash: either(&upper.hash, &lower.hash),
                encoding: either(&upper.encoding, &lower.encoding),
            }),
            url_port_variants: either(&self.url_port_variants, &lower.url_port_variants),
        }
    }
}
