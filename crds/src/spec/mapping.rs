//! How a request becomes an event: where to find its fields, what to deliver, and how to acknowledge it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults::{list_or_default, or_default};
use super::source::{content_type_items, source_items};
use crate::rules::provider as rules;

/// Where to find the fields of an event in a request, and what to deliver. Each field that is set takes precedence over
/// the preset's. A source is /POINTER (a JSON Pointer to a string in the body), json:/POINTER (to a string, a number or
/// a boolean), header:NAME, query:NAME, form:NAME (a field of a form) or literal:TEXT; and, where split is set,
/// element:/POINTER (as json: in the element).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = rules::BODY_FIELD_ACCEPTED)]
pub struct Mapping {
    /// Where a JSON body has several events: at most 4 paths, each a JSON Pointer of at most 256 characters in which *
    /// stands for every item of an array, such as /events/*, or /* for a body that is an array. None may be inside
    /// another. Each value there is an event: it is delivered alone and deduplicated by itself, and all of a request are
    /// accepted together. An item in which no path goes on is an event too, and a body without any such value is one
    /// event as a whole. An event that lacks a required field has the type unmapped. A request with more than 5000 events
    /// is answered with 413. payload applies only to a body that is one event. Default: the preset's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("items" = source_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::SPLIT, validation = rules::SPLIT_APART)]
    pub split: Vec<String>,

    /// The content-types whose bodies are split, in lower case and without parameters: at most 4, of at most 128
    /// characters each. Default: the preset's; without any, every JSON body is split.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("items" = content_type_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::CONTENT_TYPES)]
    pub split_content_types: Vec<String>,

    /// The provider's id of the event, which identifies repeated deliveries: at most 4 sources, of which the first
    /// present one is used. request means no id: every request is an event. Default: the preset's; without any, webhooks
    /// with equal bodies, types and subjects are the same event. An id of more than 512 bytes identifies them too, and is
    /// left out of the event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("items" = source_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::MAPPED_ID)]
    pub external_event_id: Vec<String>,

    /// What the id is unique within, such as the source of a CloudEvent: at most 4 sources, of which the first present
    /// one is used. Its value is part of what identifies repeated deliveries; without an id too, beside the body.
    /// element: means all of the element, for an id that several elements share. Default: the preset's; without any, the
    /// id is unique by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("items" = source_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::MAPPED_SCOPE)]
    pub id_scope: Vec<String>,

    /// The fields that tell of the attempt only, such as a count of attempts: at most 8, each json:/POINTER for a body that
    /// is one event and no form, or element:/POINTER for an element. A repeated delivery in which only these differ is
    /// recognized: where there is no id, they are left out of the content that identifies it. A type, a subject and a
    /// scope that are read from one count all the same. Default: the preset's, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("items" = source_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::ATTEMPT_FIELDS)]
    pub attempt_fields: Vec<String>,

    /// The event's type: at most 4 sources, of which the first present one is used. Default: the preset's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("items" = source_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::MAPPED)]
    pub event_type: Vec<String>,

    /// The time of the event: at most 4 sources, of which the first present one is used. Default: the preset's; without
    /// any, the time of receipt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("items" = source_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::MAPPED)]
    pub occurred_at: Vec<String>,

    /// The format of the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurred_at_format: Option<TimeFormat>,

    /// The subject of the event: at most 4 sources, of which the first present one is used. One of more than 512 bytes
    /// is left out. Default: the preset's; an event may have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("items" = source_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::MAPPED)]
    pub subject: Vec<String>,

    /// Fields without which a webhook is rejected as malformed, and an element of it becomes unmapped: at most 4. Default: the preset's. eventType is always
    /// required.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub required: Vec<MappedField>,

    /// The part of the body to deliver, as a JSON Pointer to an object: at most 256 characters. Default: the preset's,
    /// or empty, which is the whole body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = rules::POINTER)]
    pub payload: Option<String>,

    /// The field of a form that has the JSON, such as payload: at most 128 characters. In a form with this field, /POINTER,
    /// json:/POINTER and payload are of that JSON, and it is what is delivered; raw deliveries have the form. Any other
    /// body is read as without this. A scheme and a handshake read the body itself. Default: the preset's, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub body_field: Option<String>,

