//! The rules about verification schemes, handshakes and mappings.
//!
//! Most are patterns. The API server and the offline validation evaluate the same pattern with engines of the same
//! syntax, so neither accepts a value that the other rejects.

use super::CelRule;

/// A header name, of those characters allowed by HTTP that providers use.
macro_rules! header_name {
    () => {
        "[-A-Za-z0-9_.]{1,64}"
    };
}

/// The source of a value in a request.
macro_rules! source {
    () => {
        concat!("header:", header_name!(), "|query:[^{}|+]+|form:[^{}|+]+|json:/[^{}|+]*")
    };
}

/// Text with placeholders; a literal brace is written twice.
macro_rules! template {
    ($placeholder:expr) => {
        concat!("^([^{}]|[{][{]|[}][}]|[{](", $placeholder, ")[}])*$")
    };
}

/// The placeholders of a response.
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
    "must be a source: header:NAME, query:NAME, form:NAME or json:/POINTER",
);

pub(crate) const SOURCES: CelRule = CelRule::each_pattern(
    concat!("^(", source!(), ")$"),
    "must be a list of sources: header:NAME, query:NAME, form:NAME or json:/POINTER",
);

pub(crate) const SIGNATURE_SOURCE: CelRule = CelRule::pattern(
    concat!("^(", source!(), "|headerPrefix:", header_name!(), "|element:/[^{}|+]*)$"),
    "must be the source of the signature: header:NAME, headerPrefix:NAME, query:NAME, form:NAME, json:/POINTER or \
     element:/POINTER",
);

pub(crate) const TIMESTAMP_SOURCE: CelRule = CelRule::pattern(
    concat!("^(", source!(), "|field:[-A-Za-z0-9_]{1,32}|item:[0-9])$"),
    "must be the source of the timestamp: header:NAME, query:NAME, form:NAME, json:/POINTER, or field:NAME or \
     item:NUMBER of the signature's list",
);

pub(crate) const MESSAGE: CelRule = CelRule::pattern(
    template!(concat!(
        "(body|timestamp|method|url|secret|form:sorted|",
        source!(),
        ")([|](crc32|sha256|unescape))*"
    )),
    "must be text with the placeholders {body}, {timestamp}, {method}, {url}, {secret}, {form:sorted}, {header:NAME}, \
     {query:NAME}, {form:NAME} and {json:/POINTER}, each optionally with the filters |crc32, |sha256 or |unescape; \
     write a literal brace twice",
);

pub(crate) const RESPONSE: CelRule = CelRule::pattern(
    template!(response!()),
    "must be text with the placeholders {header:NAME}, {query:NAME}, {form:NAME}, {json:/POINTER}, {hmac:SOURCE} and \
     {sign:SOURCE}, each optionally with the filters |json, |hex or |base64; write a literal brace twice",
);

pub(crate) const EXPECTED: CelRule = CelRule::pattern(
    concat!("^[{]verifyToken[}]$|", template!(concat!("secret[|]sha256|", response!()))),
    "must be {verifyToken}, or text with the placeholders of a response, or {secret|sha256}; write a literal brace twice",
);

pub(crate) const HEADER_NAME: CelRule = CelRule::pattern(
    concat!("^", header_name!(), "$"),
    "must be a header name: letters, digits, '-', '_' and '.'",
);

/// The source of a field of an event.
macro_rules! mapped {
    () => {
        concat!("/.*|json:/.*|element:/.*|query:.+|form:.+|literal:.+|header:", header_name!())
    };
}

pub(crate) const MAPPED: CelRule = CelRule::each_pattern(
    concat!("^(", mapped!(), ")$"),
    "must be sources of the field: /POINTER, json:/POINTER, element:/POINTER, header:NAME, query:NAME, form:NAME or \
     literal:TEXT",
);

