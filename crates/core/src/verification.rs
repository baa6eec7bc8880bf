//! Verifies that a request comes from the provider: over the bytes of its body, before anything is parsed that is not signed
//! itself. The body of a request with a content coding is the decoded one, unless the scheme names the one that was sent.
//!
//! A [`Verifier`] is a scheme with an integration's secrets, compiled once for each version of the integration. What always
//! holds: comparisons are in constant time; every live secret is tried against every candidate; a candidate that does not
//! decode is skipped, not an error; the configuration chooses the algorithm, never the request; the message contains the
//! timestamp as received, and a copy is parsed for its age, which is bounded in both directions; no verifier is built with
//! an empty secret.

use std::borrow::Cow;

use grapnel_crds::{Scheme, SchemeType, SignedBody};
use jiff::Timestamp;

use self::candidates::{SignatureFormat, SignatureValues};
pub use self::certificate::Certificate;
pub use self::certificate_scheme::CertificateClaim;
pub use self::error::{SchemeError, VerificationStep, VerifyError};
use self::scheme::{CompiledBodyDigest, CompiledScheme};
use self::timestamp::TimestampRule;
use crate::constant_time::ConstantTime;
use crate::request::json::PointerSet;
use crate::request::template::{Mac, NoMac, SignedUrl, Template, TemplateContext};
use crate::request::{IncomingRequest, Source};

mod scheme;
mod candidates;
mod element_token;
mod timestamp;
mod keys;
mod basic;
mod blanking;
mod certificate_scheme;
mod certificate;
mod error;
#[cfg(test)]
mod tests;

/// A scheme with an integration's secrets.
pub struct Verifier {
    scheme: CompiledScheme,
    require: Vec<Source>,
    forbid: Vec<Source>,
    /// The members of a JSON body that are looked at.
    json: PointerSet,
    timestamp: Option<TimestampRule>,
    body_digest: Option<CompiledBodyDigest>,
    /// Whether a body with a content coding is signed as it came.
    signs_encoded_body: bool,
    /// In place of the platform's public URL and the path.
    url: Option<String>,
    url_port_variants: bool,
}

/// The secret that verified a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Its index: 0 is the current secret.
    pub secret: usize,
}

/// A request that is not refused.
#[derive(Debug)]
pub enum Evaluation {
    Verified(Verified),
    /// It points to a certificate. Once that is fetched, the claim can be verified.
    NeedsCertificate(CertificateClaim),
}

/// Returns the warning about a scheme that is weak but permitted: the [`Verifier::warning`] when the secrets are unknown.
pub fn warning(scheme: &Scheme, tolerance_seconds: Option<i32>) -> Option<&'static str> {
    let (SchemeType::Hmac | SchemeType::Ed25519 | SchemeType::Ecdsa | SchemeType::Digest) = scheme.kind?
    else {
        return None;
    };
    let message = Template::parse(scheme.message.as_deref()?)?;
    let timestamp = TimestampRule::new(scheme.timestamp.as_ref()?, tolerance_seconds).ok()?;
    scheme::unsigned_timestamp(&message, &timestamp)
}

impl Verifier {
    /// Compiles a scheme. `tolerance_seconds` and `url` are those of the integration, and take precedence over the scheme's.
    ///
    /// # Errors
    /// When the scheme is incomplete, or a secret is not a key for it. An empty secret would verify what anyone can compute.
    pub fn new(
        scheme: &Scheme,
        tolerance_seconds: Option<i32>,
        url: Option<&str>,
        secrets: &[impl AsRef<[u8]>],
    ) -> Result<Self, SchemeError> {
        Self::with_split(scheme, &[], tolerance_seconds, url, secrets)
    }

