//! A scheme, compiled with an integration's secrets.

use grapnel_crds::{BodyDigest, Scheme, SchemeType};

use super::candidates::{Encoding, MAX_SIGNATURE_BYTES, SignatureFormat};
use super::certificate_scheme::{CertificateProvider, CertificateScheme};
use super::element_token::ElementToken;
use super::error::{SchemeError, UNKNOWN_SOURCE, VerifyError, invalid};
use super::keys::{self, Digests, Keys};
use super::timestamp::TimestampRule;
use crate::constant_time::ConstantTime;
use crate::request::content_type::ContentType;
use crate::request::template::Template;
use crate::request::{IncomingRequest, Source};

/// How requests prove their origin.
pub(super) enum CompiledScheme {
    Signature { message: Template, keys: Keys, format: SignatureFormat },
    Token { tokens: Digests, format: SignatureFormat },
    ElementToken { tokens: Digests, token: ElementToken },
    Basic(Digests),
    Certificate(CertificateScheme),
}

/// A digest of the body that the request carries, for messages that cover the digest in place of the body.
pub(super) struct CompiledBodyDigest {
    from: Source,
    algorithm: &'static ring::digest::Algorithm,
    encoding: Encoding,
}

impl CompiledScheme {
    pub(super) fn new(
        scheme: &Scheme,
        split: &[String],
        timestamp: Option<&TimestampRule>,
        secrets: &[&[u8]],
    ) -> Result<Self, SchemeError> {
        let from = scheme.signature.as_ref().and_then(|signature| signature.from.as_deref());
        if scheme.kind == Some(SchemeType::Token)
            && let Some(token) = from.and_then(|from| ElementToken::parse(from, split))
        {
            return match timestamp {
                None => Ok(Self::ElementToken { tokens: Digests::new(secrets), token: token? }),
                Some(_) => Err(invalid("timestamp", "must not be set: each element has a token of its own")),
            };
        }
        let format = || SignatureFormat::new(scheme.signature.as_ref());
        let compiled = match scheme.kind.ok_or_else(|| invalid("type", "must be set"))? {
            SchemeType::Token => Self::Token { tokens: Digests::new(secrets), format: format()? },
            SchemeType::Basic => Self::Basic(Digests::new(secrets)),
            SchemeType::AwsSns => {
                Self::Certificate(CertificateScheme::new(CertificateProvider::Sns, secrets)?)
            }
            SchemeType::Paypal => {
                Self::Certificate(CertificateScheme::new(CertificateProvider::Paypal, secrets)?)
            }
            SchemeType::Hmac | SchemeType::Ed25519 | SchemeType::Ecdsa | SchemeType::Digest => {
                let text = scheme.message.as_deref().ok_or_else(|| invalid("message", "must be set"))?;
                let message = Template::parse(text).ok_or_else(|| invalid("message", "invalid template"))?;
                if message.has_timestamp() && timestamp.is_none() {
                    return Err(invalid("timestamp", "must be set: the message contains {timestamp}"));
                }
                Self::Signature { message, keys: Keys::new(scheme, secrets)?, format: format()? }
            }
        };
        if let (Some(timestamp), Self::Signature { format, .. } | Self::Token { format, .. }) =
            (timestamp, &compiled)
            && timestamp.is_in_list()
            && !format.is_list()
        {
            return Err(invalid("timestamp.from", "selects a list item, but signature.separator is not set"));
        }
        Ok(compiled)
    }

    /// The sources of the values that are signed, and of the signatures.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> {
        let (message, format) = match self {
            Self::Signature { message, format, .. } => (Some(message), Some(format)),
            Self::Token { format, .. } => (None, Some(format)),
            Self::ElementToken { .. } | Self::Basic(_) | Self::Certificate(_) => (None, None),
        };
        let message = message.into_iter().flat_map(Template::sources);
        message.chain(format.and_then(SignatureFormat::source))
    }
}

impl CompiledBodyDigest {
    pub(super) fn new(spec: &BodyDigest) -> Result<Self, SchemeError> {
        Ok(Self {
            from: source("bodyDigest.from", spec.from.as_deref().unwrap_or_default())?,
            algorithm: keys::digest_algorithm(spec.hash),
            encoding: Encoding::of(spec.encoding),
        })
    }

    pub(super) fn source(&self) -> &Source {
        &self.from
    }

    /// Checks that the digest in the request is that of the body. A form needs none: its fields are in the message.
    pub(super) fn check(&self, request: &IncomingRequest<'_>) -> Result<(), VerifyError> {
        if ContentType::of(request.headers).is_form() {
            return Ok(());
        }
        // An empty body needs no digest.
        let Some(claimed) = self.from.value(request) else {
            return if request.signed_body().is_empty() { Ok(()) } else { Err(VerifyError::BodyDigest) };
        };
        let mut buffer = [0; MAX_SIGNATURE_BYTES];
        let claimed = self.encoding.decode(&claimed, &mut buffer).ok_or(VerifyError::BodyDigest)?;
        let actual = ConstantTime::new(ring::digest::digest(self.algorithm, request.signed_body()));
        if actual.matches(claimed) { Ok(()) } else { Err(VerifyError::BodyDigest) }
    }
}

pub(super) fn source(field: &'static str, text: &str) -> Result<Source, SchemeError> {
    Source::parse(text).ok_or_else(|| invalid(field, UNKNOWN_SOURCE))
}

pub(super) fn sources(field: &'static str, texts: &[String]) -> Result<Vec<Source>, SchemeError> {
    texts.iter().map(|text| source(field, text)).collect()
}

/// Warns of a timestamp that is checked but not signed.
pub(super) fn unsigned_timestamp(message: &Template, timestamp: &TimestampRule) -> Option<&'static str> {
    let is_covered = message.has_timestamp()
        || timestamp.source().is_some_and(|source| {
            message.covers_source(source)
                || (matches!(source, Source::Json(_) | Source::Form(_)) && message.covers_body())
        });
    (timestamp.is_enforced() && !is_covered).then_some(
        "spec.verification.scheme.timestamp: the timestamp is not signed, so its age proves nothing; put {timestamp} into \
         the message or set toleranceSeconds to 0",
    )
}
