//! Answers the requests by which a provider makes sure that an endpoint is ours. They are no events.
//!
//! A handshake that need not be verified tells nothing that the request did not bring, except what is keyed with the secret:
//! a MAC or a signature over values of the request, as the provider demands it.

use grapnel_crds as crds;
use grapnel_crds::HandshakeAuth;
use http::Response;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use secrecy::zeroize::Zeroizing;

use crate::constant_time::Known;
use crate::host_pattern::host_matches;
use crate::request::template::{Context, Keyed, Keyless, Template, Url};
use crate::request::{Incoming, Place};
use crate::verification::Verifier;

/// The longest body of an answer. Challenges are short.
const MAX_BODY_BYTES: usize = 8 * 1024;

/// The longest challenge that is answered with the key by anyone's wish.
const MAX_TOKEN_BYTES: usize = 256;

/// The handshakes of an integration, compiled once for each of its versions.
pub struct Handshakes {
    all: Vec<Handshake>,
    /// The current secret, for conditions that are derived from it.
    secret: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshakes").field("all", &self.all).finish_non_exhaustive()
    }
}

/// One of them.
#[derive(Debug)]
pub struct Handshake {
    pub name: String,
    method: Method,
    conditions: Vec<Condition>,
    otherwise_forbidden: Vec<Condition>,
    verify: HandshakeAuth,
    status: StatusCode,
    headers: Vec<(HeaderName, Template)>,
    content_type: Option<HeaderValue>,
    body: Option<Template>,
    capture: Option<Place>,
    confirm: Option<Confirm>,
}

#[derive(Debug)]
struct Condition {
    place: Place,
    equals: Option<Template>,
}

#[derive(Debug)]
struct Confirm {
    from: Place,
    hosts: Vec<String>,
}

/// What a request that matched came to.
#[derive(Debug)]
pub enum Answer<'a> {
    Handshake(&'a Handshake),
    /// It is a handshake's request, without what proves that it is the provider's.
    Forbidden,
}

fn compile_conditions(conditions: &[crds::HandshakeCondition]) -> Option<Vec<Condition>> {
    let condition = |condition: &crds::HandshakeCondition| {
        let equals = condition.equals.as_deref().map(Template::parse);
        Some(Condition {
            place: Place::parse(&condition.source)?,
            equals: match equals {
                Some(template) => Some(template?),
                None => None,
            },
        })
    };
    conditions.iter().map(condition).collect()
}

fn compile(handshake: &crds::Handshake) -> Option<Handshake> {
    let respond = &handshake.respond;
    let header = |header: &crds::HandshakeHeader| {
        Some((HeaderName::try_from(&header.name).ok()?, Template::parse(&header.value)?))
    };
    let optional = |text: &Option<String>| match text {
        Some(text) => Place::parse(text).map(Some),
        None => Some(None),
    };
    Some(Handshake {
        name: handshake.name.clone(),
        method: match handshake.matches.method {
            crds::HandshakeMethod::Post => Method::POST,
            crds::HandshakeMethod::Get => Method::GET,
            crds::HandshakeMethod::Head => Method::HEAD,
            crds::HandshakeMethod::Options => Method::OPTIONS,
        },
        conditions: compile_conditions(&handshake.matches.conditions)?,
        otherwise_forbidden: compile_conditions(&handshake.matches.otherwise_forbidden)?,
        verify: handshake.verify,
        status: u16::try_from(respond.status).ok().and_then(|status| StatusCode::from_u16(status).ok())?,
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
        confirm: match &handshake.confirm_url {
            Some(confirm) => {
                Some(Confirm { from: Place::parse(&confirm.from)?, hosts: confirm.hosts.clone() })
            }
            None => None,
        },
    })
}

impl Handshakes {
    /// # Errors
    /// The name of the handshake that cannot be compiled, or that asks the key for what it cannot compute.
    pub fn new(handshakes: &[crds::Handshake], verifier: &Verifier, secret: &[u8]) -> Result<Self, String> {
        let mut all = Vec::with_capacity(handshakes.len());
        for handshake in handshakes {
            let compiled = compile(handshake).filter(|compiled| {
                let headers = compiled.headers.iter().map(|(_, template)| template);
                headers.chain(&compiled.body).all(|template| verifier.can_answer(template))
            });
            all.push(compiled.ok_or_else(|| handshake.name.clone())?);
        }
        Ok(Self { all, secret: Zeroizing::new(secret.to_vec()) })
    }

    /// Whether any is for requests of this method.
    pub fn has_method(&self, method: &Method) -> bool {
        self.all.iter().any(|handshake| handshake.method == *method)
    }

