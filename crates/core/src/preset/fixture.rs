//! A webhook as a provider sends it, for tests and for the documentation.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A request and its event, or its events if it is split. In the body and the headers, `@now@`, `@nowMs@` and `@nowIso@` are replaced by the time of the
/// test, and `@signature@` by the signature.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Fixture {
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Without the question mark.
    #[serde(default)]
    pub query: Option<String>,
    #[serde(default)]
    pub body: String,
    #[serde(default)]
    pub event: Option<FixtureEvent>,
    /// In the order of the document.
    #[serde(default)]
    pub events: Vec<FixtureEvent>,
}

impl Fixture {
    /// Returns the first event of the request.
    pub fn first_event(&self) -> Option<&FixtureEvent> {
        self.event.as_ref().or(self.events.first())
    }
}

/// An event of a fixture's request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FixtureEvent {
    #[serde(default)]
    pub external_event_id: Option<String>,
    pub event_type: String,
    #[serde(default)]
    pub subject: Option<String>,
    #[serde(default)]
    pub occurred_at: Option<String>,
}