pub(crate) const MAPPED_SCOPE: CelRule = CelRule::each_pattern(
    concat!("^(element:|", mapped!(), ")$"),
    "must be sources of the scope: /POINTER, json:/POINTER, element:/POINTER, header:NAME, query:NAME, form:NAME or \
     literal:TEXT; or element:, which is all of the element",
);

pub(crate) const ATTEMPT_FIELDS: CelRule = CelRule::each_pattern(
    "^(json|element):/.*$",
    "must be members of the body or of the element: json:/POINTER or element:/POINTER",
);

pub(crate) const SPLIT: CelRule = CelRule::each_pattern(
    "^(/[^/]*)*/[*](/[^/]*)*$",
    "must be JSON Pointers with * for every item of an array, such as /events/*",
);

pub(crate) const CONTENT_TYPES: CelRule = CelRule::each_pattern(
    "^[a-z0-9][-a-z0-9!#$&^_.+]*/[a-z0-9][-a-z0-9!#$&^_.+]*$",
    "must be content-types in lower case without parameters, such as application/json",
);

pub(crate) const SPLIT_APART: CelRule = CelRule::new(
    "self.all(path, self.exists_one(other, path == other || path.startsWith(other + '/')))",
    "must not have a path twice, or a path inside another",
);

pub(crate) const MAPPED_ID: CelRule = CelRule::each_pattern(
    concat!("^(request|", mapped!(), ")$"),
    "must be sources of the id: /POINTER, json:/POINTER, element:/POINTER, header:NAME, query:NAME or form:NAME; or \
     request, which makes every request, or every element of it, an event",
);

pub(crate) const POINTER: CelRule =
    CelRule::pattern("^(/.*)?$", "must be a JSON Pointer: empty for the whole body, or starting with '/'");

pub(crate) const BODY_FIELD_ACCEPTED: CelRule = CelRule::new(
    "!has(self.bodyField) || !has(self.accept) || self.accept.exists(kind, kind in ['form', 'multipart'])",
    "requires form or multipart in accept: it is a field of a form",
)
.at_field(".bodyField");

pub(crate) const MEMBER: CelRule =
    CelRule::pattern("^[A-Za-z][A-Za-z0-9_]*$", "must be a letter followed by letters, digits and '_'");

pub(crate) const HOSTS: CelRule = CelRule::each_pattern(
    "^([a-z0-9]([-a-z0-9]*[a-z0-9])?[.]|[*][.])+[a-z]+$",
    "must be lower-case host names such as hooks.example.com; an asterisk matches one label, as in *.example.com",
);

// A scheme as a whole. The first three also apply to a partial scheme, the others only to a complete one.

pub(crate) const ECDSA_HASH: CelRule = CelRule::new(
    "!has(self.type) || !has(self.hash) || self.type != 'ecdsa' || self.hash == 'sha256'",
    "must be sha256 or not set when type is ecdsa",
)
.at_field(".hash");

pub(crate) const SECRET_IN_MESSAGE: CelRule = CelRule::new(
    "!has(self.message) || !self.message.contains('{secret') || (has(self.type) && self.type == 'digest')",
    "must not contain {secret} unless type is digest: the other types use it as the key",
)
.at_field(".message");

pub(crate) const SEED_KEY: CelRule = CelRule::new(
    "!has(self.key) || !has(self.key.encoding) || self.key.encoding != 'seed' || (has(self.type) && self.type == 'ed25519')",
    "must not be seed unless type is ed25519",
)
.at_field(".key.encoding");

pub(crate) const ELEMENT_TOKEN: CelRule = CelRule::new(
    "!has(self.signature) || !has(self.signature.from) || !self.signature.from.startsWith('element:') || \
     (has(self.type) && self.type == 'token')",
    "must not begin with element: unless type is token: a signature is of the whole request",
)
.at_field(".signature.from");

/// A condition that holds for the scheme of a custom provider once its type is set.
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
    "must be set when provider is custom: no preset defines how webhooks are verified",
)
.at_field(".spec.verification.scheme");

