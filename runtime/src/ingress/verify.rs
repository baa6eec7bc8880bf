//! Proves that a request comes from the provider: over the raw bytes, before anything is parsed that is not signed itself.
//!
//! A [`Verifier`] is a scheme with an integration's secrets, compiled once for each version of the integration. What always
//! holds: comparisons are in constant time; every live secret is tried against every candidate; a candidate that does not
//! decode is none, not an error; the configuration chooses the algorithm, never the request; the message has the timestamp
//! as it came, and a copy is read for its age, which is bounded in both directions; an empty secret never gets this far,
//! since a verifier refuses to be made of one.

use std::borrow::Cow;

use axum::http::HeaderName;
use grapnel_crds::{Scheme, SchemeType};
use jiff::Timestamp;
use subtle::ConstantTimeEq;
use thiserror::Error;

use self::candidates::{Lines, Signatures};
pub use self::certified::RsaKey;
use self::certified::{Certified, Form};
use self::keys::{Digests, Keys};
use self::timestamp::SignedTime;
use super::place::{Incoming, Place};
use super::template::{Context, Keyed, Keyless, Template, Url, is_form};

mod candidates;
mod certified;
mod keys;
mod timestamp;
#[cfg(test)]
mod tests;

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
            Self::RequiredMissing(_) => Step::Required,
            Self::Missing(_)
            | Self::Repeated(_)
            | Self::Unreadable
            | Self::CertificateUrl
            | Self::Certificate => Step::Signature,
            Self::TimestampMissing(_) | Self::TimestampMalformed | Self::TimestampOff { .. } => {
                Step::Timestamp
            }
            Self::BodyDigest => Step::BodyDigest,
            Self::NoPublicUrl | Self::Mismatch | Self::WrongToken | Self::WrongName => Step::Comparison,
        }
    }

    /// What a client may know.
    pub fn public_message(&self) -> &'static str {
        match self {
            Self::Missing(_) => "the credentials are missing",
            _ => "the credentials are wrong",
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

fn wrong(field: &'static str, problem: &'static str) -> SchemeError {
    SchemeError::Scheme { field, problem }
}

/// What proved a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Which secret: 0 is the current one.
    pub secret: usize,
}

/// A scheme with an integration's secrets.
pub struct Verifier {
    kind: Kind,
    require: Vec<Place>,
    time: Option<SignedTime>,
    body_digest: Option<BodyDigest>,
    /// In place of the platform's public URL and the path.
    url: Option<String>,
    url_port_variants: bool,
}

enum Kind {
    Signed {
        message: Template,
        keys: Keys,
        signatures: Signatures,
    },
    /// SHA-256 of each secret, so that the comparison tells nothing about a length.
    Token {
        tokens: Digests,
        signatures: Signatures,
    },
    Basic(Digests),
    Certified(Certified),
}

struct BodyDigest {
    from: Place,
    algorithm: &'static ring::digest::Algorithm,
    encoding: candidates::Encoding,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("require", &self.require).finish_non_exhaustive()
    }
}

/// What is doubtful about a scheme, though it can be used: the [`Verifier::warning`] of one whose secrets are not known.
pub fn doubt(scheme: &Scheme, tolerance_seconds: Option<i32>) -> Option<&'static str> {
    let (SchemeType::Hmac | SchemeType::Ed25519 | SchemeType::Ecdsa | SchemeType::Digest) = scheme.kind?
    else {
        return None;
    };
    let message = Template::parse(scheme.message.as_deref()?)?;
    let time = SignedTime::new(scheme.timestamp.as_ref()?, tolerance_seconds).ok()?;
    unsigned_time(&message, &time)
}

fn unsigned_time(message: &Template, time: &SignedTime) -> Option<&'static str> {
    let covered = message.has_timestamp()
        || time.place().is_some_and(|place| {
            message.covers_place(place)
                || (matches!(place, Place::Json(_) | Place::Form(_)) && message.covers_body())
        });
    (time.is_enforced() && !covered).then_some(
        "spec.verification.scheme.timestamp: the timestamp is not signed, so its age proves nothing; put {timestamp} into \
         the message or set toleranceSeconds to 0",
    )
}