    /// The member of the normalized payload that carries the delivered part: at most 64 characters. Default: the
    /// preset's, or data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = rules::MEMBER)]
    pub payload_name: Option<String>,

    /// The accepted kinds of bodies, by content-type; others are answered with 415. At most 4. Default: the preset's,
    /// or json, and with bodyField also form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub accept: Vec<BodyKind>,

    /// The format of deliveries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver: Option<DeliveryFormat>,
}

/// The format of the time. Default: the preset's, or rfc3339. One of rfc3339, unix (seconds since 1970, with a fraction
/// or without), unixMilliseconds and httpDate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TimeFormat {
    /// Such as 2026-01-31T10:00:00Z.
    Rfc3339,
    /// Seconds since 1970, with a fraction or without.
    Unix,
    /// Milliseconds since 1970.
    UnixMilliseconds,
    /// Such as Sat, 31 Jan 2026 10:00:00 GMT.
    HttpDate,
}

/// A field that a webhook must have. One of externalEventId, occurredAt and subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MappedField {
    /// The provider's id of the event.
    ExternalEventId,
    /// The time of the event.
    OccurredAt,
    /// The subject.
    Subject,
}

/// A kind of body. One of json, anyjson (JSON with any content-type), form (application/x-www-form-urlencoded), multipart
/// (multipart/form-data; its text fields are read and delivered as those of a form, and its files are in the raw body only)
/// and opaque (anything, such as XML).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BodyKind {
    /// JSON by its content-type, or without one.
    Json,
    /// JSON with any content-type.
    Anyjson,
    /// A form.
    Form,
    /// A form with parts, which may be files.
    Multipart,
    /// Anything else; its contents are not read.
    Opaque,
}

/// The format of deliveries. Default: the preset's, or normalized. One of normalized (JSON with provider, eventType,
/// externalEventId and the payload), raw (the body's bytes with its content-type) and cloudevents (a CloudEvents 1.0
/// envelope in JSON).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryFormat {
    /// The normalized payload.
    Normalized,
    /// The body as it was received.
    Raw,
    /// A CloudEvents 1.0 envelope.
    Cloudevents,
}

/// The response to an accepted webhook: some providers require a certain status or text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Acknowledgement {
    /// The status code. Default: the preset's, or 202 for a new event and 200 for a repeated one. 200 to 204.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 204))]
    pub status: Option<i32>,

    /// The content-type of the body, of at most 128 characters. Default: the preset's, or text/plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub content_type: Option<String>,

    /// The body, of at most 1024 characters. Default: the preset's, or Grapnel's own response with the event's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub body: Option<String>,
}

impl Mapping {
    /// Returns this mapping, with the fields that it leaves unset taken from `defaults`.
    #[must_use]
    pub fn with_defaults_from(&self, defaults: &Self) -> Self {
        Self {
            split: list_or_default(&self.split, &defaults.split),
            split_content_types: list_or_default(&self.split_content_types, &defaults.split_content_types),
            external_event_id: list_or_default(&self.external_event_id, &defaults.external_event_id),
            id_scope: list_or_default(&self.id_scope, &defaults.id_scope),
            attempt_fields: list_or_default(&self.attempt_fields, &defaults.attempt_fields),
            event_type: list_or_default(&self.event_type, &defaults.event_type),
            occurred_at: list_or_default(&self.occurred_at, &defaults.occurred_at),
            occurred_at_format: or_default(&self.occurred_at_format, &defaults.occurred_at_format),
            subject: list_or_default(&self.subject, &defaults.subject),
            required: list_or_default(&self.required, &defaults.required),
            payload: or_default(&self.payload, &defaults.payload),
            body_field: or_default(&self.body_field, &defaults.body_field),
            payload_name: or_default(&self.payload_name, &defaults.payload_name),
            accept: list_or_default(&self.accept, &defaults.accept),
            deliver: or_default(&self.deliver, &defaults.deliver),
        }
    }
}

impl Acknowledgement {
    /// Returns this acknowledgement, with the fields that it leaves unset taken from `defaults`.
    #[must_use]
    pub fn with_defaults_from(&self, defaults: &Self) -> Self {
        Self {
            status: or_default(&self.status, &defaults.status),
            content_type: or_default(&self.content_type, &defaults.content_type),
            body: or_default(&self.body, &defaults.body),
        }
    }
}