pub(crate) const CUSTOM_MAPPING: CelRule = CelRule::new(
    "self.spec.provider != 'custom' || has(self.spec.mapping)",
    "must be set when provider is custom: no preset defines the fields of an event",
)
.at_field(".spec.mapping");

pub(crate) const COMPLETE_TYPE: CelRule = CelRule::new(
    "self.spec.provider != 'custom' || !has(self.spec.verification.scheme) || has(self.spec.verification.scheme.type)",
    "must be set: no preset provides it",
)
.at_field(".spec.verification.scheme.type");

pub(crate) const COMPLETE_MESSAGE: CelRule = CelRule::new(
    custom!(
        "!(self.spec.verification.scheme.type in ['hmac', 'ed25519', 'ecdsa', 'digest']) || \
         has(self.spec.verification.scheme.message)"
    ),
    "must be set: hmac, ed25519, ecdsa and digest are computed over a message",
)
.at_field(".spec.verification.scheme.message");

pub(crate) const COMPLETE_SIGNATURE: CelRule = CelRule::new(
    custom!(
        "!(self.spec.verification.scheme.type in ['hmac', 'ed25519', 'ecdsa', 'digest', 'token']) || \
         (has(self.spec.verification.scheme.signature) && has(self.spec.verification.scheme.signature.from))"
    ),
    "must have from: it is the source of the signature or the token",
)
.at_field(".spec.verification.scheme.signature");

pub(crate) const COMPLETE_TIMESTAMP: CelRule = CelRule::new(
    custom!(
        "!has(self.spec.verification.scheme.message) || \
         !self.spec.verification.scheme.message.contains('{timestamp') || \
         (has(self.spec.verification.scheme.timestamp) && has(self.spec.verification.scheme.timestamp.from))"
    ),
    "must have from: the message contains {timestamp}",
)
.at_field(".spec.verification.scheme.timestamp");

pub(crate) const SECRET_COVERED: CelRule = CelRule::new(
    custom!(
        "self.spec.verification.scheme.type != 'digest' || !has(self.spec.verification.scheme.message) || \
         self.spec.verification.scheme.message.contains('{secret')"
    ),
    "must contain {secret}: without it anyone can compute the digest",
)
.at_field(".spec.verification.scheme.message");

pub(crate) const COMPLETE_SPLIT: CelRule = CelRule::new(
    "self.spec.provider != 'custom' || !has(self.spec.mapping) || has(self.spec.mapping.split) || \
     ((!has(self.spec.mapping.externalEventId) || \
     self.spec.mapping.externalEventId.all(source, !source.startsWith('element:'))) && \
     (!has(self.spec.mapping.idScope) || self.spec.mapping.idScope.all(source, !source.startsWith('element:'))) && \
     (!has(self.spec.mapping.attemptFields) || \
     self.spec.mapping.attemptFields.all(source, !source.startsWith('element:'))) && \
     (!has(self.spec.mapping.eventType) || self.spec.mapping.eventType.all(source, !source.startsWith('element:'))) && \
     (!has(self.spec.mapping.occurredAt) || self.spec.mapping.occurredAt.all(source, !source.startsWith('element:'))) && \
     (!has(self.spec.mapping.subject) || self.spec.mapping.subject.all(source, !source.startsWith('element:'))) && \
     (!has(self.spec.verification.scheme) || !has(self.spec.verification.scheme.signature) || \
     !has(self.spec.verification.scheme.signature.from) || \
     !self.spec.verification.scheme.signature.from.startsWith('element:')))",
    "must be set: a source begins with element:",
)
.at_field(".spec.mapping.split");

pub(crate) const COMPLETE_EVENT_TYPE: CelRule = CelRule::new(
    "self.spec.provider != 'custom' || !has(self.spec.mapping) || has(self.spec.mapping.eventType)",
    "must be set: no preset provides it; literal:TEXT gives all events the same type",
)
.at_field(".spec.mapping.eventType");