impl Verifier {
    /// `tolerance_seconds` and `url` are those of the integration, and go before what the scheme says.
    ///
    /// # Errors
    /// When the scheme is incomplete, or a secret is no key for it. An empty secret would verify what anyone can compute.
    pub fn new(
        scheme: &Scheme,
        tolerance_seconds: Option<i32>,
        url: Option<&str>,
        secrets: &[impl AsRef<[u8]>],
    ) -> Result<Self, SchemeError> {
        if secrets.is_empty() || secrets.iter().any(|secret| secret.as_ref().is_empty()) {
            return Err(SchemeError::EmptySecret);
        }
        let place = |field, text: &str| Place::parse(text).ok_or_else(|| wrong(field, "names no place"));
        let require = scheme.require.iter().map(|text| place("require", text)).collect::<Result<_, _>>()?;
        let secrets: Vec<&[u8]> = secrets.iter().map(AsRef::as_ref).collect();
        let time = scheme
            .timestamp
            .as_ref()
            .map(|timestamp| SignedTime::new(timestamp, tolerance_seconds))
            .transpose()?;
        let body_digest = match &scheme.body_digest {
            Some(digest) => Some(BodyDigest {
                from: place("bodyDigest.from", digest.from.as_deref().unwrap_or_default())?,
                algorithm: keys::digest_algorithm(digest.hash),
                encoding: candidates::Encoding::of(digest.encoding),
            }),
            None => None,
        };
        let signatures = || Signatures::new(scheme.signature.as_ref());
        let kind = match scheme.kind.ok_or_else(|| wrong("type", "must be set"))? {
            SchemeType::Token => Kind::Token { tokens: Digests::new(&secrets), signatures: signatures()? },
            SchemeType::Basic => Kind::Basic(Digests::new(&secrets)),
            SchemeType::AwsSns => Kind::Certified(Certified::new(Form::Sns, &secrets)?),
            SchemeType::Paypal => Kind::Certified(Certified::new(Form::Paypal, &secrets)?),
            SchemeType::Hmac | SchemeType::Ed25519 | SchemeType::Ecdsa | SchemeType::Digest => {
                let text = scheme.message.as_deref().ok_or_else(|| wrong("message", "must be set"))?;
                let message = Template::parse(text).ok_or_else(|| wrong("message", "cannot be read"))?;
                if message.has_timestamp() && time.is_none() {
                    return Err(wrong("timestamp", "must be set: the message contains {timestamp}"));
                }
                Kind::Signed { message, keys: Keys::new(scheme, &secrets)?, signatures: signatures()? }
            }
        };
        if let (Some(time), Kind::Signed { signatures, .. } | Kind::Token { signatures, .. }) = (&time, &kind)
            && time.is_in_list()
            && !signatures.is_list()
        {
            return Err(wrong("timestamp.from", "is in a list, and signature.separator is none"));
        }
        Ok(Self {
            kind,
            require,
            time,
            body_digest,
            url: url.map(str::to_owned),
            url_port_variants: scheme.url_port_variants.unwrap_or(false),
        })
    }

    /// The header that carries a secret in the clear and must not be stored; `None` when there is none, or when it is one
    /// that is never stored.
    pub fn secret_header(&self) -> Option<&HeaderName> {
        match &self.kind {
            Kind::Token { signatures, .. } => signatures.header(),
            Kind::Signed { .. } | Kind::Basic(_) | Kind::Certified(_) => None,
        }
    }

