//! Why a request is refused, and why there is no verifier.

use std::borrow::Cow;

use thiserror::Error;

/// The request does not prove that it comes from the provider. For operators; a client learns only whether credentials
/// were there.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("the signature or token is missing: {0} is not there")]
    Missing(String),
    #[error("{0} stands more than once, and the scheme has no separator for a list")]
    Repeated(String),
    #[error("{0} is required and is missing, empty or there more than once")]
    RequiredMissing(String),
    #[error("{0} is there and must not be: the signature does not cover it")]
    Forbidden(String),
    #[error("no signature could be read: none has the prefix, field and encoding of the scheme")]
    Unreadable,
    #[error("the timestamp is missing: {0} is not there")]
    TimestampMissing(String),
    #[error("the timestamp cannot be read: it is not in the unit of the scheme")]
    TimestampMalformed,
    #[error("the timestamp is {} s {}, and {tolerance_seconds} s are tolerated", .off_seconds.abs(), if *.off_seconds > 0 { "old" } else { "in the future" })]
    TimestampOff { off_seconds: i64, tolerance_seconds: i64 },
    #[error("the digest of the body is missing or is not that of the body")]
    BodyDigest,
    #[error("the URL is signed, and the platform's public URL is not configured")]
    NoPublicUrl,
    #[error("no secret gives any of the signatures over this message")]
    Mismatch,
    #[error("the token is not the secret")]
    WrongToken,
    #[error("it is signed for another topic than the secret names")]
    WrongName,
    #[error("the URL of the certificate is not one of the provider's")]
    CertificateUrl,
    #[error("the certificate is not at hand: the secret pins none, and none was fetched")]
    Certificate,
    #[error("the certificate is not in the provider's name")]
    CertificateName,
    #[error("the certificate is not valid at this time")]
    CertificateTime,
}

/// A step of the verification, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Required,
    Signature,
    Timestamp,
    BodyDigest,
    Comparison,
}

impl Step {
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

impl Refused {
    /// The step that failed.
    pub fn step(&self) -> Step {
        match self {
            Self::RequiredMissing(_) | Self::Forbidden(_) => Step::Required,
            Self::Missing(_)
            | Self::Repeated(_)
            | Self::Unreadable
            | Self::CertificateUrl
            | Self::Certificate
            | Self::CertificateName
            | Self::CertificateTime => Step::Signature,
            Self::TimestampMissing(_) | Self::TimestampMalformed | Self::TimestampOff { .. } => {
                Step::Timestamp
            }
            Self::BodyDigest => Step::BodyDigest,
            Self::NoPublicUrl | Self::Mismatch | Self::WrongToken | Self::WrongName => Step::Comparison,
        }
    }

    /// What a client may know.
    pub fn public_message(&self) -> Cow<'static, str> {
        match self {
            Self::Missing(_) => "the credentials are missing".into(),
            Self::Forbidden(place) => format!("{place} is not signed and must not be there").into(),
            _ => "the credentials are wrong".into(),
        }
    }
}

/// A scheme or a secret that no verifier can be made of.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SchemeError {
    #[error("a verification secret is empty")]
    EmptySecret,
    #[error("a verification secret is not a key: {0}")]
    Key(&'static str),
    #[error("spec.verification.scheme.{field}: {problem}")]
    Scheme { field: &'static str, problem: &'static str },
}

pub(super) fn wrong(field: &'static str, problem: &'static str) -> SchemeError {
    SchemeError::Scheme { field, problem }
}
