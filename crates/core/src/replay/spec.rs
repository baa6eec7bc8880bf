//! What a replay selects, and its bounds.

use grapnel_crds::FieldError;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::filter::{EventTypes, Expression};
use crate::ids::EventId;

/// Deliveries in a second, unless it is said.
pub const DEFAULT_RATE: u32 = 50;
pub const MAX_RATE: u32 = 5_000;

/// The deliveries that a replay may feed, unless it is said.
pub const DEFAULT_MAX_DELIVERIES: u64 = 10_000;
const LARGEST_MAX_DELIVERIES: u64 = 1_000_000_000;

pub const MAX_EVENT_IDS: usize = 100;
/// As many as an Integration can have.
const MAX_DESTINATIONS: usize = 16;
const MAX_EVENT_TYPES: usize = 64;
const MAX_NAME_CHARS: usize = 63;
const MAX_TEXT_CHARS: usize = 255;
const REASON_CHARS: (usize, usize) = (5, 500);

/// Which deliveries are delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplaySelect {
    /// Those that failed.
    Failed,
    /// Those that the filter of their destination left out. It is not asked again.
    Filtered,
    /// Those that there are none of: events from before their destination was added. Its filter and event types apply.
    Missing,
    /// Those that failed and those that succeeded.
    All,
}

impl ReplaySelect {
    pub const ALL: [Self; 4] = [Self::Failed, Self::Filtered, Self::Missing, Self::All];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "Failed",
            Self::Filtered => "Filtered",
            Self::Missing => "Missing",
            Self::All => "All",
        }
    }

    /// Whether the deliveries have attempts and errors to select by.
    const fn has_attempts(self) -> bool {
        matches!(self, Self::Failed | Self::All)
    }
}

/// In which order the events of each destination come, by their receipt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplayOrder {
    #[default]
    OldestFirst,
    NewestFirst,
}

/// What is asked for, unchecked. The Integrations are said beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayDocument {
    pub select: Option<ReplaySelect>,
    pub destinations: Option<Vec<String>>,
    pub event_types: Option<Vec<String>>,
    pub subject: Option<String>,
    pub http_status: Option<u16>,
    pub error_contains: Option<String>,
    pub filter: Option<String>,
    pub received_after: Option<Timestamp>,
    pub received_before: Option<Timestamp>,
    pub event_ids: Option<Vec<EventId>>,
    pub rate_per_second: Option<u32>,
    pub max_deliveries: Option<u64>,
    pub order: Option<ReplayOrder>,
    pub reason: Option<String>,
}

/// What a replay selects and how it runs, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplaySpec {
    pub select: ReplaySelect,
    /// `None`: all that the Integrations have when it is created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destinations: Option<Vec<String>>,
    /// Patterns, as in a destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_types: Option<Vec<String>>,
    /// Anywhere in the subject, in either case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Of the last attempt of the delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Anywhere in the last error of the delivery, in either case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_contains: Option<String>,
    /// An expression that compiles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// `None` with `event_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_after: Option<Timestamp>,
    /// Exclusive.
    pub received_before: Timestamp,
    /// Ascending, each once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_ids: Option<Vec<EventId>>,
    /// At its creation; it may be changed later.
    pub rate_per_second: u32,
    pub max_deliveries: u64,
    pub order: ReplayOrder,
    pub reason: String,
}

impl ReplayDocument {
    /// Takes its members out of a JSON object, and leaves the others.
    pub fn take_from(members: &mut Map<String, Value>) -> Result<Self, FieldError> {
        Ok(Self {
            select: take(members, "select")?,
            destinations: take(members, "destinations")?,
            event_types: take(members, "eventTypes")?,
            subject: take(members, "subject")?,
            http_status: take(members, "httpStatus")?,
            error_contains: take(members, "errorContains")?,
            filter: take(members, "filter")?,
            received_after: take(members, "receivedAfter")?,
            received_before: take(members, "receivedBefore")?,
            event_ids: take(members, "eventIds")?,
            rate_per_second: take(members, "ratePerSecond")?,
            max_deliveries: take(members, "maxDeliveries")?,
            order: take(members, "order")?,
            reason: take(members, "reason")?,
        })
    }

