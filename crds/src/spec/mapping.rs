//! Where the fields of an event are in a request, what is delivered of it, and how its receipt is answered.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::rules::provider as rules;

/// Where the fields of an event are in a request, and what is delivered. Each field that is set goes before the preset's. A
/// source is /POINTER (a JSON Pointer to a text in the body), json:/POINTER (to a text, a number or a boolean), header:NAME,
/// query:NAME, form:NAME (of a form) or literal:TEXT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mapping {
    /// The provider's id of the event, by which repeated deliveries are recognized: at most 4 sources, the first that is
    /// there counts. request stands for no id: every request is an event. Default: the preset's; without any, equal bodies
    /// are the same event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("items" = source_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::MAPPED_ID)]
    pub external_event_id: Vec<String>,

    /// The event's type: at most 4 sources, the first that is there counts. Default: the preset's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("items" = source_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::MAPPED)]
    pub event_type: Vec<String>,

    /// When it happened: at most 4 sources, the first that is there counts. Default: the preset's; without any, the time of
    /// receipt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("items" = source_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::MAPPED)]
    pub occurred_at: Vec<String>,

    /// How the time is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurred_at_format: Option<TimeFormat>,

    /// What the event is about: at most 4 sources, the first that is there counts. Default: the preset's; an event may have
    /// none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("items" = source_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::MAPPED)]
    pub subject: Vec<String>,

    /// Fields without which a webhook is refused as malformed: at most 4. Default: the preset's. eventType always is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub required: Vec<MappedField>,

    /// The part of the body that is delivered, as a JSON Pointer to an object: at most 256 characters. Default: the
    /// preset's, or empty, which is the whole body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = rules::POINTER)]
    pub payload: Option<String>,

    /// The member of the normalized payload that carries the delivered part: at most 64 characters. Default: the preset's,
    /// or data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = rules::MEMBER)]
    pub payload_name: Option<String>,

    /// The kinds of bodies that are accepted, by their content-type; others are answered 415. At most 3. Default: the
    /// preset's, or json alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub accept: Vec<BodyKind>,

    /// What is delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver: Option<Deliver>,
}

fn source_items() -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": 256,
        "description": "A source of at most 256 characters."
    })
}

/// How the time is written. Default: the preset's, or rfc3339. One of rfc3339, unix (seconds since 1970, with a fraction or
/// without), unixMilliseconds and httpDate.
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
    /// When it happened.
    OccurredAt,
    /// What it is about.
    Subject,
}

/// A kind of bodies. One of json, anyjson (JSON whatever its content-type), form (application/x-www-form-urlencoded) and
/// opaque (anything, such as XML).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BodyKind {
    /// JSON, or no content-type.
    Json,
    /// JSON, whatever its content-type.
    Anyjson,
    /// A form.
    Form,
    /// Anything else; nothing in it is read.
    Opaque,
}

/// What is delivered. Default: the preset's, or normalized. One of normalized (JSON with provider, eventType, externalEventId
/// and the payload), raw (the body's bytes with its content-type) and cloudevents (a CloudEvents 1.0 envelope in JSON).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Deliver {
    /// The normalized payload.
    Normalized,
    /// The body as it came.
    Raw,
    /// A CloudEvents 1.0 envelope.
    Cloudevents,
}

/// What a provider is answered when its webhook was taken: some insist on a status or a text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Acknowledgement {
    /// The status. Default: the preset's, or 202 for a new event and 200 for a repeated one. 200 to 204.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 204))]
    pub status: Option<i32>,

    /// The content-type of the text, of at most 128 characters. Default: the preset's, or text/plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub content_type: Option<String>,

    /// The text, of at most 1024 characters. Default: the preset's, or Grapnel's own answer with the event's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub body: Option<String>,
}

fn list<T: Clone>(upper: &[T], lower: &[T]) -> Vec<T> {
    if upper.is_empty() { lower.to_vec() } else { upper.to_vec() }
}

impl Mapping {
    /// These fields, and those of `lower` where these say nothing.
    pub fn over(&self, lower: &Self) -> Self {
        Self {
            external_event_id: list(&self.external_event_id, &lower.external_event_id),
            event_type: list(&self.event_type, &lower.event_type),
            occurred_at: list(&self.occurred_at, &lower.occurred_at),
            occurred_at_format: self.occurred_at_format.or(lower.occurred_at_format),
            subject: list(&self.subject, &lower.subject),
            required: list(&self.required, &lower.required),
            payload: self.payload.clone().or_else(|| lower.payload.clone()),
            payload_name: self.payload_name.clone().or_else(|| lower.payload_name.clone()),
            accept: list(&self.accept, &lower.accept),
            deliver: self.deliver.or(lower.deliver),
        }
    }
}

impl Acknowledgement {
    /// These fields, and those of `lower` where these say nothing.
    pub fn over(&self, lower: &Self) -> Self {
        Self {
            status: self.status.or(lower.status),
            content_type: self.content_type.clone().or_else(|| lower.content_type.clone()),
            body: self.body.clone().or_else(|| lower.body.clone()),
        }
    }
}
