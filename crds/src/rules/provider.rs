//! The rules about verification schemes, handshakes and mappings.
//!
//! Most are patterns. The API server and the offline validation read the same text with engines of the same syntax, so
//! neither accepts what the other refuses.

use super::CelRule;

/// A header's name, as far as providers use the characters that HTTP allows.
macro_rules! header_name {
    () => {
        "[-A-Za-z0-9_.]{1,64}"
    };
}

/// Where a value of a request is.
macro_rules! source {
    () => {
        concat!("header:", header_name!(), "|query:[^{}|+]+|form:[^{}|+]+|json:/[^{}|+]*")
    };
}

/// Text with placeholders; a brace that is none is written twice.
macro_rules! template {
    ($placeholder:expr) => {
        concat!("^([^{}]|[{][{]|[}][}]|[{](", $placeholder, ")[}])*$")
    };
}

/// What a response is made of.
macro_rules! response {
    () => {
        concat!(
            "(",
            source!(),
            "|(hmac|sign):(",
            source!(),
            ")([+](",
            source!(),
            "))*)([|](json|hex|base64))*"
        )
    };
}

pub(crate) const SOURCE: CelRule = CelRule::pattern(
    concat!("^(", source!(), ")$"),
    "must say where a value is: header:NAME, query:NAME, form:NAME or json:/POINTER",
);

pub(crate) const SOURCES: CelRule = CelRule::each(
    concat!("^(", source!(), ")$"),
    "must say where values are: header:NAME, query:NAME, form:NAME or json:/POINTER",
);

pub(crate) const SIGNATURE_SOURCE: CelRule = CelRule::pattern(
    concat!("^(", source!(), "|headerPrefix:", header_name!(), ")$"),
    "must say where the signature is: header:NAME, headerPrefix:NAME, query:NAME, form:NAME or json:/POINTER",
);

pub(crate) const TIMESTAMP_SOURCE: CelRule = CelRule::pattern(
    concat!("^(", source!(), "|field:[-A-Za-z0-9_]{1,32}|item:[0-9])$"),
    "must say where the timestamp is: header:NAME, query:NAME, form:NAME, json:/POINTER, or field:NAME or item:NUMBER of \
     the signature's list",
);

pub(crate) const MESSAGE: CelRule = CelRule::pattern(
    template!(concat!(
        "(body|timestamp|method|url|secret|form:sorted|",
        source!(),
        ")([|](crc32|sha256|unescape))*"
    )),
    "must be text with the placeholders {body}, {timestamp}, {method}, {url}, {secret}, {form:sorted}, {header:NAME}, \
     {query:NAME}, {form:NAME} and {json:/POINTER}, each with the filters |crc32, |sha256 or |unescape if any; a brace that \
     is none of these is written twice",
);

pub(crate) const RESPONSE: CelRule = CelRule::pattern(
    template!(response!()),
    "must be text with the placeholders {header:NAME}, {query:NAME}, {form:NAME}, {json:/POINTER}, {hmac:SOURCE} and \
     {sign:SOURCE}, each with the filters |json, |hex or |base64 if any; a brace that is none of these is written twice",
);

pub(crate) const EXPECTED: CelRule = CelRule::pattern(
    template!(concat!("secret[|]sha256|", response!())),
    "must be text with the placeholders of a response, or {secret|sha256}; a brace that is none of these is written twice",
);

pub(crate) const HEADER_NAME: CelRule = CelRule::pattern(
    concat!("^", header_name!(), "$"),
    "must be the name of a header: letters, digits, '-', '_' and '.'",
);

macro_rules! mapped {
    () => {
        concat!("/.*|json:/.*|query:.+|form:.+|literal:.+|header:", header_name!())
    };
}

pub(crate) const MAPPED: CelRule = CelRule::each(
    concat!("^(", mapped!(), ")$"),
    "must say where the field is: /POINTER, json:/POINTER, header:NAME, query:NAME, form:NAME or literal:TEXT",
);

pub(crate) const MAPPED_ID: CelRule = CelRule::each(
    concat!("^(request|", mapped!(), ")$"),
    "must say where the id is: /POINTER, json:/POINTER, header:NAME, query:NAME or form:NAME; request makes every request an \
     event",
);

pub(crate) const POINTER: CelRule =
    CelRule::pattern("^(/.*)?$", "must be a JSON Pointer: empty for the whole body, or begin with '/'");