    /// The handshake that the request is, among those that need this proof.
    pub fn find(&self, incoming: &Incoming<'_>, proof: HandshakeAuth) -> Option<Answer<'_>> {
        let candidates = self.all.iter().filter(|handshake| handshake.verify == proof);
        let mut candidates = candidates.filter(|handshake| handshake.method == *incoming.method);
        let found = candidates.find(|handshake| self.all_hold(&handshake.conditions, incoming))?;
        if self.all_hold(&found.otherwise_forbidden, incoming) {
            return Some(Answer::Handshake(found));
        }
        Some(Answer::Forbidden)
    }

    fn all_hold(&self, conditions: &[Condition], incoming: &Incoming<'_>) -> bool {
        let context =
            Context { incoming: *incoming, timestamp: b"", secret: &self.secret, url: Url::AsReceived };
        conditions.iter().all(|condition| {
            let Some(value) = condition.place.find(incoming) else { return false };
            match &condition.equals {
                Some(expected) => Known(expected.build(&context, &Keyless)).is(&value),
                None => !value.is_empty(),
            }
        })
    }
}

impl Handshake {
    /// The answer; `None` when the challenge is none: too long, or what only a webhook could be.
    pub fn respond(&self, incoming: &Incoming<'_>, verifier: &Verifier) -> Option<Response<Vec<u8>>> {
        if self.verify == HandshakeAuth::Unverified && !self.asks_only_about_tokens(incoming) {
            return None;
        }
        let key: &dyn Keyed = verifier.key().unwrap_or(&Keyless);
        let context = Context { incoming: *incoming, timestamp: b"", secret: b"", url: Url::AsReceived };
        let body = self.body.as_ref().map(|body| body.build(&context, key)).unwrap_or_default();
        if body.len() > MAX_BODY_BYTES {
            return None;
        }
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(content_type) = &self.content_type {
            headers.insert(header::CONTENT_TYPE, content_type.clone());
        }
        // Part of the body is the caller's.
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        for (name, template) in &self.headers {
            let value = template.build(&context, key);
            if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_bytes(&value)) {
                headers.insert(name, value);
            }
        }
        Some(response)
    }

    /// Whoever may ask without a proof must not have a webhook signed for them: the key that answers a challenge is often
    /// the one that webhooks are signed with.
    fn asks_only_about_tokens(&self, incoming: &Incoming<'_>) -> bool {
        let templates = self.headers.iter().map(|(_, template)| template).chain(&self.body);
        let mut places = templates.flat_map(Template::keyed_places);
        places.all(|place| place.find(incoming).is_some_and(|value| is_token(&value)))
    }

    /// The secret that the request carries for us.
    pub fn captured(&self, incoming: &Incoming<'_>) -> Option<Zeroizing<Vec<u8>>> {
        let value = self.capture.as_ref()?.find(incoming)?;
        (!value.is_empty() && value.len() <= MAX_BODY_BYTES).then(|| Zeroizing::new(value.into_owned()))
    }

    /// The URL to call before the answer, or that there is none that may be called.
    pub fn confirmation(&self, incoming: &Incoming<'_>) -> Option<Result<url::Url, NotPermitted>> {
        let confirm = self.confirm.as_ref()?;
        let text = confirm.from.find(incoming).unwrap_or_default();
        let url = std::str::from_utf8(&text).ok().and_then(|text| url::Url::parse(text).ok());
        let permitted = url.filter(|url| {
            url.scheme() == "https"
                && url.port().is_none()
                && url.username().is_empty()
                && url.password().is_none()
                && url
                    .host_str()
                    .is_some_and(|host| confirm.hosts.iter().any(|pattern| host_matches(pattern, host)))
        });
        Some(permitted.ok_or(NotPermitted))
    }
}

/// Short, and of characters that make no JSON, no form and no XML. Padding of base64 may follow.
fn is_token(value: &[u8]) -> bool {
    let length = value.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/:".contains(byte);
    (1..=MAX_TOKEN_BYTES).contains(&length) && value[..length].iter().all(allowed)
}

/// The request names no URL that the handshake may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotPermitted;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_are_answered_with_the_key_without_a_proof() {
        for token in ["9b4507b3-9040-4669-9ca3-6b94edb50553", "NDg2ZTM0+/==", "a"] {
            assert!(is_token(token.as_bytes()), "{token}");
        }
        for other in ["", "==", r#"{"a":1}"#, "a=b", "<a/>", "a b", "[1]", &"x".repeat(257)] {
            assert!(!is_token(other.as_bytes()), "{other}");
        }
    }
}
