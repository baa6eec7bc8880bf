//! The provider of an Integration: its preset with the Integration's changes.
//!
//! A field of the Integration takes precedence over the same field of the preset. A custom provider has no preset.

use grapnel_crds::{Acknowledgement, FieldError, Handshake, IntegrationSpec, Mapping, Scheme, presets};

use crate::mapping::FormerMapping;
use crate::preset::{self, Preset};
use crate::verification;

/// How the webhooks of an Integration are verified, answered and read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResolvedProvider {
    pub scheme: Scheme,
    pub mapping: Mapping,
    pub handshakes: Vec<Handshake>,
    pub acknowledgement: Acknowledgement,
}

impl ResolvedProvider {
    /// Merges the Integration with its preset.
    ///
    /// # Errors
    /// When the provider is unknown, or when fields are missing or contradict each other after the merge. Each error names its
    /// field, with the messages of the API server.
    pub fn new(spec: &IntegrationSpec) -> Result<Self, Vec<FieldError>> {
        if let Some(unknown) = unknown_provider(spec) {
            return Err(vec![unknown]);
        }
        let lower = preset::find(&spec.provider).map(|preset| Self::of_preset(&preset)).unwrap_or_default();
        let (scheme, mapping) = (spec.verification.scheme.as_ref(), spec.mapping.as_ref());
        let provider = Self {
            scheme: scheme.map_or(lower.scheme.clone(), |scheme| scheme.with_defaults_from(&lower.scheme)),
            mapping: mapping
                .map_or(lower.mapping.clone(), |mapping| mapping.with_defaults_from(&lower.mapping)),
            handshakes: merge_handshakes(&spec.handshakes, &lower.handshakes),
            acknowledgement: spec
                .acknowledgement
                .clone()
                .unwrap_or_default()
                .with_defaults_from(&lower.acknowledgement),
        };
        let mut missing = provider.scheme.missing();
        missing.extend(provider.mapping.missing(&provider.scheme));
        if missing.is_empty() { Ok(provider) } else { Err(missing) }
    }

    /// Returns the provider of an Integration that changes nothing of the preset.
    pub fn of_preset(preset: &Preset) -> Self {
        Self {
            scheme: preset.verification.clone(),
            mapping: preset.mapping.clone(),
            handshakes: preset.handshakes.clone(),
            acknowledgement: preset.acknowledgement.clone(),
        }
    }
}

/// Returns in words what a repeated webhook is recognized by.
pub fn recognized_by(mapping: &Mapping) -> String {
    let is_of_request = |source: &&String| *source == "request";
    let ids: Vec<&str> = mapping
        .external_event_id
        .iter()
        .filter(|source| !is_of_request(source))
        .map(String::as_str)
        .collect();
    let mut words = match ids.as_slice() {
        [] => String::new(),
        ids => format!("its id ({}), else ", ids.join(", else ")),
    };
    if mapping.external_event_id.iter().any(|source| is_of_request(&source)) {
        return words + "nothing: every one is an event";
    }
    words += "its content";
    if !mapping.attempt_fields.is_empty() {
        words += &format!(" without {}", mapping.attempt_fields.join(", "));
    }
    words
}

/// Returns how the previous version identified the events, if the preset says that it did so in another way, and the Integration
/// does not say itself where the id is, or how a request is split.
pub fn former_mapping(spec: &IntegrationSpec) -> FormerMapping {
    let is_own = spec
        .mapping
        .as_ref()
        .is_some_and(|mapping| !mapping.external_event_id.is_empty() || !mapping.split.is_empty());
    let preset = preset::find(&spec.provider).filter(|_| !is_own);
    preset.map(|preset| preset.former_mapping()).unwrap_or_default()
}

/// Returns the errors of an Integration's provider that its own validation does not find. With `is_valid` false there are none:
/// an unknown preset and missing fields of a custom provider are among the errors of the validation, and are reported once.
pub fn errors(spec: &IntegrationSpec, is_valid: bool) -> Vec<FieldError> {
    if is_valid { ResolvedProvider::new(spec).err().unwrap_or_default() } else { Vec::new() }
}

/// Returns the warning about a weak but permitted verification setup. It names the field.
pub fn warning(spec: &IntegrationSpec) -> Option<&'static str> {
    verification::warning(&ResolvedProvider::new(spec).ok()?.scheme, spec.verification.tolerance_seconds)
}

/// Returns an error if the provider is neither custom nor has a preset.
pub fn unknown_provider(spec: &IntegrationSpec) -> Option<FieldError> {
    let unknown = !presets::is_known(&spec.provider);
    unknown.then(|| FieldError { field: "spec.provider".to_owned(), message: presets::UNKNOWN.to_owned() })
}

/// Returns the handshakes of the Integration, then those of the preset that it does not replace.
fn merge_handshakes(upper: &[Handshake], lower: &[Handshake]) -> Vec<Handshake> {
    let kept = lower.iter().filter(|handshake| !upper.iter().any(|other| other.name == handshake.name));
    upper.iter().chain(kept).cloned().collect()
}

#[cfg(test)]
mod tests;
