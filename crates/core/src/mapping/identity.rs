//! What tells a webhook from all others of its integration: two that are different never have the same identity, and a repeated
//! one has it again.
//!
//! With an id of the provider it is the id, within its scope if it has one. Without an id it is what came: the body, and the
//! type, the subject and the scope where these are outside the body. A value that cannot be stored counts all the same.

use sha2::{Digest, Sha256};

use super::field_reader::{FieldReader, FoundText};
use super::field_source::FieldSource;
use super::{InvalidEvent, Mapper};
use crate::ids::{EventId, IntegrationId};
use crate::payload::BodyForm;
use crate::request::Source;
use crate::request::json;

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
    /// The body as received.
    pub(super) body: &'f [u8],
}

impl Identity {
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
            if self.external_event_id.iter().any(|source| matches!(source, FieldSource::Request)) {
                return Ok(Identity { name: IdentityName::Request, former: None });
            }
            return self.identity_of_content(reader, form, fields, scope.as_ref());
        };
        // An id that is its own scope is unique without one.
        let scope = scope.filter(|scope| scope.text != id.text);
        let name = match &scope {
            Some(scope) => {
                IdentityName::Digest("scoped", digest(&[scope.text.as_bytes(), id.text.as_bytes()]))
            }
            None if fields.is_id_kept => IdentityName::Id,
            None => IdentityName::Digest("sha256", Sha256::digest(id.text.as_bytes()).into()),
        };
        if scope.is_none() && self.former_external_event_id.is_empty() {
            return Ok(Identity { name, former: None });
        }
        let former = match self.former_id(reader, fields)? {
            Some(former) if name == IdentityName::Id && former == id.text => None,
            Some(former) => Some(FormerName::Id(former)),
            None => Some(FormerName::Payload(content(form, fields.body).0)),
        };
        Ok(Identity {
            name,
            former: former.and_then(|name| former_identity(name, &[Some(id), scope.as_ref()])),
        })
    }

    fn identity_of_content(
        &self,
        reader: &FieldReader<'_, '_>,
        form: BodyForm,
        fields: &NamedFields<'_, '_>,
        scope: Option<&FoundText<'_>>,
    ) -> Result<Identity, InvalidEvent> {
        let (written, is_exact) = content(form, fields.body);
        let outside = [Some(fields.event_type), fields.subject, scope]
            .map(|field| field.filter(|field| field.source.is_outside_body()));
        let former = self.former_id(reader, fields)?.map(FormerName::Id);
        if is_exact && outside.iter().all(Option::is_none) {
            let former = former.and_then(|name| former_identity(name, &[]));
            return Ok(Identity { name: IdentityName::Digest("payload", written), former });
        }
        let received: [u8; 32] = if is_exact { written } else { Sha256::digest(fields.body).into() };
        let mut parts: Vec<&[u8]> = vec![if is_exact { b"written" } else { b"received" }, &received];
        for (name, field) in [&b"type"[..], b"subject", b"scope"].into_iter().zip(&outside) {
            if let Some(field) = field {
                parts.extend([name, field.text.as_bytes()]);
            }
        }
        let former = former_identity(former.unwrap_or(FormerName::Payload(written)), &outside);
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

/// Returns the digest of a body: the same for equal JSON, whatever its white space and the order of its members. The other
/// value says whether no other JSON has it.
fn content(form: BodyForm, body: &[u8]) -> ([u8; 32], bool) {
    let text = match form {
        BodyForm::Json => std::str::from_utf8(json::without_byte_order_mark(body)).ok(),
        BodyForm::Form | BodyForm::Opaque => None,
    };
    let Some(text) = text else { return (Sha256::digest(body).into(), true) };
    let mut canonical = Vec::with_capacity(body.len());
    let is_exact = json::canonical(text.trim_ascii(), &mut canonical);
    (Sha256::digest(&canonical).into(), is_exact)
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
