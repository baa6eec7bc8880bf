//! How a provider sends its webhooks, as far as its documentation says, and where that was read.
//!
//! It is for people and for the tests of the presets. Nothing at run time depends on it.

use std::fmt;

use jiff::SignedDuration;
use jiff::civil::Date;
use serde::Deserialize;

/// What a provider sends. What its documentation does not say, or could not be read, is unknown.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Behavior {
    pub events_per_request: EventsPerRequest,
    pub event_id: EventIdOrigin,
    pub retries: Retries,
    /// The content types of its requests; empty if they are unknown.
    #[serde(default)]
    pub content_types: Vec<String>,
}

/// How many events a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventsPerRequest {
    One,
    /// A request may carry more than one.
    Several,
    Unknown,
}

/// What the mapped id of an event rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventIdOrigin {
    /// The documentation says that it identifies the event or its notification, and not an object.
    Documented,
    /// The mapping takes an id of which the documentation that was read says no more.
    Unknown,
    /// The mapping takes no id.
    None,
}

/// How a request that was not acknowledged is repeated.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Retries {
    /// The time from the first attempt to the last, such as 72h.
    pub window: RetryWindow,
    pub timestamps: AttemptTimestamps,
}

/// For how long a request is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum RetryWindow {
    /// It is not repeated.
    None,
    Unknown,
    For(SignedDuration),
}

/// Which time a repeated request is signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttemptTimestamps {
    /// The time of the first attempt, so a tolerance must cover the window.
    First,
    /// The time of the attempt itself.
    Each,
    Unknown,
    /// Requests are not repeated, or are signed without a time that is checked.
    None,
}

/// A page that was read, and for what.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Source {
    pub url: String,
    /// The day on which it was read.
    pub read: Date,
    #[serde(rename = "for")]
    pub topics: Vec<Topic>,
}

/// What a page was read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Topic {
    /// Where the webhook is entered, and its secret found.
    Setup,
    Signature,
    Payload,
    EventId,
    EventsPerRequest,
    Retries,
    ContentTypes,
    Handshakes,
}

impl TryFrom<String> for RetryWindow {
    type Error = jiff::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Ok(match text.as_str() {
            "none" => Self::None,
            "unknown" => Self::Unknown,
            duration => Self::For(duration.parse()?),
        })
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Setup => "setup",
            Self::Signature => "signature",
            Self::Payload => "payload",
            Self::EventId => "event id",
            Self::EventsPerRequest => "events per request",
            Self::Retries => "retries",
            Self::ContentTypes => "content types",
            Self::Handshakes => "handshakes",
        })
    }
}
