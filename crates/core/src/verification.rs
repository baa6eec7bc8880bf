//! Proves that a request comes from the provider: over the raw bytes, before anything is parsed that is not signed itself.
//!
//! A [`Verifier`] is a scheme with an integration's secrets, compiled once for each version of the integration. What always
//! holds: comparisons are in constant time; every live secret is tried against every candidate; a candidate that does not
//! decode is none, not an error; the configuration chooses the algorithm, never the request; the message has the timestamp
//! as it came, and a copy is read for its age, which is bounded in both directions; an empty secret never gets this far,
//! since a verifier refuses to be made of one.

use std::borrow::Cow;

use grapnel_crds::{Scheme, SchemeType};
use http::HeaderName;
use jiff::Timestamp;

use self::candidates::{Lines, Signatures};
pub use self::certificate::Certificate;
use self::certificate_scheme::{Certified, Form};
use self::error::wrong;
pub use self::error::{Refused, SchemeError, Step};
use self::keys::{Digests, Keys};
use self::timestamp::SignedTime;
use crate::constant_time::Known;
use crate::request::json::Pointers;
use crate::request::template::{Context, Keyed, Keyless, Template, Url, is_form};
use crate::request::{Incoming, Place};

mod basic;
mod candidates;
mod certificate;
mod certificate_scheme;
mod keys;
mod port;
mod error;
mod timestamp;
#[cfg(test)]
mod tests;

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
    forbid: Vec<Place>,
    /// The members of a JSON body that are looked at.
    json: Pointers,
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

impl Kind {
    /// Where a request is looked at.
    fn places(&self) -> impl Iterator<Item = &Place> {
        let (message, signatures) = match self {
            Self::Signed { message, signatures, .. } => (Some(message), Some(signatures)),
            Self::Token { signatures, .. } => (None, Some(signatures)),
            Self::Basic(_) | Self::Certified(_) => (None, None),
        };
        let message = message.into_iter().flat_map(Template::places);
        message.chain(signatures.and_then(Signatures::place))
    }
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
        let places = |field, texts: &[String]| {
            texts.iter().map(|text| place(field, text)).collect::<Result<Vec<_>, _>>()
        };
        let (require, forbid) = (places("require", &scheme.require)?, places("forbid", &scheme.forbid)?);
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
        let looked_at = [&require, &forbid].into_iter().flatten();
        let looked_at = looked_at.chain(kind.places()).chain(time.iter().filter_map(SignedTime::place));
        let looked_at = looked_at.chain(body_digest.iter().map(|digest| &digest.from));
        let json = Pointers::new(looked_at.filter_map(Place::pointer));
        Ok(Self {
            kind,
            require,
            forbid,
            json,
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
            Step::Required => !self.require.is_empty() || !self.forbid.is_empty(),
            Step::Timestamp => self.time.is_some(),
            Step::BodyDigest => self.body_digest.is_some(),
            Step::Signature | Step::Comparison => true,
        }
    }

    /// Whether the request proves where it comes from, and by which secret.
    pub fn verify(&self, incoming: &Incoming<'_>, now: Timestamp) -> Result<Proof, Refused> {
        self.judge(incoming, None, now)
    }

    /// As `verify`, by the certificate that was fetched.
    pub fn verify_by(
        &self,
        incoming: &Incoming<'_>,
        certificate: &Certificate,
        now: Timestamp,
    ) -> Result<Proof, Refused> {
        self.judge(incoming, Some(certificate), now)
    }

    fn judge(
        &self,
        incoming: &Incoming<'_>,
        fetched: Option<&Certificate>,
        now: Timestamp,
    ) -> Result<Proof, Refused> {
        // What is no JSON has none of them.
        let json = (!self.json.is_empty())
            .then(|| self.json.find(incoming.body).unwrap_or_else(|_| self.json.nothing()));
        let incoming = &Incoming { json: json.as_ref(), ..*incoming };
        for place in &self.require {
            if place.find(incoming).is_none_or(|value| value.is_empty()) {
                return Err(Refused::RequiredMissing(place.describe()));
            }
        }
        if let Some(place) = self.forbid.iter().find(|place| place.is_there(incoming)) {
            return Err(Refused::Forbidden(place.describe()));
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
                let credentials = basic::credentials(incoming)?;
                tokens.position(&credentials).map(|secret| Proof { secret }).ok_or(Refused::WrongToken)
            }
            Kind::Certified(certified) => {
                certified.verify(incoming, fetched, now).map(|secret| Proof { secret })
            }
        }
    }

    /// Where the certificate is that must be fetched to judge the request; `None` when it needs none, or has one pinned.
    pub fn certificate_url(&self, incoming: &Incoming<'_>) -> Result<Option<::url::Url>, Refused> {
        match &self.kind {
            Kind::Certified(certified) => certified.certificate_url(incoming),
            Kind::Signed { .. } | Kind::Token { .. } | Kind::Basic(_) => Ok(None),
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
        let actual = Known(ring::digest::digest(digest.algorithm, incoming.body));
        if actual.is(claimed) { Ok(()) } else { Err(Refused::BodyDigest) }
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
            for variant in port::variants(&String::from_utf8_lossy(&url_alone)) {
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
