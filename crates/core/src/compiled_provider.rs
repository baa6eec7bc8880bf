//! The provider of an Integration, compiled with its secrets. Every request of the Integration is verified, read and answered
//! with it.

use std::sync::Arc;

use grapnel_crds::{FieldError, IntegrationSpec};
use http::{HeaderValue, StatusCode};
use thiserror::Error;

use crate::handshake::Handshakes;
use crate::mapping::{FormerMapping, Mapper};
use crate::preset::Preset;
use crate::resolved_provider::{self, ResolvedProvider};
use crate::verification::{SchemeError, Verifier};

/// A provider, ready to verify, read and answer requests.
#[derive(Debug)]
pub struct CompiledProvider {
    pub verifier: Verifier,
    pub mapper: Mapper,
    pub handshakes: Handshakes,
    pub acknowledgement: CompiledAcknowledgement,
}

/// The response to a webhook that was accepted.
#[derive(Debug, Default)]
pub struct CompiledAcknowledgement {
    pub status: Option<StatusCode>,
    pub body: Option<(HeaderValue, Arc<str>)>,
}

/// A reason why a provider cannot be compiled.
#[derive(Debug, Error)]
pub enum ProviderError {
    #[error("{0}")]
    Unknown(FieldError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Spec(Vec<FieldError>),
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    #[error(
        "spec.mapping: unknown source or path; expected /…, header:…, query:…, form:…, json:/…, element:/…, literal:… or request, and /…/* to split"
    )]
    Mapping,
    #[error("spec.handshakes: this scheme cannot answer the handshake {0}")]
    Handshake(String),
    #[error("spec.acknowledgement: invalid status or header value")]
    Acknowledgement,
}

impl CompiledProvider {
    /// Compiles the provider of an Integration. The first secret is the current one; `verify_token` is the one that
    /// `verifyTokenRef` names, if it does.
    ///
    /// # Errors
    /// When the spec has no valid provider, or a secret is not a key for it.
    pub fn new(
        spec: &IntegrationSpec,
        secrets: &[impl AsRef<[u8]>],
        verify_token: Option<&[u8]>,
    ) -> Result<Self, ProviderError> {
        if let Some(unknown) = resolved_provider::unknown_provider(spec) {
            return Err(ProviderError::Unknown(unknown));
        }
        let provider = ResolvedProvider::new(spec).map_err(ProviderError::Spec)?;
        let (tolerance_seconds, url) =
            (spec.verification.tolerance_seconds, spec.verification.url.as_deref());
        let verifier =
            Verifier::with_split(&provider.scheme, &provider.mapping.split, tolerance_seconds, url, secrets)?;
        let former = resolved_provider::former_mapping(spec);
        Self::of(&provider, &former, verifier, first(secrets), verify_token)
    }

    /// Compiles a preset without changes.
    ///
    /// # Errors
    /// When a secret is not a key for the preset.
    pub fn of_preset(preset: &Preset, secrets: &[impl AsRef<[u8]>]) -> Result<Self, ProviderError> {
        let provider = ResolvedProvider::of_preset(preset);
        let verifier = Verifier::with_split(&provider.scheme, &provider.mapping.split, None, None, secrets)?;
        Self::of(&provider, &preset.former_mapping(), verifier, first(secrets), None)
    }

    fn of(
        provider: &ResolvedProvider,
        former: &FormerMapping,
        verifier: Verifier,
        secret: &[u8],
        verify_token: Option<&[u8]>,
    ) -> Result<Self, ProviderError> {
        let handshakes = Handshakes::new(&provider.handshakes, &verifier, secret, verify_token)
            .map_err(ProviderError::Handshake)?;
        Ok(Self {
            mapper: Mapper::new(&provider.mapping, former).ok_or(ProviderError::Mapping)?,
            acknowledgement: CompiledAcknowledgement::new(&provider.acknowledgement)
                .ok_or(ProviderError::Acknowledgement)?,
            verifier,
            handshakes,
        })
    }
}

fn first(secrets: &[impl AsRef<[u8]>]) -> &[u8] {
    secrets.first().map(AsRef::as_ref).unwrap_or_default()
}

impl CompiledAcknowledgement {
    fn new(spec: &grapnel_crds::Acknowledgement) -> Option<Self> {
        let status = match spec.status {
            Some(status) => Some(StatusCode::from_u16(u16::try_from(status).ok()?).ok()?),
            None => None,
        };
        let body = match &spec.body {
            Some(body) => {
                let content_type = spec.content_type.as_deref().unwrap_or("text/plain");
                Some((HeaderValue::from_str(content_type).ok()?, body.as_str().into()))
            }
            None => None,
        };
        Some(Self { status, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset;

    #[test]
    fn no_preset_has_a_timestamp_that_proves_nothing() {
        for name in preset::providers() {
            let preset = preset::find(name).expect("a preset");
            let secret = grapnel_testing::signer::Signer::new(&preset.verification).secret;
            let compiled = CompiledProvider::of_preset(&preset, &[secret])
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(compiled.verifier.warning(), None, "{name}");
        }
    }
}