    /// What is doubtful about the scheme, though it can be used.
    pub fn warning(&self) -> Option<&'static str> {
        let Kind::Signed { message, .. } = &self.kind else { return None };
        unsigned_time(message, self.time.as_ref()?)
    }

    /// Whether the scheme takes the step.
    pub fn has_step(&self, step: Step) -> bool {
        match step {
            Step::Required => !self.require.is_empty(),
            Step::Timestamp => self.time.is_some(),
            Step::BodyDigest => self.body_digest.is_some(),
            Step::Signature | Step::Comparison => true,
        }
    }

    /// Whether the request proves where it comes from, and by which secret.
    pub fn verify(&self, incoming: &Incoming<'_>, now: Timestamp) -> Result<Proof, Refused> {
        for place in &self.require {
            if place.find(incoming).is_none_or(|value| value.is_empty()) {
                return Err(Refused::RequiredMissing(place.describe()));
            }
        }
        match &self.kind {
            Kind::Signed { message, keys, signatures } => {
                let lines = signatures.lines(incoming)?;
                if !signatures.any(&lines, |_| true) {
                    return Err(Refused::Unreadable);
                }
                let timestamp = self.timestamp(incoming, signatures, &lines, now)?;
                self.check_body_digest(incoming)?;
                self.match_signature(incoming, message, keys, signatures, &lines, &timestamp)
            }
            Kind::Token { tokens, signatures } => {
                let lines = signatures.lines(incoming)?;
                self.timestamp(incoming, signatures, &lines, now)?;
                let mut found = None;
                signatures.each_text(&lines, |text| found = found.or(tokens.position(text)));
                found.map(|secret| Proof { secret }).ok_or(Refused::WrongToken)
            }
            Kind::Basic(tokens) => {
                let credentials = basic_credentials(incoming)?;
                tokens.position(&credentials).map(|secret| Proof { secret }).ok_or(Refused::WrongToken)
            }
            Kind::Certified(certified) => certified.verify(incoming, None).map(|secret| Proof { secret }),
        }
    }

    /// Where the certificate is that must be fetched to judge the request; `None` when it needs none, or has one pinned.
    pub fn certificate_url(&self, incoming: &Incoming<'_>) -> Result<Option<::url::Url>, Refused> {
        match &self.kind {
            Kind::Certified(certified) => certified.certificate_url(incoming),
            Kind::Signed { .. } | Kind::Token { .. } | Kind::Basic(_) => Ok(None),
        }
    }

    /// As `verify`, by the certificate that was fetched.
    pub fn verify_by(&self, incoming: &Incoming<'_>, key: &RsaKey) -> Result<Proof, Refused> {
        match &self.kind {
            Kind::Certified(certified) => {
                certified.verify(incoming, Some(key)).map(|secret| Proof { secret })
            }
            Kind::Signed { .. } | Kind::Token { .. } | Kind::Basic(_) => Err(Refused::Certificate),
        }
    }

    fn timestamp<'a>(
        &self,
        incoming: &Incoming<'a>,
        signatures: &Signatures,
        lines: &Lines<'a>,
        now: Timestamp,
    ) -> Result<Cow<'a, [u8]>, Refused> {
        let Some(time) = &self.time else { return Ok(Cow::Borrowed(b"")) };
        let text = time
            .find(incoming, signatures, lines)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| Refused::TimestampMissing(time.describe()))?;
        time.check(&text, now)?;
        Ok(text)
    }

    fn check_body_digest(&self, incoming: &Incoming<'_>) -> Result<(), Refused> {
        let Some(digest) = self.body_digest.as_ref().filter(|_| !is_form(incoming)) else { return Ok(()) };
        // Without a body there is nothing that a digest would have to cover.
        let Some(claimed) = digest.from.find(incoming) else {
            return if incoming.body.is_empty() { Ok(()) } else { Err(Refused::BodyDigest) };
        };
        let mut buffer = [0; candidates::LONGEST];
        let claimed = digest.encoding.decode(&claimed, &mut buffer).ok_or(Refused::BodyDigest)?;
        let actual = ring::digest::digest(digest.algorithm, incoming.body);
        let equal: bool = actual.as_ref().ct_eq(claimed).into();
        if equal { Ok(()) } else { Err(Refused::BodyDigest) }
    }

    fn match_signature(
        &self,
        incoming: &Incoming<'_>,
        message: &Template,
        keys: &Keys,
        signatures: &Signatures,
        lines: &Lines<'_>,
        timestamp: &[u8],
    ) -> Result<Proof, Refused> {
        let base = match &self.url {
            Some(base) => Url::Base(base),
            None if message.has_url() && incoming.public_url.is_none() => return Err(Refused::NoPublicUrl),
            None => Url::AsReceived,
        };
        let as_it_is = Context { incoming: *incoming, timestamp, secret: b"", url: base };
        let matched = |context: &Context<'_>| {
            keys.position(message, context, |signature| {
                signatures.any(lines, |candidate| signature(candidate))
            })
        };
        let mut found = matched(&as_it_is);
        if found.is_none() && self.url_port_variants && message.has_url() {
            let url_alone =
                Template::parse("{url}").map(|url| url.build(&as_it_is, &Keyless)).unwrap_or_default();
            for variant in port_variants(&String::from_utf8_lossy(&url_alone)) {
                found = found.or_else(|| matched(&Context { url: Url::Text(&variant), ..as_it_is }));
            }
        }
        found.map(|secret| Proof { secret }).ok_or(Refused::Mismatch)
    }

    /// What the signature is computed over, for people. A secret in it is left as its placeholder.
    pub fn message(&self, incoming: &Incoming<'_>) -> Option<Vec<u8>> {
        let (message, signatures) = match &self.kind {
            Kind::Signed { message, signatures, .. } => (message, signatures),
            Kind::Certified(certified) => return certified.message(incoming),
            Kind::Token { .. } | Kind::Basic(_) => return None,
        };
        let lines = signatures.lines(incoming).ok()?;
        let timestamp =
            self.time.as_ref().and_then(|time| time.find(incoming, signatures, &lines)).unwrap_or_default();
        let url = self.url.as_deref().map_or(Url::AsReceived, Url::Base);
        let context = Context { incoming: *incoming, timestamp: &timestamp, secret: b"{secret}", url };
        Some(message.build(&context, &Keyless))
    }

    /// The current key, for the answers of handshakes; `None` when the scheme has none that computes.
    pub fn key(&self) -> Option<&dyn Keyed> {
        match &self.kind {
            Kind::Signed { keys, .. } => Some(keys),
            Kind::Token { .. } | Kind::Basic(_) | Kind::Certified(_) => None,
        }
    }

    /// Whether the key can compute what the template asks for.
    pub fn can_answer(&self, template: &Template) -> bool {
        let Kind::Signed { keys, .. } = &self.kind else {
            return !template.asks_for_hmac() && !template.asks_for_signature();
        };
        (!template.asks_for_hmac() || keys.has_hmac()) && (!template.asks_for_signature() || keys.can_sign())
    }
}

/// `user:password`, decoded.
fn basic_credentials(incoming: &Incoming<'_>) -> Result<Vec<u8>, Refused> {
    use base64::Engine;
    let mut values = incoming.headers.get_all(axum::http::header::AUTHORIZATION).iter();
    let value =
        values.next().ok_or_else(|| Refused::Missing("the header authorization".to_owned()))?.as_bytes();
    if values.next().is_some() {
        return Err(Refused::Repeated("the header authorization".to_owned()));
    }
    let (scheme, encoded) = value.split_at_checked(6).ok_or(Refused::Unreadable)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return Err(Refused::Unreadable);
    }
    base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|_| Refused::Unreadable)
}

/// The URL without its port, and with the default port of its scheme.
fn port_variants(url: &str) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://") else { return Vec::new() };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let default_port = if scheme == "http" { 80 } else { 443 };
    vec![format!("{scheme}://{host}{path}"), format!("{scheme}://{host}:{default_port}{path}")]
}
