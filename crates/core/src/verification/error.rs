//! Reasons why a request is not verified, and why a verifier cannot be built.

use std::borrow::Cow;

use thiserror::Error;

use crate::request::json::TooManyElements;

/// A reason why a request is not verified. The message is for operators: a client learns only whether credentials are
/// missing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VerifyError {
    #[error("no signature or token found: {0} is missing")]
    Missing(String),
    #[error("{0} appears more than once, and the scheme defines no list separator")]
    Repeated(String),
    #[error("{0} is required, but is missing, empty or repeated")]
    RequiredMissing(String),
    #[error("{0} must not be set: the signature does not cover it")]
    Forbidden(String),
    #[error("no signature could be read: none has the prefix, field and encoding of the scheme")]
    Unreadable,
    #[error("no timestamp found: {0} is missing")]
    TimestampMissing(String),
    #[error("invalid timestamp: it is not in the unit of the scheme")]
    TimestampMalformed,
    #[error("the timestamp is {} s {}; the tolerance is {tolerance_seconds} s", .off_seconds.abs(), if *.off_seconds > 0 { "old" } else { "in the future" })]
    TimestampOff { off_seconds: i64, tolerance_seconds: i64 },
    #[error(transparent)]
    TooManyElements(TooManyElements),
    #[error("the digest of the body is missing or does not match")]
    BodyDigest,
    #[error("the URL is signed, but the platform's public URL is not configured")]
    NoPublicUrl,
    #[error("no signature over this message matches any of the secrets")]
    Mismatch,
    #[error("the token does not match")]
    WrongToken,
    #[error("the signature is for another topic than the secret names")]
    WrongName,
    #[error("the certificate URL is not one of the provider's")]
    CertificateUrl,
    #[error("no certificate available: the secret pins none, and none was fetched")]
    Certificate,
    #[error("the certificate does not name the provider")]
    CertificateName,
    #[error("the certificate is not valid at this time")]
    CertificateTime,
}

/// A step of the verification. Steps are taken in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VerificationStep {
    Required,
    Signature,
    Timestamp,
    BodyDigest,
    Comparison,
}

/// A reason why a scheme and its secrets make no verifier.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SchemeError {
    #[error("a verification secret is empty")]
    EmptySecret,
    #[error("a verification secret is not a valid key: {0}")]
    Key(&'static str),
    #[error("spec.verification.scheme.{field}: {problem}")]
    Scheme { field: &'static str, problem: &'static str },
}

/// The problem of a source that cannot be parsed.
pub(super) const UNKNOWN_SOURCE: &str = "unknown source; expected header:…, query:…, form:… or json:/…";

impl VerifyError {
    /// The step that failed.
    pub fn step(&self) -> VerificationStep {
        match self {
            Self::RequiredMissing(_) | Self::Forbidden(_) => VerificationStep::Required,
            Self::Missing(_)
            | Self::Repeated(_)
            | Self::Unreadable
            | Self::TooManyElements(_)
            | Self::CertificateUrl
            | Self::Certificate
            | Self::CertificateName
            | Self::CertificateTime => VerificationStep::Signature,
            Self::TimestampMissing(_) | Self::TimestampMalformed | Self::TimestampOff { .. } => {
                VerificationStep::Timestamp
            }
            Self::BodyDigest => VerificationStep::BodyDigest,
            Self::NoPublicUrl | Self::Mismatch | Self::WrongToken | Self::WrongName => {
                VerificationStep::Comparison
            }
        }
    }

    /// The message for the client, which must not help it to guess.
    pub fn public_message(&self) -> Cow<'static, str> {
        match self {
            Self::Missing(_) => "the credentials are missing".into(),
            Self::Forbidden(source) => format!("{source} is not signed and must not be set").into(),
            _ => "the credentials are invalid".into(),
        }
    }
}

impl VerificationStep {
    pub const ALL: [Self; 5] =
        [Self::Required, Self::Signature, Self::Timestamp, Self::BodyDigest, Self::Comparison];

    pub fn name(self) -> &'static str {
        match self {
            Self::Required => "required values",
            Self::Signature => "signature",
            Self::Timestamp => "timestamp",
            Self::BodyDigest => "body digest",
            Self::Comparison => "comparison",
        }
    }
}

pub(super) fn invalid(field: &'static str, problem: &'static str) -> SchemeError {
    SchemeError::Scheme { field, problem }
}
