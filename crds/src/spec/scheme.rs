//! The verification scheme of a provider, as data: what to compute, with which key, over which parts of the request,
//! and where to expect the result.
//!
//! A preset is a named default of these fields; a field that an Integration sets takes precedence over it. A header
//! never chooses the algorithm, and a request that is not understood is rejected, never let through.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults::{list_or_default, merge_sections, or_default};
use super::source::source_items;
use crate::rules::provider as rules;

/// A verification scheme. Each field that is set takes precedence over the preset's; a custom provider has no preset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = rules::ECDSA_HASH,
    validation = rules::SECRET_IN_MESSAGE,
    validation = rules::SEED_KEY,
    validation = rules::ELEMENT_TOKEN
)]
pub struct Scheme {
    /// The verification method.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<SchemeType>,

    /// The hash algorithm of hmac and digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<HashAlgorithm>,

    /// How the key is written in the secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyFormat>,

    /// The signed message: text with the placeholders {body} (its bytes), {timestamp} (as received), {method},
    /// {url}, {secret} (digest only), {form:sorted}, {header:NAME}, {query:NAME}, {form:NAME} and {json:/POINTER}. A
    /// placeholder may end in the filters |crc32, |sha256 and |unescape. Write a literal brace twice. At most 1024
    /// characters. Default: the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = rules::MESSAGE)]
    pub message: Option<String>,

    /// The body that {body} stands for, if it came with a content-encoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<SignedBody>,

    /// Where to find the signature or the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureSource>,

    /// Where to find the time of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TimestampSource>,

    /// Values that must be present and not empty: at most 8 sources such as header:webhook-id. Default: the preset's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("items" = source_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::SOURCES)]
    pub require: Vec<String>,

    /// Values that must be absent, because the signature would not cover them: at most 8 sources such as
    /// json:/notificationItems/1. Default: the preset's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("items" = source_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::SOURCES)]
    pub forbid: Vec<String>,

    /// A digest of the body elsewhere in the request that is itself signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_digest: Option<BodyDigest>,

    /// Whether to try {url} also without its port and with the default port of its scheme. Default: the preset's, or
    /// false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_port_variants: Option<bool>,
}

/// The verification method. Default: the preset's. One of hmac, ed25519, ecdsa (P-256 with SHA-256 and a DER
/// signature), digest (a plain hash with the secret in the message), token (the secret itself), basic (HTTP basic
/// authentication; the secret is user:password), builtin:aws-sns (the secret is the topic's ARN) and builtin:paypal
/// (the secret is the webhook's id).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SchemeType {
    /// A keyed hash.
    Hmac,
    /// An Ed25519 signature; the secret is the public key.
    Ed25519,
    /// An ECDSA signature; the secret is the public key as SubjectPublicKeyInfo in DER, or in PEM.
    Ecdsa,
    /// A plain hash over a message that contains the secret.
    Digest,
    /// The secret itself.
    Token,
    /// HTTP basic authentication.
    Basic,
    /// Amazon SNS, which signs with a certificate of Amazon's.
    #[serde(rename = "builtin:aws-sns")]
    AwsSns,
    /// PayPal, which signs with a certificate of PayPal's.
    #[serde(rename = "builtin:paypal")]
    Paypal,
}

/// The hash algorithm of hmac and digest. Default: the preset's, or sha256. One of sha1, sha256, sha384 and sha512.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HashAlgorithm {
    /// SHA-1, for providers that offer nothing better.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// The body that {body} stands for, and whose digest bodyDigest is, if it came with a content-encoding (gzip or deflate).
/// Without one both are the same. Default: the preset's, or decoded. One of decoded (as it was before it was compressed) and
/// received (as it was sent).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SignedBody {
    /// As it was before it was compressed.
    Decoded,
    /// As it was sent.
    Received,
}

/// How the key is written in the secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyFormat {
    /// The encoding of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<KeyEncoding>,

    /// A prefix of the secret that is not part of the key, such as whsec_: at most 32 characters. Default: the
    /// preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub strip_prefix: Option<String>,
}

/// The encoding of the key. Default: the preset's, or utf8. One of utf8 (the secret's bytes are the key), base64 (with
/// either alphabet; padding and line ends make no difference), hex and seed (Ed25519 only: the secret's bytes, repeated
/// to 32, are the seed of the key pair). A public key of ed25519 or ecdsa may be in PEM whatever the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyEncoding {
    /// The secret's bytes as they are.
    Utf8,
    /// Base64.
    Base64,
    /// Hexadecimal in either case.
    Hex,
    /// The seed of a key pair.
    Seed,
}

