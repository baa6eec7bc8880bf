//! A provider as data: how its requests are verified, which handshakes it makes, and where an event's fields are.
//!
//! Presets are YAML files that are embedded in the binary. They have the types of an Integration's spec, and no provider is
//! named in code.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use grapnel_crds::{Acknowledgement, Handshake, Mapping, Scheme};
use serde::Deserialize;

use crate::mapping::FormerMapping;
pub use behavior::{AttemptTimestamps, Behavior, EventIdOrigin, EventsPerRequest, RetryWindow, Source};
use embedded::PRESETS;
pub use fixture::Fixture;

mod behavior;
mod embedded;
mod fixture;

/// The way in which the webhooks of one provider are verified, answered and read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Preset {
    pub provider: Arc<str>,
    /// The provider's name for people.
    pub name: String,
    /// The page on which the provider describes its webhooks.
    pub documentation: String,
    /// The value to put into the Secret.
    pub secret: String,
    /// The steps at the provider's side.
    pub setup: Vec<String>,
    /// Limits, retries, and anything that signatures do not cover.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What was read of the provider, and when.
    pub sources: Vec<Source>,
    /// How the provider sends, according to the sources.
    pub behavior: Behavior,
    pub verification: Scheme,
    pub mapping: Mapping,
    #[serde(default)]
    pub handshakes: Vec<Handshake>,
    #[serde(default)]
    pub acknowledgement: Acknowledgement,
    /// Where the previous version found the id of the event, if elsewhere: what it stored is still recognized.
    #[serde(default)]
    former_external_event_id: Vec<String>,
    /// Whether the previous version stored every request as one event, although it may carry several.
    #[serde(default)]
    formerly_whole: bool,
    /// The headers that receivers of the body as it came need, in lower case: without them they cannot tell what it is.
    #[serde(default)]
    pub forward_headers: Vec<String>,
    /// A webhook as the provider sends it, and its event.
    pub fixture: Fixture,
}

impl Preset {
    /// How the previous version identified the events, where that was in another way.
    pub fn former_mapping(&self) -> FormerMapping {
        FormerMapping {
            external_event_id: self.former_external_event_id.clone(),
            is_whole: self.formerly_whole,
        }
    }
}

static BY_PROVIDER: LazyLock<HashMap<Arc<str>, Arc<Preset>>> = LazyLock::new(|| {
    let parse = |(_, text): &(&str, &str)| {
        let preset: Preset = serde_saphyr::from_str(text).expect("embedded presets are parsed by a test");
        (Arc::clone(&preset.provider), Arc::new(preset))
    };
    PRESETS.iter().map(parse).collect()
});

/// Returns the preset of a provider.
pub fn find(provider: &str) -> Option<Arc<Preset>> {
    BY_PROVIDER.get(provider).cloned()
}

/// Returns the text of a preset's file.
pub fn text(provider: &str) -> Option<&'static str> {
    PRESETS.iter().find(|(name, _)| *name == provider).map(|(_, text)| *text)
}

/// Returns the providers that have a preset, in order.
pub fn providers() -> Vec<&'static str> {
    let mut names: Vec<&str> = BY_PROVIDER.keys().map(|name| &**name).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests;
