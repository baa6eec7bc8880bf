//! An event to be stored, and the columns that depend on the form in which it is stored.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use grapnel_core::filter::DestinationSet;
use grapnel_core::ids::{EventId, IntegrationId, RequestId};
use grapnel_core::payload::{BodyForm, DeliveredAs};
use jiff::Timestamp;
use uuid::Uuid;

use crate::packed_headers;
use crate::stored_form::{APART, StoredForm};

/// A verified and normalized webhook, ready to be stored.
#[derive(Debug)]
pub struct NewEvent {
    /// UUIDv7 of the moment of receipt.
    pub id: EventId,
    pub integration_id: IntegrationId,
    pub provider: Arc<str>,
    pub external_event_id: Option<String>,
    pub event_type: String,
    pub subject: Option<String>,
    pub occurred_at: Timestamp,
    pub received_at: Timestamp,
    pub correlation_id: Arc<str>,
    pub traceparent: Option<Arc<str>>,
    pub source_ip: IpAddr,
    pub request: NewRequest,
    /// The member of the normalized payload that carries the provider's payload.
    pub payload_key: Arc<str>,
    pub payload: NewPayload,
    /// How the payload was read.
    pub body_form: BodyForm,
    pub delivered_as: DeliveredAs,
    /// The verification secret that verified it: 0 is the current one.
    pub secret_index: usize,
    pub idempotency_key: String,
    /// The first 16 bytes of the SHA-256 of `idempotency_key`.
    pub key_hash: Uuid,
    /// The key that the previous version gave the webhook, if it was another.
    pub former_key: Option<FormerKey>,
    /// What the audit entry of its receipt has to say, as JSON text. Without it the entry is not stored but derived.
    pub audit_details: Option<String>,
    /// Names of the destinations, at least one.
    pub destinations: Arc<[Arc<str>]>,
    /// Those of the destinations to which nothing is delivered now: their deliveries are held.
    pub held: DestinationSet,
    /// Those of the destinations whose filters leave the event out.
    pub filtered: DestinationSet,
}

/// The request that an event came with.
#[derive(Debug)]
pub enum NewRequest {
    /// The event is all of it.
    Whole { headers: NewHeaders, raw_body: Bytes },
    /// It has several events, and is stored once for all of them.
    Shared {
        request: Arc<SharedRequest>,
        /// The index of the event among those of the request, in the order of the document.
        position: usize,
    },
}

/// The headers of a request, secrets redacted, in the form in which they are stored.
#[derive(Debug)]
pub enum NewHeaders {
    /// JSON text: `[[name, value], …]`.
    Json(String),
    /// As by [`pack`](crate::packed_headers::pack).
    Packed(Vec<u8>),
}

/// A request with several events.
#[derive(Debug)]
pub struct SharedRequest {
    /// UUIDv7 of the same millisecond as the ids of its events, and before them.
    pub id: RequestId,
    /// JSON text: `[[name, value], …]`, secrets redacted.
    pub headers: String,
    pub raw_body: Bytes,
    /// The number of its events, those included that turn out to be duplicates.
    pub count: usize,
}

/// The provider's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewPayload {
    /// This part of the raw body.
    Slice(Range<usize>),
    /// A text that is no part of the raw body as it came, such as the field of a form.
    Own(Bytes),
}

/// A key that a previous version gave. Different webhooks could have the same, so it counts only for an event with the same
/// body, type and subject, and with these headers. The statement that compares them reads no packed headers, so a key of a version that packs cannot be
/// a former one before it does.
#[derive(Debug)]
pub struct FormerKey {
    /// The first 16 bytes of the SHA-256 of the key.
    pub hash: Uuid,
    /// JSON text: `[[name, value], …]`.
    pub headers: String,
    /// The body as the previous version stored it, if that was not as it is now: with its token, or with the event.
    pub body: Option<Bytes>,
}

/// The columns `headers` and `packed_headers` of an event that has no headers of its own.
const NO_HEADERS: (&str, Option<&[u8]>) = ("[]", None);

/// The columns that depend on the form.
pub(super) struct PlacedEvent<'a> {
    /// JSON text; without any when they are packed.
    pub(super) headers: &'a str,
    pub(super) packed_headers: Option<&'a [u8]>,
    pub(super) raw_body: &'a [u8],
    pub(super) payload_start: usize,
    pub(super) payload_length: usize,
    pub(super) body_form: i16,
}

impl NewEvent {
    /// Whether a process of before could read the event only in the form [`StoredForm::Alone`].
    pub fn is_apart(&self) -> bool {
        matches!(self.request, NewRequest::Shared { .. }) || matches!(self.payload, NewPayload::Own(_))
    }

    /// Whether it has what few events have, and costs the others of its batch a few arrays.
    pub(super) fn is_rare(&self, form: StoredForm) -> bool {
        let is_apart = form == StoredForm::Apart && self.is_apart();
        is_apart || self.former_key.is_some() || self.audit_details.is_some()
    }