/// Where to find the signature or the token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignatureSource {
    /// header:NAME, headerPrefix:NAME (all headers whose names start with NAME), query:NAME, form:NAME or
    /// json:/POINTER; or, for a token, element:/POINTER, which every element of mapping.split must have, as it is, whatever
    /// the other fields here: at most 256 characters. Default: the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::SIGNATURE_SOURCE)]
    pub from: Option<String>,

    /// The separator between several signatures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separator: Option<Separator>,

    /// The key of the signatures in a list of key=value, such as v1: at most 32 characters. Default: the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub field: Option<String>,

    /// The prefix of a signature that is not part of it, such as sha256=: at most 32 characters. A value without it is
    /// not taken as a signature. Case matters, except for an authentication scheme such as Bearer in the header
    /// authorization. Default: the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub prefix: Option<String>,

    /// Whether a signature without the prefix is accepted too. Default: the preset's, or false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_optional: Option<bool>,

    /// The encoding of a signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<SignatureEncoding>,
}

/// The separator between several signatures. Default: the preset's, or none. One of none, "," (comma), ";" (semicolon)
/// and " " (space).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Separator {
    /// No separator: there is one signature.
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

/// The encoding of a signature. Default: the preset's, or hex. One of hex (in either case) and base64 (with the standard
/// alphabet or the one for URLs, with or without padding).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SignatureEncoding {
    /// Hexadecimal in either case.
    Hex,
    /// Base64.
    Base64,
}

/// Where to find the time of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimestampSource {
    /// header:NAME, query:NAME, form:NAME, json:/POINTER, or field:KEY or item:NUMBER of the signature's list: at most
    /// 256 characters. Default: the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::TIMESTAMP_SOURCE)]
    pub from: Option<String>,

    /// The format of the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<TimeUnit>,

    /// How far the time may differ from Grapnel's clock, in seconds and in both directions. Default: the preset's, or
    /// 300. 0 to 86400; 0 does not check it. verification.toleranceSeconds takes precedence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub tolerance_seconds: Option<i32>,
}

/// The format of the time. Default: the preset's, or s. One of s (whole seconds since 1970), ms (milliseconds) and
/// iso8601 (such as 2026-01-31T10:00:00Z).
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

/// A digest of the body elsewhere in the request that is itself signed. It is checked for every body that is not a
/// form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BodyDigest {
    /// The source of the digest, such as query:bodySHA256: at most 256 characters. Default: the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::SOURCE)]
    pub from: Option<String>,

    /// The hash algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<HashAlgorithm>,

    /// The encoding of the digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<SignatureEncoding>,
}

impl Scheme {
    /// Returns this scheme, with the fields that it leaves unset taken from `defaults`.
    #[must_use]
    pub fn with_defaults_from(&self, defaults: &Self) -> Self {
        Self {
            kind: or_default(&self.kind, &defaults.kind),
            hash: or_default(&self.hash, &defaults.hash),
            key: merge_sections(&self.key, &defaults.key, KeyFormat::with_defaults_from),
            message: or_default(&self.message, &defaults.message),
            body: or_default(&self.body, &defaults.body),
            signature: merge_sections(
                &self.signature,
                &defaults.signature,
                SignatureSource::with_defaults_from,
            ),
            timestamp: merge_sections(
                &self.timestamp,
                &defaults.timestamp,
                TimestampSource::with_defaults_from,
            ),
            require: list_or_default(&self.require, &defaults.require),
            forbid: list_or_default(&self.forbid, &defaults.forbid),
            body_digest: merge_sections(
                &self.body_digest,
                &defaults.body_digest,
                BodyDigest::with_defaults_from,
            ),
            url_port_variants: or_default(&self.url_port_variants, &defaults.url_port_variants),
        }
    }
}

impl KeyFormat {
    fn with_defaults_from(&self, defaults: &Self) -> Self {
        Self {
            encoding: or_default(&self.encoding, &defaults.encoding),
            strip_prefix: or_default(&self.strip_prefix, &defaults.strip_prefix),
        }
    }
}

impl SignatureSource {
    fn with_defaults_from(&self, defaults: &Self) -> Self {
        Self {
            from: or_default(&self.from, &defaults.from),
            separator: or_default(&self.separator, &defaults.separator),
            field: or_default(&self.field, &defaults.field),
            prefix: or_default(&self.prefix, &defaults.prefix),
            prefix_optional: or_default(&self.prefix_optional, &defaults.prefix_optional),
            encoding: or_default(&self.encoding, &defaults.encoding),
        }
    }
}

impl TimestampSource {
    fn with_defaults_from(&self, defaults: &Self) -> Self {
        Self {
            from: or_default(&self.from, &defaults.from),
            unit: or_default(&self.unit, &defaults.unit),
            tolerance_seconds: or_default(&self.tolerance_seconds, &defaults.tolerance_seconds),
        }
    }
}

impl BodyDigest {
    fn with_defaults_from(&self, defaults: &Self) -> Self {
        Self {
            from: or_default(&self.from, &defaults.from),
            hash: or_default(&self.hash, &defaults.hash),
            encoding: or_default(&self.encoding, &defaults.encoding),
        }
    }
}
