//! What tells a webhook from all others of its integration: two that are different never have the same identity, and a repeated
//! one has it again.
//!
//! With an id of the provider it is the id, within its scope if it has one. Without an id it is what came: the body, and the
//! type, the subject and the scope where these are outside the body; of a request with several events it is the element, and
//! these where they are outside it. An id outside the element does not tell it from others, so the element counts too. A value that
//! cannot be stored counts all the same.
//!
//! What came is without the fields that tell of the attempt only, except for those that the type, the subject or the scope is
//! read from. They count if the JSON has no canonical form that is its own: then its bytes count.

use std::fmt;

use sha2::{Digest, Sha256};

use super::field_reader::{FieldReader, FoundText};
use super::field_source::FieldSource;
use super::{EventFields, InvalidEvent, Mapper};
use crate::ids::{EventId, IntegrationId};
use crate::payload::BodyForm;
use crate::request::Source;
use crate::request::json::{self, Omitted};

/// The identity of a webhook.
#[derive(Debug, PartialEq)]
pub struct Identity {
    pub name: IdentityName,
    /// The identity that the previous version gave the webhook, if it was another.
    pub former: Option<FormerIdentity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityName {
    /// The provider's id, as the event has it.
    Id,
    /// A digest, and what it is of.
    Digest(&'static str, [u8; 32]),
    /// Every request is an event.
    Request,
}

impl fmt::Display for IdentityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => f.write_str("the id"),
            Self::Digest(of, digest) => write!(f, "{of} {}", hex::encode(&digest[..8])),
            Self::Request => f.write_str("nothing: every one is an event"),
        }
    }
}

/// An identity that the previous version gave. Other webhooks may have had it too, so it counts only for an event with the
/// same body, type, subject and headers.
#[derive(Debug, PartialEq)]
pub struct FormerIdentity {
    pub name: FormerName,
    /// The headers that the identity is read from today, with their values.
    pub headers: Vec<(String, String)>,
}

#[derive(Debug, PartialEq)]
pub enum FormerName {
    Id(String),
    /// The digest of the canonical body.
    Payload([u8; 32]),
}

/// What makes the identity.
pub(super) struct NamedFields<'f, 's> {
    pub(super) id: Option<&'f FoundText<'s>>,
    pub(super) is_id_kept: bool,
    pub(super) event_type: &'f FoundText<'s>,
    pub(super) subject: Option<&'f FoundText<'s>>,
    /// The body, or the element of it, as received.
    pub(super) body: &'f [u8],
}

impl Identity {
    /// The identity of a webhook in JSON of which nothing but its content is known.
    pub(super) fn of_content(body: &[u8], omitted: &Omitted) -> Self {
        let name = match content(BodyForm::Json, body, omitted) {
            (written, true) => IdentityName::Digest("payload", written),
            (_, false) => IdentityName::Digest("webhook", digest(&[b"received", &Sha256::digest(body)])),
        };
        Self { name, former: None }
    }

    /// Returns the idempotency key of the event: unique among all integrations.
    pub fn key(
        &self,
        integration_id: IntegrationId,
        event_id: EventId,
        external_event_id: Option<&str>,
    ) -> String {
        match self.name {
            IdentityName::Id => format!("{integration_id}:{}", external_event_id.unwrap_or_default()),
            IdentityName::Digest(of, digest) => format!("{integration_id}:{of}:{}", hex::encode(digest)),
            IdentityName::Request => format!("{integration_id}:request:{event_id}"),
        }
    }
}

impl FormerIdentity {
    /// Returns the idempotency key of the previous version.
    pub fn key(&self, integration_id: IntegrationId) -> String {
        match &self.name {
            FormerName::Id(id) => format!("{integration_id}:{id}"),
            FormerName::Payload(digest) => format!("{integration_id}:payload:{}", hex::encode(digest)),
        }
    }
}

