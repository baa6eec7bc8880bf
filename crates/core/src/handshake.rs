//! Answers the requests with which a provider checks that an endpoint is ours. They are not events.
//!
//! The response to a handshake that is not verified contains nothing that was not in the request, except a MAC or a signature
//! over values of the request, if the provider requires one.

use grapnel_crds as crds;
use grapnel_crds::HandshakeAuth;
use http::Response;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use secrecy::zeroize::Zeroizing;
use sha2::{Digest, Sha256};

use crate::constant_time::ConstantTime;
use crate::host_pattern::host_matches;
use crate::request::template::{Mac, NoMac, SignedUrl, Template, TemplateContext};
use crate::request::{IncomingRequest, Source};
use crate::verification::Verifier;

/// The longest body of a response. Challenges are short.
const MAX_BODY_BYTES: usize = 8 * 1024;

/// The longest challenge that is answered with the key without verification.
const MAX_TOKEN_BYTES: usize = 256;

/// The handshakes of an integration, compiled once for each of its versions.
pub struct Handshakes {
    all: Vec<CompiledHandshake>,
    /// The current secret, for conditions that are derived from it.
    secret: ConstantTime<Zeroizing<Vec<u8>>>,
    /// The text of the owner's choice, or else the SHA-256 of the secret in hexadecimal.
    verify_token: ConstantTime<Zeroizing<Vec<u8>>>,
}

impl std::fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshakes").field("all", &self.all).finish_non_exhaustive()
    }
}

/// A kind of request that a provider makes, and the response to it.
#[derive(Debug)]
pub struct CompiledHandshake {
    pub name: String,
    method: Method,
    conditions: Vec<CompiledCondition>,
    otherwise_forbidden: Vec<CompiledCondition>,
    verify: HandshakeAuth,
    status: StatusCode,
    headers: Vec<(HeaderName, Template)>,
    content_type: Option<HeaderValue>,
    body: Option<Template>,
    capture: Option<Source>,
    confirmation: Option<Confirmation>,
}

#[derive(Debug)]
struct CompiledCondition {
    source: Source,
    expected: ExpectedValue,
}

#[derive(Debug)]
enum ExpectedValue {
    NotEmpty,
    VerifyToken,
    Text(Template),
}

#[derive(Debug)]
struct Confirmation {
    from: Source,
    hosts: Vec<String>,
}

/// The decision about a request that is a handshake.
#[derive(Debug)]
pub enum HandshakeDecision<'a> {
    Respond(&'a CompiledHandshake),
    /// The values that show that it is the provider's are missing or do not match.
    Forbid,
}

/// The error of a handshake whose request contains no URL that may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfirmationNotPermitted;

impl Handshakes {
    /// # Errors
    /// The name of a handshake that cannot be compiled, or that needs a value that the key cannot compute.
    pub fn new(
        handshakes: &[crds::Handshake],
        verifier: &Verifier,
        secret: &[u8],
        verify_token: Option<&[u8]>,
    ) -> Result<Self, String> {
        let mut all = Vec::with_capacity(handshakes.len());
        for handshake in handshakes {
            let compiled = CompiledHandshake::new(handshake).filter(|compiled| {
                let headers = compiled.headers.iter().map(|(_, template)| template);
                headers.chain(&compiled.body).all(|template| verifier.can_fill(template))
            });
            all.push(compiled.ok_or_else(|| handshake.name.clone())?);
        }
        let verify_token =
            verify_token.map_or_else(|| hex::encode(Sha256::digest(secret)).into_bytes(), <[u8]>::to_vec);
        Ok(Self {
            all,
            secret: ConstantTime::new(Zeroizing::new(secret.to_vec())),
            verify_token: ConstantTime::new(Zeroizing::new(verify_token)),
        })
    }

    /// Whether a handshake has this method.
    pub fn has_method(&self, method: &Method) -> bool {
        self.all.iter().any(|handshake| handshake.method == *method)
    }

    /// Returns the decision about a request that is a handshake, among those that are verified or not, as `proof` says; `None`
    /// if the request is not one of them.
    pub fn recognize(
        &self,
        request: &IncomingRequest<'_>,
        proof: HandshakeAuth,
    ) -> Option<HandshakeDecision<'_>> {
        let candidates = self.all.iter().filter(|handshake| handshake.verify == proof);
        let mut candidates = candidates.filter(|handshake| handshake.method == *request.method);
        let handshake = candidates.find(|handshake| self.all_hold(&handshake.conditions, request))?;
        if self.all_hold(&handshake.otherwise_forbidden, request) {
            return Some(HandshakeDecision::Respond(handshake));
        }
        Some(HandshakeDecision::Forbid)
    }

    fn all_hold(&self, conditions: &[CompiledCondition], request: &IncomingRequest<'_>) -> bool {
        let context = TemplateContext {
            request: *request,
            timestamp: b"",
            secret: self.secret.by_ref(),
            url: SignedUrl::AsReceived,
        };
        conditions.iter().all(|condition| {
            let Some(value) = condition.source.value(request) else { return false };
            match &condition.expected {
                ExpectedValue::Text(expected) => {
                    ConstantTime::new(expected.build(&context, &NoMac)).matches(&value)
                }
                ExpectedValue::VerifyToken => self.verify_token.matches(&value),
                ExpectedValue::NotEmpty => !value.is_empty(),
            }
        })
    }
}

