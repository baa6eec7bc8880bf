//! A webhook as a provider sends it, for tests and for the documentation.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A request, and the event that it is. In the body and the headers, `@now@`, `@nowMs@` and `@nowIso@` stand for the time of
/// the test, and `@signature@` for what is computed over it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Fixture {
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Without its question mark.
    #[serde(default)]
    pub query: Option<String>,
    #[serde(default)]
    pub body: String,
    pub event: Event,
}

/// The event that the request is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Event {
    #[serde(default)]
    pub external_event_id: Option<String>,
    pub event_type: String,
    #[serde(default)]
    pub subject: Option<String>,
    #[serde(default)]
    pub occurred_at: Option<String>,
}