    /// Checks it. What was received after `now` is not selected.
    ///
    /// # Errors
    /// All fields that are wrong, at least one.
    pub fn check(self, now: Timestamp) -> Result<ReplaySpec, Vec<FieldError>> {
        let mut errors = Errors::default();
        let select = errors.required("select", self.select).unwrap_or(ReplaySelect::Failed);
        let reason = errors.required("reason", self.reason).unwrap_or_default();
        errors.text("reason", Some(&reason), REASON_CHARS);
        errors.texts("destinations", self.destinations.as_deref(), MAX_DESTINATIONS, MAX_NAME_CHARS);
        errors.texts("eventTypes", self.event_types.as_deref(), MAX_EVENT_TYPES, MAX_TEXT_CHARS);
        errors.text("subject", self.subject.as_ref(), (1, MAX_TEXT_CHARS));
        errors.text("errorContains", self.error_contains.as_ref(), (1, MAX_TEXT_CHARS));
        errors.number("httpStatus", self.http_status.map(u64::from), (100, 599));
        errors.number("ratePerSecond", self.rate_per_second.map(u64::from), (1, MAX_RATE.into()));
        errors.number("maxDeliveries", self.max_deliveries, (1, LARGEST_MAX_DELIVERIES));
        if let Some(Err(error)) = self.filter.as_deref().map(Expression::compile) {
            errors.add("filter", error.to_string());
        }
        if !select.has_attempts() {
            let without = format!("has no meaning with select: {}", select.as_str());
            for (field, is_given) in
                [("httpStatus", self.http_status.is_some()), ("errorContains", self.error_contains.is_some())]
            {
                if is_given {
                    errors.add(field, &without);
                }
            }
        }
        let received_before = self.received_before.map_or(now, |before| before.min(now));
        match (&self.event_ids, self.received_after) {
            (None, None) => errors.add("receivedAfter", "is required, unless eventIds are given"),
            (None, Some(after)) if after >= received_before => {
                errors.add("receivedAfter", "must be before receivedBefore, and in the past");
            }
            (None, Some(_)) => {}
            (Some(_), _) if self.received_after.is_some() || self.received_before.is_some() => {
                errors.add("eventIds", "cannot be combined with receivedAfter or receivedBefore");
            }
            (Some(ids), _) if ids.is_empty() || ids.len() > MAX_EVENT_IDS => {
                errors.add("eventIds", format!("must have 1 to {MAX_EVENT_IDS} ids"));
            }
            (Some(_), _) => {}
        }
        errors.into_result()?;
        Ok(ReplaySpec {
            select,
            destinations: self.destinations.map(sorted),
            event_types: self.event_types,
            subject: self.subject,
            http_status: self.http_status,
            error_contains: self.error_contains,
            filter: self.filter,
            received_after: self.received_after,
            received_before,
            event_ids: self.event_ids.map(sorted),
            rate_per_second: self.rate_per_second.unwrap_or(DEFAULT_RATE),
            max_deliveries: self.max_deliveries.unwrap_or(DEFAULT_MAX_DELIVERIES),
            order: self.order.unwrap_or_default(),
            reason,
        })
    }
}

impl ReplaySpec {
    /// Returns the pattern of the event types; `None` is any type.
    pub fn event_types(&self) -> Option<EventTypes> {
        EventTypes::new(self.event_types.as_deref().unwrap_or_default())
    }

    /// Returns the first field, if any, that selects by what only those see who may see payloads.
    pub fn reads_payloads(&self) -> Option<&'static str> {
        let filter = self.filter.as_ref().map(|_| "filter");
        filter.or_else(|| self.error_contains.as_ref().map(|_| "errorContains"))
    }
}

fn sorted<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort_unstable();
    values.dedup();
    values
}

/// Removes and reads a member.
fn take<T: DeserializeOwned>(
    members: &mut Map<String, Value>,
    name: &'static str,
) -> Result<Option<T>, FieldError> {
    let Some(value) = members.remove(name) else { return Ok(None) };
    let invalid =
        |error: serde_json::Error| FieldError { field: name.to_owned(), message: error.to_string() };
    serde_json::from_value(value).map(Some).map_err(invalid)
}