impl Mapper {
    pub(super) fn identity(
        &self,
        reader: &FieldReader<'_, '_>,
        form: BodyForm,
        fields: &NamedFields<'_, '_>,
    ) -> Result<Identity, InvalidEvent> {
        let scope = reader.first_text(&self.id_scope, false)?;
        let Some(id) = fields.id else {
            if self.is_every_one_an_event() {
                return Ok(Identity { name: IdentityName::Request, former: None });
            }
            return self.identity_of_content(reader, form, fields, scope.as_ref());
        };
        let is_element = reader.element.is_some();
        if is_element && id.source.element_pointer().is_none() {
            // It is the same for all elements of the request, so it cannot tell them apart.
            let (kind, content) = exact_content(form, fields.body, self.attempt_fields.of(reader));
            let scope = scope.as_ref().map_or("", |scope| &*scope.text);
            let parts = [id.text.as_bytes(), scope.as_bytes(), kind, &content];
            return Ok(Identity { name: IdentityName::Digest("element", digest(&parts)), former: None });
        }
        // An id that is its own scope is unique without one.
        let scope = scope.filter(|scope| scope.text != id.text);
        let name = match &scope {
            Some(scope) => {
                IdentityName::Digest("scoped", digest(&[scope.text.as_bytes(), id.text.as_bytes()]))
            }
            None if fields.is_id_kept => IdentityName::Id,
            None => IdentityName::Digest("sha256", Sha256::digest(id.text.as_bytes()).into()),
        };
        if is_element || scope.is_none() && self.former_external_event_id.is_empty() {
            return Ok(Identity { name, former: None });
        }
        let former = match self.former_id(reader, fields)? {
            Some(former) if name == IdentityName::Id && former == id.text => None,
            Some(former) => Some(FormerName::Id(former)),
            None => Some(FormerName::Payload(content(form, fields.body, Omitted::NOTHING).0)),
        };
        Ok(Identity {
            name,
            former: former.and_then(|name| former_identity(name, &[Some(id), scope.as_ref()])),
        })
    }

    /// Whether every request, or every element of one, is an event, also an equal one.
    fn is_every_one_an_event(&self) -> bool {
        self.external_event_id.iter().any(|source| matches!(source, FieldSource::Request))
    }

    /// Returns the identity of an element of which no field is known.
    pub(super) fn identity_of_unmapped(&self, received: &[u8]) -> Identity {
        if self.is_every_one_an_event() {
            return Identity { name: IdentityName::Request, former: None };
        }
        Identity::of_content(received, self.attempt_fields.of_element())
    }

    fn identity_of_content(
        &self,
        reader: &FieldReader<'_, '_>,
        form: BodyForm,
        fields: &NamedFields<'_, '_>,
        scope: Option<&FoundText<'_>>,
    ) -> Result<Identity, InvalidEvent> {
        let omitted = self.attempt_fields.of(reader);
        let (written, is_exact) = content(form, fields.body, omitted);
        let outside = [Some(fields.event_type), fields.subject, scope]
            .map(|field| field.filter(|field| field.is_outside(reader, omitted)));
        if reader.element.is_some() && outside.iter().all(Option::is_none) {
            return Ok(Identity::of_content(fields.body, omitted));
        }
        let former = self.former_id(reader, fields)?.map(FormerName::Id);
        // The previous version omitted nothing.
        let whole = if omitted.is_empty() { written } else { content(form, fields.body, Omitted::NOTHING).0 };
        if is_exact && outside.iter().all(Option::is_none) {
            let former = former.or_else(|| (whole != written).then_some(FormerName::Payload(whole)));
            let former = former.and_then(|name| former_identity(name, &[]));
            return Ok(Identity { name: IdentityName::Digest("payload", written), former });
        }
        let received: [u8; 32] = if is_exact { written } else { Sha256::digest(fields.body).into() };
        let kind: &[u8] = if is_exact { b"written" } else { b"received" };
        let mut parts: Vec<&[u8]> = vec![kind, &received];
        for (name, field) in [&b"type"[..], b"subject", b"scope"].into_iter().zip(&outside) {
            if let Some(field) = field {
                parts.extend([name, field.text.as_bytes()]);
            }
        }
        let former = if reader.element.is_some() {
            None
        } else {
            former_identity(former.unwrap_or(FormerName::Payload(whole)), &outside)
        };
        Ok(Identity { name: IdentityName::Digest("webhook", digest(&parts)), former })
    }