    /// Compiles a scheme that may have a token in each element of a request. `split` says where the elements are.
    ///
    /// # Errors
    /// As [`Verifier::new`].
    pub fn with_split(
        scheme: &Scheme,
        split: &[String],
        tolerance_seconds: Option<i32>,
        url: Option<&str>,
        secrets: &[impl AsRef<[u8]>],
    ) -> Result<Self, SchemeError> {
        if secrets.is_empty() || secrets.iter().any(|secret| secret.as_ref().is_empty()) {
            return Err(SchemeError::EmptySecret);
        }
        let require = scheme::sources("require", &scheme.require)?;
        let forbid = scheme::sources("forbid", &scheme.forbid)?;
        let secrets: Vec<&[u8]> = secrets.iter().map(AsRef::as_ref).collect();
        let timestamp = scheme.timestamp.as_ref();
        let timestamp = timestamp.map(|source| TimestampRule::new(source, tolerance_seconds)).transpose()?;
        let body_digest = scheme.body_digest.as_ref().map(CompiledBodyDigest::new).transpose()?;
        let compiled = CompiledScheme::new(scheme, split, timestamp.as_ref(), &secrets)?;
        let sources = [&require, &forbid].into_iter().flatten().chain(compiled.sources());
        let sources = sources.chain(timestamp.iter().filter_map(TimestampRule::source));
        let sources = sources.chain(body_digest.iter().map(CompiledBodyDigest::source));
        let json = PointerSet::new(sources.filter_map(Source::pointer));
        Ok(Self {
            scheme: compiled,
            require,
            forbid,
            json,
            timestamp,
            body_digest,
            signs_encoded_body: scheme.body == Some(SignedBody::Received),
            url: url.map(str::to_owned),
            url_port_variants: scheme.url_port_variants.unwrap_or(false),
        })
    }

    /// Verifies a request with the secrets alone.
    ///
    /// # Errors
    /// When the request is refused, or when a certificate must be fetched to verify it.
    pub fn verify(&self, request: &IncomingRequest<'_>, now: Timestamp) -> Result<Verified, VerifyError> {
        match self.evaluate(request, now)? {
            Evaluation::Verified(verified) => Ok(verified),
            Evaluation::NeedsCertificate(_) => Err(VerifyError::Certificate),
        }
    }

