//! What expressions know of an event, as the variables `event`, `payload` and `headers`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cel::common::types::CelTimestamp;
use chrono::DateTime;
use jiff::Timestamp;

use super::estimate::Size;
use super::json_value::{AnyValue, object, optional_text, read, text};
use crate::ids::EventId;
use crate::payload::{BodyForm, payload_json};

pub(super) const EVENT: &str = "event";
pub(super) const PAYLOAD: &str = "payload";
pub(super) const HEADERS: &str = "headers";

/// The fields of `event`.
pub(super) const EVENT_FIELDS: [&str; 6] = ["id", "type", "subject", "provider", "externalId", "occurredAt"];

/// The longest payload that expressions are evaluated for, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 256 * 1024;

/// The variables that expressions use. Nothing is read for the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Uses {
    pub(super) event: bool,
    pub(super) payload: bool,
    pub(super) headers: bool,
}

impl Uses {
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            event: self.event || other.event,
            payload: self.payload || other.payload,
            headers: self.headers || other.headers,
        }
    }
}

/// An event as expressions see it.
#[derive(Debug, Clone)]
pub struct FilterInput {
    pub id: EventId,
    pub event_type: String,
    pub subject: Option<String>,
    pub provider: Arc<str>,
    pub external_event_id: Option<String>,
    pub occurred_at: Timestamp,
    /// How the payload is read.
    pub body_form: BodyForm,
    /// What the event carries under its payload key, before it is made JSON.
    pub payload: Bytes,
    /// JSON text: `[[name, value], …]`, secrets redacted.
    pub headers: String,
}

impl FilterInput {
    pub(super) fn event(&self) -> (AnyValue, Size) {
        let texts = [
            ("id", Some(self.id.to_string())),
            ("type", Some(self.event_type.clone())),
            ("subject", self.subject.clone()),
            ("provider", Some(self.provider.to_string())),
            ("externalId", self.external_event_id.clone()),
        ];
        let bytes: usize = texts.iter().map(|(_, value)| value.as_ref().map_or(0, String::len)).sum();
        let texts = texts.into_iter().map(|(name, value)| (name.to_owned(), optional_text(value.as_deref())));
        let occurred_at = ("occurredAt".to_owned(), time(self.occurred_at));
        let size = Size { bytes: bytes as u64, longest: EVENT_FIELDS.len() as u64 };
        (object(texts.chain([occurred_at])), size)
    }

    /// `None` if it is not JSON that can be read, which a part of a text that is no character is not.
    pub(super) fn payload(&self) -> Option<(AnyValue, Size)> {
        read(&payload_json(self.body_form, &self.payload))
    }

    /// A repeated header has its values in one text, with `, ` between them, as the management API shows it.
    pub(super) fn headers(&self) -> (AnyValue, Size) {
        let pairs: Vec<(String, String)> = serde_json::from_str(&self.headers).unwrap_or_default();
        let mut by_name = BTreeMap::<String, String>::new();
        for (name, value) in pairs {
            let joined = by_name.entry(name.to_ascii_lowercase()).or_default();
            if !joined.is_empty() {
                joined.push_str(", ");
            }
            joined.push_str(&value);
        }
        let size = Size { bytes: self.headers.len() as u64, longest: by_name.len() as u64 };
        (object(by_name.into_iter().map(|(name, value)| (name, text(&value)))), size)
    }
}

/// Returns a time as a value. CEL has years 1 to 9999; another time is null.
fn time(time: Timestamp) -> AnyValue {
    let nanoseconds = u32::try_from(time.subsec_nanosecond().rem_euclid(1_000_000_000)).unwrap_or_default();
    let seconds = time.as_second() - i64::from(time.subsec_nanosecond() < 0);
    match DateTime::from_timestamp(seconds, nanoseconds) {
        Some(time) => Box::new(CelTimestamp::from(time.fixed_offset())),
        None => optional_text(None),
    }
}