    /// Returns the id that the previous version read; `None` if it found none.
    fn former_id(
        &self,
        reader: &FieldReader<'_, '_>,
        fields: &NamedFields<'_, '_>,
    ) -> Result<Option<String>, InvalidEvent> {
        if self.former_external_event_id.is_empty() {
            return Ok(fields.id.map(|id| id.text.clone().into_owned()));
        }
        let former = reader.first_text(&self.former_external_event_id, false)?;
        Ok(former.map(|id| id.text.into_owned()))
    }
}

impl Mapper {
    /// Returns the identity that the previous version gave a request which it did not split, and whose only element is the event;
    /// `None` if that was the same.
    pub(super) fn former_of_whole(
        &self,
        reader: &FieldReader<'_, '_>,
        event: &EventFields,
        received_body: &[u8],
    ) -> Option<FormerIdentity> {
        let former = reader.first_text(&self.former_external_event_id, false).ok().flatten();
        let name = match former {
            Some(id)
                if event.identity.name == IdentityName::Id
                    && event.external_event_id.as_deref() == Some(&*id.text) =>
            {
                return None;
            }
            Some(id) => FormerName::Id(id.text.into_owned()),
            None => FormerName::Payload(content(BodyForm::Json, received_body, Omitted::NOTHING).0),
        };
        Some(FormerIdentity { name, headers: Vec::new() })
    }
}

impl FoundText<'_> {
    /// Whether the text is outside of what counts of the event.
    fn is_outside(&self, reader: &FieldReader<'_, '_>, omitted: &Omitted) -> bool {
        if reader.element.is_some() {
            self.source.is_outside_element()
                || self.source.element_pointer().is_some_and(|pointer| omitted.covers(pointer))
        } else {
            self.source.is_outside_body()
                || self.source.pointer().is_some_and(|pointer| omitted.covers(pointer))
        }
    }
}

/// Returns the former identity with the headers to compare; `None` if the identity is read from the query, which is not stored:
/// nothing could tell whether the event was this webhook's.
fn former_identity(name: FormerName, read: &[Option<&FoundText<'_>>]) -> Option<FormerIdentity> {
    let mut headers = Vec::new();
    for field in read.iter().flatten() {
        match field.source {
            FieldSource::Value(Source::Header(header)) => {
                headers.push((header.as_str().to_owned(), field.text.clone().into_owned()));
            }
            FieldSource::Value(Source::Query(_)) => return None,
            _ => {}
        }
    }
    Some(FormerIdentity { name, headers })
}

/// Returns the digest of a body: the same for equal JSON, whatever its white space, the order of its members and what is omitted.
/// The other value says whether no other JSON has it.
fn content(form: BodyForm, body: &[u8], omitted: &Omitted) -> ([u8; 32], bool) {
    let text = match form {
        BodyForm::Json => std::str::from_utf8(json::without_byte_order_mark(body)).ok(),
        BodyForm::Form | BodyForm::Opaque => None,
    };
    let Some(text) = text else { return (Sha256::digest(body).into(), true) };
    let mut canonical = Vec::with_capacity(body.len());
    let is_exact = json::canonical(text.trim_ascii(), omitted, &mut canonical);
    (Sha256::digest(&canonical).into(), is_exact)
}

/// Returns a digest of a body that no other has, and whether it is of the JSON as written or of the bytes as received.
fn exact_content(form: BodyForm, body: &[u8], omitted: &Omitted) -> (&'static [u8], [u8; 32]) {
    match content(form, body, omitted) {
        (written, true) => (b"written", written),
        (_, false) => (b"received", Sha256::digest(body).into()),
    }
}

/// Returns a digest of several parts, with their lengths, so that no other parts have it.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