    /// Returns the bytes that its own row has in the form [`StoredForm::Apart`].
    pub fn own_bytes(&self) -> usize {
        let body = match &self.request {
            NewRequest::Whole { raw_body, .. } => raw_body.len(),
            NewRequest::Shared { .. } => 0,
        };
        let NewPayload::Own(payload) = &self.payload else { return body };
        body + payload.len()
    }

    /// Returns the request that it shares with others.
    pub fn shared_request(&self) -> Option<&Arc<SharedRequest>> {
        match &self.request {
            NewRequest::Whole { .. } => None,
            NewRequest::Shared { request, .. } => Some(request),
        }
    }

    /// Whether the event can be found through its key by who knows the provider's id: the key is `INTEGRATION:EXTERNAL_ID`.
    fn has_external_id_in_key(&self) -> bool {
        let mut integration = Uuid::encode_buffer();
        let integration = &*self.integration_id.uuid().hyphenated().encode_lower(&mut integration);
        let id = self.idempotency_key.strip_prefix(integration).and_then(|rest| rest.strip_prefix(':'));
        id.is_some() && id == self.external_event_id.as_deref()
    }

    /// Returns the key as it is stored: empty when the parts that it consists of are.
    pub(super) fn stored_key(&self) -> &str {
        if self.has_external_id_in_key() { "" } else { &self.idempotency_key }
    }

    pub(super) fn position(&self) -> Option<i32> {
        match self.request {
            NewRequest::Whole { .. } => None,
            NewRequest::Shared { position, .. } => Some(position as i32),
        }
    }

    /// Returns the payload if it is stored in a column of its own.
    pub(super) fn own_payload(&self) -> Option<&[u8]> {
        match &self.payload {
            NewPayload::Slice(_) => None,
            NewPayload::Own(payload) => Some(payload),
        }
    }

    pub(super) fn place(&self, form: StoredForm) -> PlacedEvent<'_> {
        let code = self.body_form.code();
        match (&self.request, &self.payload, form) {
            (NewRequest::Whole { headers, raw_body }, NewPayload::Slice(range), _) => {
                PlacedEvent::new(headers.columns(), raw_body, range.start, range.len(), code)
            }
            (NewRequest::Whole { headers, raw_body }, NewPayload::Own(payload), StoredForm::Apart) => {
                PlacedEvent::new(headers.columns(), raw_body, 0, payload.len(), code + APART)
            }
            (NewRequest::Shared { .. }, payload, StoredForm::Apart) => {
                let (start, length) = match payload {
                    NewPayload::Slice(range) => (range.start, range.len()),
                    NewPayload::Own(payload) => (0, payload.len()),
                };
                PlacedEvent::new(NO_HEADERS, b"", start, length, code + APART)
            }
            // The body as it came is what is delivered, so it is what must be there.
            (NewRequest::Whole { headers, raw_body }, NewPayload::Own(_), StoredForm::Alone)
                if self.delivered_as == DeliveredAs::Raw =>
            {
                PlacedEvent::new(headers.columns(), raw_body, 0, raw_body.len(), BodyForm::Opaque.code())
            }
            (NewRequest::Whole { headers, .. }, NewPayload::Own(payload), StoredForm::Alone) => {
                PlacedEvent::new(headers.columns(), payload, 0, payload.len(), code)
            }
            (NewRequest::Shared { request, .. }, payload, StoredForm::Alone) => {
                let payload = match payload {
                    NewPayload::Slice(range) => &request.raw_body[range.clone()],
                    NewPayload::Own(payload) => payload,
                };
                PlacedEvent::new((&request.headers, None), payload, 0, payload.len(), code)
            }
        }
    }
}

impl NewRequest {
    /// Returns the headers as JSON text: `[[name, value], …]`.
    pub fn headers_as_json(&self) -> Cow<'_, str> {
        match self {
            Self::Whole { headers: NewHeaders::Json(text), .. } => Cow::Borrowed(text),
            Self::Whole { headers: NewHeaders::Packed(packed), .. } => {
                packed_headers::unpack_as_json(packed).map_or(Cow::Borrowed(NO_HEADERS.0), Cow::Owned)
            }
            Self::Shared { request, .. } => Cow::Borrowed(&request.headers),
        }
    }
}

impl NewHeaders {
    /// Returns the columns `headers` and `packed_headers`.
    fn columns(&self) -> (&str, Option<&[u8]>) {
        match self {
            Self::Json(text) => (text, None),
            Self::Packed(packed) => (NO_HEADERS.0, Some(packed)),
        }
    }
}

impl<'a> PlacedEvent<'a> {
    fn new(
        (headers, packed_headers): (&'a str, Option<&'a [u8]>),
        raw_body: &'a [u8],
        payload_start: usize,
        payload_length: usize,
        body_form: i16,
    ) -> Self {
        Self { headers, packed_headers, raw_body, payload_start, payload_length, body_form }
    }
}