    /// Verifies a request, or returns the claim that needs a certificate.
    ///
    /// # Errors
    /// When the request is refused.
    pub fn evaluate(&self, request: &IncomingRequest<'_>, now: Timestamp) -> Result<Evaluation, VerifyError> {
        // A body that is not JSON has none of the members.
        let json = (!self.json.is_empty())
            .then(|| self.json.find(request.body).unwrap_or_else(|_| self.json.none_found()));
        let request = &IncomingRequest { json: json.as_ref(), ..*request };
        self.check_presence(request)?;
        let secret = match &self.scheme {
            CompiledScheme::Signature { message, keys, format } => {
                let signatures = format.values(request)?;
                if !format.any(&signatures, |_| true) {
                    return Err(VerifyError::Unreadable);
                }
                let timestamp = self.check_timestamp(request, format, &signatures, now)?;
                if let Some(digest) = &self.body_digest {
                    digest.check(request)?;
                }
                let matching = |context: &TemplateContext<'_>| {
                    keys.position(message, context, |matches| format.any(&signatures, matches))
                };
                self.matching_secret(request, message, &timestamp, matching)?
            }
            CompiledScheme::Token { tokens, format } => {
                let values = format.values(request)?;
                self.check_timestamp(request, format, &values, now)?;
                let mut secret = None;
                format.for_each_text(&values, |text| secret = secret.or(tokens.position(text)));
                secret.ok_or(VerifyError::WrongToken)?
            }
            CompiledScheme::ElementToken { tokens, token } => token.secret(tokens, request.body)?,
            CompiledScheme::Basic(tokens) => {
                tokens.position(&basic::credentials(request)?).ok_or(VerifyError::WrongToken)?
            }
            CompiledScheme::Certificate(scheme) => return scheme.check(request),
        };
        Ok(Evaluation::Verified(Verified { secret }))
    }

    fn check_presence(&self, request: &IncomingRequest<'_>) -> Result<(), VerifyError> {
        for source in &self.require {
            if source.value(request).is_none_or(|value| value.is_empty()) {
                return Err(VerifyError::RequiredMissing(source.describe()));
            }
        }
        match self.forbid.iter().find(|source| source.is_present(request)) {
            Some(source) => Err(VerifyError::Forbidden(source.describe())),
            None => Ok(()),
        }
    }

    /// Returns the timestamp as received; empty if the scheme has none.
    fn check_timestamp<'a>(
        &self,
        request: &IncomingRequest<'a>,
        format: &SignatureFormat,
        signatures: &SignatureValues<'a>,
        now: Timestamp,
    ) -> Result<Cow<'a, [u8]>, VerifyError> {
        let Some(rule) = &self.timestamp else { return Ok(Cow::Borrowed(b"")) };
        let text = rule
            .find(request, format, signatures)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| VerifyError::TimestampMissing(rule.describe()))?;
        rule.check(&text, now)?;
        Ok(text)
    }

    /// Returns the secret that `matching` finds for the message, in the form in which the provider may have signed its URL.
    fn matching_secret(
        &self,
        request: &IncomingRequest<'_>,
        message: &Template,
        timestamp: &[u8],
        matching: impl Fn(&TemplateContext<'_>) -> Option<usize>,
    ) -> Result<usize, VerifyError> {
        if self.url.is_none() && message.has_url() && request.public_url.is_none() {
            return Err(VerifyError::NoPublicUrl);
        }
        let url = self.signed_url();
        let context = TemplateContext { request: *request, timestamp, secret: ConstantTime::EMPTY, url };
        let mut secret = matching(&context);
        if secret.is_none() && self.url_port_variants && message.has_url() {
            for variant in url.port_variants(request) {
                let url = SignedUrl::Text(&variant);
                secret = secret.or_else(|| matching(&TemplateContext { url, ..context }));
            }
        }
        secret.ok_or(VerifyError::Mismatch)
    }

    fn signed_url(&self) -> SignedUrl<'_> {
        self.url.as_deref().map_or(SignedUrl::AsReceived, SignedUrl::Base)
    }

    /// Returns the warning about a scheme that is weak but permitted.
    pub fn warning(&self) -> Option<&'static str> {
        let CompiledScheme::Signature { message, .. } = &self.scheme else { return None };
        scheme::unsigned_timestamp(message, self.timestamp.as_ref()?)
    }

    /// Whether a body with a content coding is signed as it came, and not without the coding.
    pub fn signs_encoded_body(&self) -> bool {
        self.signs_encoded_body
    }

    /// Whether the scheme has the step.
    pub fn has_step(&self, step: VerificationStep) -> bool {
        match step {
            VerificationStep::Required => !self.require.is_empty() || !self.forbid.is_empty(),
            VerificationStep::Timestamp => self.timestamp.is_some(),
            VerificationStep::BodyDigest => self.body_digest.is_some(),
            VerificationStep::Signature | VerificationStep::Comparison => true,
        }
    }

    /// Builds the message that the signature covers, for display. A secret in it is replaced by its placeholder.
    pub fn message(&self, request: &IncomingRequest<'_>) -> Option<Vec<u8>> {
        let (message, format) = match &self.scheme {
            CompiledScheme::Signature { message, format, .. } => (message, format),
            CompiledScheme::Certificate(scheme) => return scheme.message(request),
            CompiledScheme::Token { .. } | CompiledScheme::ElementToken { .. } | CompiledScheme::Basic(_) => {
                return None;
            }
        };
        let signatures = format.values(request).ok()?;
        let timestamp = self.timestamp.as_ref().and_then(|rule| rule.find(request, format, &signatures));
        let context = TemplateContext {
            request: *request,
            timestamp: &timestamp.unwrap_or_default(),
            secret: ConstantTime::new(b"{secret}"),
            url: self.signed_url(),
        };
        Some(message.build(&context, &NoMac))
    }

    /// Returns the current key, for responses to handshakes; `None` if the scheme has no key that computes.
    pub fn mac(&self) -> Option<&dyn Mac> {
        match &self.scheme {
            CompiledScheme::Signature { keys, .. } => Some(keys),
            CompiledScheme::Token { .. }
            | CompiledScheme::ElementToken { .. }
            | CompiledScheme::Basic(_)
            | CompiledScheme::Certificate(_) => None,
        }
    }

    /// Whether the key can compute the values that the template needs.
    pub fn can_fill(&self, template: &Template) -> bool {
        let CompiledScheme::Signature { keys, .. } = &self.scheme else {
            return !template.needs_hmac() && !template.needs_signature();
        };
        (!template.needs_hmac() || keys.has_hmac()) && (!template.needs_signature() || keys.can_sign())
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("require", &self.require).finish_non_exhaustive()
    }
}