impl CompiledHandshake {
    fn new(handshake: &crds::Handshake) -> Option<Self> {
        let respond = &handshake.respond;
        let header = |header: &crds::HandshakeHeader| {
            Some((HeaderName::try_from(&header.name).ok()?, Template::parse(&header.value)?))
        };
        let optional = |text: &Option<String>| match text {
            Some(text) => Source::parse(text).map(Some),
            None => Some(None),
        };
        Some(Self {
            name: handshake.name.clone(),
            method: match handshake.matches.method {
                crds::HandshakeMethod::Post => Method::POST,
                crds::HandshakeMethod::Get => Method::GET,
                crds::HandshakeMethod::Head => Method::HEAD,
                crds::HandshakeMethod::Options => Method::OPTIONS,
            },
            conditions: CompiledCondition::all(&handshake.matches.conditions)?,
            otherwise_forbidden: CompiledCondition::all(&handshake.matches.otherwise_forbidden)?,
            verify: handshake.verify,
            status: u16::try_from(respond.status)
                .ok()
                .and_then(|status| StatusCode::from_u16(status).ok())?,
            headers: respond.headers.iter().map(header).collect::<Option<_>>()?,
            content_type: match &respond.content_type {
                Some(text) => Some(HeaderValue::from_str(text).ok()?),
                None => None,
            },
            body: match &respond.body {
                Some(text) => Some(Template::parse(text)?),
                None => None,
            },
            capture: optional(&handshake.capture)?,
            confirmation: match &handshake.confirm_url {
                Some(confirm) => {
                    Some(Confirmation { from: Source::parse(&confirm.from)?, hosts: confirm.hosts.clone() })
                }
                None => None,
            },
        })
    }

    /// Builds the response; `None` if the challenge is invalid: too long, or possibly the body of a webhook.
    pub fn respond(&self, request: &IncomingRequest<'_>, verifier: &Verifier) -> Option<Response<Vec<u8>>> {
        if self.verify == HandshakeAuth::Unverified && !self.computes_only_over_tokens(request) {
            return None;
        }
        let mac: &dyn Mac = verifier.mac().unwrap_or(&NoMac);
        let context = TemplateContext {
            request: *request,
            timestamp: b"",
            secret: ConstantTime::EMPTY,
            url: SignedUrl::AsReceived,
        };
        let body = self.body.as_ref().map(|body| body.build(&context, mac)).unwrap_or_default();
        if body.len() > MAX_BODY_BYTES {
            return None;
        }
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(content_type) = &self.content_type {
            headers.insert(header::CONTENT_TYPE, content_type.clone());
        }
        // Part of the body comes from the caller.
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        for (name, template) in &self.headers {
            let value = template.build(&context, mac);
            if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_bytes(&value)) {
                headers.insert(name, value);
            }
        }
        Some(response)
    }

    /// A caller that is not verified must not get a webhook signed: the key that answers a challenge is often the one that
    /// signs webhooks.
    fn computes_only_over_tokens(&self, request: &IncomingRequest<'_>) -> bool {
        let templates = self.headers.iter().map(|(_, template)| template).chain(&self.body);
        let mut sources = templates.flat_map(Template::mac_sources);
        sources.all(|source| source.value(request).is_some_and(|value| is_token(&value)))
    }

    /// Returns the secret that the request hands over.
    pub fn captured_secret(&self, request: &IncomingRequest<'_>) -> Option<Zeroizing<Vec<u8>>> {
        let value = self.capture.as_ref()?.value(request)?;
        (!value.is_empty() && value.len() <= MAX_BODY_BYTES).then(|| Zeroizing::new(value.into_owned()))
    }

    /// Returns the URL that must be called before the response; `None` if the handshake has none.
    pub fn confirmation_url(
        &self,
        request: &IncomingRequest<'_>,
    ) -> Option<Result<url::Url, ConfirmationNotPermitted>> {
        let confirmation = self.confirmation.as_ref()?;
        let text = confirmation.from.value(request).unwrap_or_default();
        let url = std::str::from_utf8(&text).ok().and_then(|text| url::Url::parse(text).ok());
        let permitted = url.filter(|url| {
            url.scheme() == "https"
                && url.port().is_none()
                && url.username().is_empty()
                && url.password().is_none()
                && url
                    .host_str()
                    .is_some_and(|host| confirmation.hosts.iter().any(|pattern| host_matches(pattern, host)))
        });
        Some(permitted.ok_or(ConfirmationNotPermitted))
    }
}

impl CompiledCondition {
    fn new(condition: &crds::HandshakeCondition) -> Option<Self> {
        Some(Self {
            source: Source::parse(&condition.source)?,
            expected: match condition.equals.as_deref() {
                Some("{verifyToken}") => ExpectedValue::VerifyToken,
                Some(text) => ExpectedValue::Text(Template::parse(text)?),
                None => ExpectedValue::NotEmpty,
            },
        })
    }

    fn all(conditions: &[crds::HandshakeCondition]) -> Option<Vec<Self>> {
        conditions.iter().map(Self::new).collect()
    }
}

/// Whether a value is short and has only characters that cannot make JSON, a form or XML, apart from padding of base64.
fn is_token(value: &[u8]) -> bool {
    let length = value.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/:".contains(byte);
    (1..=MAX_TOKEN_BYTES).contains(&length) && value[..length].iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_are_answered_with_the_key_without_verification() {
        for token in ["9b4507b3-9040-4669-9ca3-6b94edb50553", "NDg2ZTM0+/==", "a"] {
            assert!(is_token(token.as_bytes()), "{token}");
        }
        for other in ["", "==", r#"{"a":1}"#, "a=b", "<a/>", "a b", "[1]", &"x".repeat(257)] {
            assert!(!is_token(other.as_bytes()), "{other}");
        }
    }
}