#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.push(FieldError { field: field.to_owned(), message: message.into() });
    }

    fn required<T>(&mut self, field: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.add(field, "is required");
        }
        value
    }

    fn text(&mut self, field: &str, text: Option<&String>, (min, max): (usize, usize)) {
        let Some(text) = text else { return };
        if self.0.iter().any(|error| error.field == field) {
            return;
        }
        if !(min..=max).contains(&text.chars().count()) {
            self.add(field, format!("must have {min} to {max} characters"));
        } else if text.contains('\0') {
            self.add(field, "must not contain U+0000");
        }
    }

    fn texts(&mut self, field: &str, texts: Option<&[String]>, most: usize, max: usize) {
        let Some(texts) = texts else { return };
        if texts.is_empty() || texts.len() > most {
            self.add(field, format!("must have 1 to {most} items"));
            return;
        }
        for (position, text) in texts.iter().enumerate() {
            self.text(&format!("{field}[{position}]"), Some(text), (1, max));
        }
    }

    fn number(&mut self, field: &str, number: Option<u64>, (min, max): (u64, u64)) {
        if number.is_some_and(|number| !(min..=max).contains(&number)) {
            self.add(field, format!("must be from {min} to {max}"));
        }
    }

    fn into_result(self) -> Result<(), Vec<FieldError>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-31T12:00:00Z".parse().unwrap()
    }

    fn check(body: Value) -> Result<ReplaySpec, Vec<FieldError>> {
        let Value::Object(mut members) = body else { panic!("no object") };
        let document = ReplayDocument::take_from(&mut members).map_err(|error| vec![error])?;
        document.check(now())
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let spec =
            check(json!({"select": "Failed", "receivedAfter": "2026-01-31T10:00:00Z", "reason": "outage"}));
        let spec = spec.unwrap();
        assert_eq!((spec.rate_per_second, spec.max_deliveries), (50, 10_000));
        assert_eq!((spec.order, spec.received_before), (ReplayOrder::OldestFirst, now()));
        let json = serde_json::to_value(&spec).unwrap();
        assert_eq!(serde_json::from_value::<ReplaySpec>(json).unwrap(), spec);
    }

    #[test]
    fn ids_are_in_place_of_a_window_and_a_window_ends_now() {
        let id = "01935b6e-7a00-7000-8000-000000000001";
        let spec = check(json!({"select": "All", "eventIds": [id, id], "reason": "outage"})).unwrap();
        assert_eq!(spec.event_ids.unwrap().len(), 1);
        let later = json!({"select": "All", "receivedAfter": "2026-01-31T10:00:00Z",
            "receivedBefore": "2026-02-28T10:00:00Z", "reason": "outage"});
        assert_eq!(check(later).unwrap().received_before, now());
    }

    #[test]
    fn a_refusal_names_each_field() {
        let valid = json!({"select": "Failed", "receivedAfter": "2026-01-31T10:00:00Z", "reason": "outage"});
        let refused = |changes: Value| -> Vec<String> {
            let mut body = valid.clone();
            for (name, value) in changes.as_object().unwrap() {
                body[name] = value.clone();
            }
            let errors = check(body).expect_err("a refusal");
            errors.into_iter().map(|error| error.field).collect()
        };
        assert_eq!(check(json!({})).unwrap_err().len(), 3);
        assert_eq!(refused(json!({"select": "failed"})), ["select"]);
        assert_eq!(refused(json!({"reason": "1234"})), ["reason"]);
        assert_eq!(refused(json!({"reason": 7})), ["reason"]);
        assert_eq!(refused(json!({"receivedAfter": "yesterday"})), ["receivedAfter"]);
        assert_eq!(refused(json!({"receivedAfter": "2026-01-31T13:00:00Z"})), ["receivedAfter"]);
        assert_eq!(refused(json!({"receivedBefore": "2026-01-31T09:00:00Z"})), ["receivedAfter"]);
        assert_eq!(refused(json!({"eventIds": ["01935b6e-7a00-7000-8000-000000000001"]})), ["eventIds"]);
        assert_eq!(
            refused(json!({"ratePerSecond": 0, "maxDeliveries": 0})),
            ["ratePerSecond", "maxDeliveries"]
        );
        assert_eq!(refused(json!({"ratePerSecond": 5001})), ["ratePerSecond"]);
        assert_eq!(refused(json!({"ratePerSecond": 1.5})), ["ratePerSecond"]);
        assert_eq!(refused(json!({"destinations": []})), ["destinations"]);
        assert_eq!(refused(json!({"destinations": ["a", ""]})), ["destinations[1]"]);
        assert_eq!(refused(json!({"eventTypes": ["a\u{0}"]})), ["eventTypes[0]"]);
        assert_eq!(refused(json!({"httpStatus": 99})), ["httpStatus"]);
        assert_eq!(refused(json!({"select": "Missing", "httpStatus": 500})), ["httpStatus"]);
        assert_eq!(refused(json!({"filter": "payload.total >"})), ["filter"]);
        assert_eq!(refused(json!({"order": "Random"})), ["order"]);
    }
}
