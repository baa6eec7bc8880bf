//! A provider with an integration's secrets, compiled: what every request of the integration is judged by.

use std::sync::Arc;

use grapnel_crds::{FieldError, IntegrationSpec};
use http::{HeaderValue, StatusCode};
use thiserror::Error;

use crate::handshake::Handshakes;
use crate::mapping::Mapper;
use crate::preset::{self, Provider};
use crate::verification::{SchemeError, Verifier};

/// What a request is judged by.
#[derive(Debug)]
pub struct Compiled {
    pub verifier: Verifier,
    pub mapper: Mapper,
    pub handshakes: Handshakes,
    pub acknowledgement: Acknowledgement,
}

/// What is answered when a webhook was taken.
#[derive(Debug, Default)]
pub struct Acknowledgement {
    pub status: Option<StatusCode>,
    pub body: Option<(HeaderValue, Arc<str>)>,
}

/// Why requests cannot be judged.
#[derive(Debug, Error)]
pub enum ProviderError {
    #[error("{0}")]
    Unknown(FieldError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Spec(Vec<FieldError>),
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    #[error("spec.mapping: a source names no place")]
    Mapping,
    #[error("spec.handshakes: the handshake {0} cannot be answered with this scheme")]
    Handshake(String),
    #[error("spec.acknowledgement: cannot be sent")]
    Acknowledgement,
}

impl Compiled {
    /// # Errors
    /// When the spec does not come to a provider, or a secret is no key for it.
    pub fn new(spec: &IntegrationSpec, secrets: &[impl AsRef<[u8]>]) -> Result<Self, ProviderError> {
        if let Some(unknown) = preset::unknown(spec) {
            return Err(ProviderError::Unknown(unknown));
        }
        let provider = preset::resolve(spec).map_err(ProviderError::Spec)?;
        let verification = &spec.verification;
        Self::of(&provider, verification.tolerance_seconds, verification.url.as_deref(), secrets)
    }

    /// As an integration has it that changes nothing.
    ///
    /// # Errors
    /// When a secret is no key for the preset.
    pub fn of_preset(preset: &preset::Preset, secrets: &[impl AsRef<[u8]>]) -> Result<Self, ProviderError> {
        let provider = Provider {
            scheme: preset.verification.clone(),
            mapping: preset.mapping.clone(),
            handshakes: preset.handshakes.clone(),
            acknowledgement: preset.acknowledgement.clone(),
        };
        Self::of(&provider, None, None, secrets)
    }

    fn of(
        provider: &Provider,
        tolerance_seconds: Option<i32>,
        url: Option<&str>,
        secrets: &[impl AsRef<[u8]>],
    ) -> Result<Self, ProviderError> {
        let verifier = Verifier::new(&provider.scheme, tolerance_seconds, url, secrets)?;
        let current = secrets.first().map(AsRef::as_ref).unwrap_or_default();
        let handshakes =
            Handshakes::new(&provider.handshakes, &verifier, current).map_err(ProviderError::Handshake)?;
        Ok(Self {
            mapper: Mapper::new(&provider.mapping).ok_or(ProviderError::Mapping)?,
            acknowledgement: acknowledgement(&provider.acknowledgement)
                .ok_or(ProviderError::Acknowledgement)?,
            verifier,
            handshakes,
        })
    }
}

fn acknowledgement(wanted: &grapnel_crds::Acknowledgement) -> Option<Acknowledgement> {
    let status = match wanted.status {
        Some(status) => Some(StatusCode::from_u16(u16::try_from(status).ok()?).ok()?),
        None => None,
    };
    let body = match &wanted.body {
        Some(body) => {
            let content_type = wanted.content_type.as_deref().unwrap_or("text/plain");
            Some((HeaderValue::from_str(content_type).ok()?, body.as_str().into()))
        }
        None => None,
    };
    Some(Acknowledgement { status, body })
}
