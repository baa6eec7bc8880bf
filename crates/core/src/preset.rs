//! A provider as data: how its requests are verified, which handshakes it makes, and where the event's fields are.
//!
//! Presets are YAML files that are embedded in the binary, of the very types of which an Integration's spec is made; no
//! provider is named in code. What an Integration sets goes before its preset, field by field, and a custom provider has
//! nothing below it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use grapnel_crds::{Acknowledgement, FieldError, Handshake, IntegrationSpec, Mapping, Scheme, presets};
use serde::Deserialize;

use crate::verification;
use embedded::PRESETS;
pub use fixture::Fixture;

mod embedded;
mod fixture;

/// How the webhooks of one provider are verified, answered and read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Preset {
    pub provider: Arc<str>,
    /// As people write it.
    pub name: String,
    /// Where the provider describes it.
    pub documentation: String,
    /// What to put into the Secret.
    pub secret: String,
    /// What to do at the provider's side, step by step.
    pub setup: Vec<String>,
    /// What to know: limits, retries, what is not covered.
    #[serde(default)]
    pub notes: Vec<String>,
    pub verification: Scheme,
    pub mapping: Mapping,
    #[serde(default)]
    pub handshakes: Vec<Handshake>,
    #[serde(default)]
    pub acknowledgement: Acknowledgement,
    /// A webhook as the provider sends it, and the event that it is.
    pub fixture: Fixture,
}

static BY_PROVIDER: LazyLock<HashMap<Arc<str>, Arc<Preset>>> = LazyLock::new(|| {
    let parse = |(_, text): &(&str, &str)| {
        let preset: Preset = serde_saphyr::from_str(text).expect("embedded presets are parsed by a test");
        (Arc::clone(&preset.provider), Arc::new(preset))
    };
    PRESETS.iter().map(parse).collect()
});

/// The preset of a provider.
pub fn find(provider: &str) -> Option<Arc<Preset>> {
    BY_PROVIDER.get(provider).cloned()
}

/// The preset's file.
pub fn text(provider: &str) -> Option<&'static str> {
    PRESETS.iter().find(|(name, _)| *name == provider).map(|(_, text)| *text)
}

/// The providers that there are presets for, in order.
pub fn providers() -> Vec<&'static str> {
    let mut names: Vec<&str> = BY_PROVIDER.keys().map(|name| &**name).collect();
    names.sort_unstable();
    names
}

/// All of a provider that an Integration uses: its preset with what the Integration changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    pub scheme: Scheme,
    pub mapping: Mapping,
    pub handshakes: Vec<Handshake>,
    pub acknowledgement: Acknowledgement,
}

/// The provider of an Integration.
///
/// # Errors
/// An unknown provider, or what is missing or does not go together once the preset and the Integration are one. Each names
/// its field in the words of the API server.
pub fn resolve(spec: &IntegrationSpec) -> Result<Provider, Vec<FieldError>> {
    if let Some(unknown) = unknown(spec) {
        return Err(vec![unknown]);
    }
    let preset = find(&spec.provider);
    let (scheme, mapping) = (spec.verification.scheme.as_ref(), spec.mapping.as_ref());
    let preset = preset.as_deref();
    let lower_scheme = preset.map(|preset| preset.verification.clone()).unwrap_or_default();
    let lower_mapping = preset.map(|preset| preset.mapping.clone()).unwrap_or_default();
    let lower_acknowledgement = preset.map(|preset| preset.acknowledgement.clone()).unwrap_or_default();
    let provider = Provider {
        scheme: scheme.map_or(lower_scheme.clone(), |scheme| scheme.with_defaults_from(&lower_scheme)),
        mapping: mapping.map_or(lower_mapping.clone(), |mapping| mapping.with_defaults_from(&lower_mapping)),
        handshakes: handshakes(&spec.handshakes, preset.map_or(&[], |preset| &preset.handshakes)),
        acknowledgement: spec
            .acknowledgement
            .clone()
            .unwrap_or_default()
            .with_defaults_from(&lower_acknowledgement),
    };
    let mut missing = provider.scheme.missing();
    missing.extend(provider.mapping.missing());
    if missing.is_empty() { Ok(provider) } else { Err(missing) }
}

/// What is wrong with the provider of an Integration beyond its own rules. `valid` says whether those hold: an unknown
/// preset, and what a custom provider lacks, break them too, and are told once.
pub fn problems(spec: &IntegrationSpec, valid: bool) -> Vec<FieldError> {
    if valid { resolve(spec).err().unwrap_or_default() } else { Vec::new() }
}

/// What is doubtful about how an Integration verifies, though it can be used so. It names the field.
pub fn doubt(spec: &IntegrationSpec) -> Option<&'static str> {
    verification::doubt(&resolve(spec).ok()?.scheme, spec.verification.tolerance_seconds)
}

/// Says so when there is no preset for the provider, and it is not a custom one.
pub fn unknown(spec: &IntegrationSpec) -> Option<FieldError> {
    let unknown = !presets::is_known(&spec.provider);
    unknown.then(|| FieldError { field: "spec.provider".to_owned(), message: presets::UNKNOWN.to_owned() })
}

/// Those of the Integration, then those of the preset that it does not replace.
fn handshakes(upper: &[Handshake], lower: &[Handshake]) -> Vec<Handshake> {
    let kept = lower.iter().filter(|handshake| !upper.iter().any(|other| other.name == handshake.name));
    upper.iter().chain(kept).cloned().collect()
}

#[cfg(test)]
mod tests;