pub(crate) const MEMBER: CelRule =
    CelRule::pattern("^[A-Za-z][A-Za-z0-9_]*$", "must be a letter and then letters, digits and '_'");

pub(crate) const HOSTS: CelRule = CelRule::each(
    "^([a-z0-9]([-a-z0-9]*[a-z0-9])?[.]|[*][.])+[a-z]+$",
    "must be host names in lower case, such as hooks.example.com; a star stands for one label, as in *.example.com",
);

// A scheme as a whole. The first three hold for a part of one too, the others for one that is complete.

pub(crate) const ECDSA_HASH: CelRule = CelRule::new(
    "!has(self.type) || !has(self.hash) || self.type != 'ecdsa' || self.hash == 'sha256'",
    "must be sha256 or not be set when type is ecdsa",
)
.about(".hash");

pub(crate) const SECRET_IN_MESSAGE: CelRule = CelRule::new(
    "!has(self.message) || !self.message.contains('{secret') || (has(self.type) && self.type == 'digest')",
    "must not contain {secret} unless type is digest: the other types are keyed with it",
)
.about(".message");

pub(crate) const SEED_KEY: CelRule = CelRule::new(
    "!has(self.key) || !has(self.key.encoding) || self.key.encoding != 'seed' || (has(self.type) && self.type == 'ed25519')",
    "must not be seed unless type is ed25519",
)
.about(".key.encoding");

macro_rules! custom {
    ($holds:expr) => {
        concat!(
            "self.spec.provider != 'custom' || !has(self.spec.verification.scheme) || ",
            "!has(self.spec.verification.scheme.type) || (",
            $holds,
            ")"
        )
    };
}

pub(crate) const CUSTOM_SCHEME: CelRule = CelRule::new(
    "self.spec.provider != 'custom' || has(self.spec.verification.scheme)",
    "must be set when provider is custom: there is no preset that says how webhooks are verified",
)
.about(".spec.verification.scheme");

pub(crate) const CUSTOM_MAPPING: CelRule = CelRule::new(
    "self.spec.provider != 'custom' || has(self.spec.mapping)",
    "must be set when provider is custom: there is no preset that says where the fields of an event are",
)
.about(".spec.mapping");

pub(crate) const COMPLETE_TYPE: CelRule = CelRule::new(
    "self.spec.provider != 'custom' || !has(self.spec.verification.scheme) || has(self.spec.verification.scheme.type)",
    "must be set: no preset says it",
)
.about(".spec.verification.scheme.type");

pub(crate) const COMPLETE_MESSAGE: CelRule = CelRule::new(
    custom!(
        "!(self.spec.verification.scheme.type in ['hmac', 'ed25519', 'ecdsa', 'digest']) || \
         has(self.spec.verification.scheme.message)"
    ),
    "must be set: hmac, ed25519, ecdsa and digest are computed over a message",
)
.about(".spec.verification.scheme.message");

pub(crate) const COMPLETE_SIGNATURE: CelRule = CelRule::new(
    custom!(
        "!(self.spec.verification.scheme.type in ['hmac', 'ed25519', 'ecdsa', 'digest', 'token']) || \
         (has(self.spec.verification.scheme.signature) && has(self.spec.verification.scheme.signature.from))"
    ),
    "must have from: it says where the signature or the token is",
)
.about(".spec.verification.scheme.signature");

pub(crate) const COMPLETE_TIMESTAMP: CelRule = CelRule::new(
    custom!(
        "!has(self.spec.verification.scheme.message) || \
         !self.spec.verification.scheme.message.contains('{timestamp') || \
         (has(self.spec.verification.scheme.timestamp) && has(self.spec.verification.scheme.timestamp.from))"
    ),
    "must have from: the message contains {timestamp}",
)
.about(".spec.verification.scheme.timestamp");

pub(crate) const SECRET_COVERED: CelRule = CelRule::new(
    custom!(
        "self.spec.verification.scheme.type != 'digest' || !has(self.spec.verification.scheme.message) || \
         self.spec.verification.scheme.message.contains('{secret')"
    ),
    "must contain {secret}: without it anyone can compute the digest",
)
.about(".spec.verification.scheme.message");

pub(crate) const COMPLETE_EVENT_TYPE: CelRule = CelRule::new(
    "self.spec.provider != 'custom' || !has(self.spec.mapping) || has(self.spec.mapping.eventType)",
    "must be set: no preset says it; literal:TEXT is the same for all events",
)
.about(".spec.mapping.eventType");
