//! An Integration, compiled: ready to verify, read, answer and deliver.
//!
//! A row is compiled once for each of its versions. The controller compiles a row before it writes it, so that every row
//! that is written can be served.

use std::sync::Arc;
use std::time::Duration;

use crate::compiled_provider::{CompiledProvider, ProviderError};
use crate::delivery::retry::{self, RetryPolicy};
use crate::delivery::signing::{SigningKey, SigningKeyError};
use crate::delivery::target::{Target, TargetError};
use crate::ids::IntegrationId;
use crate::sealing::SealingKeys;
use crate::secret_uses::SecretUses;
use crate::secrets::{IntegrationSecrets, SecretsError};
use crate::verification::SchemeError;
use grapnel_crds::{Backoff, FieldError, IntegrationSpec, IntegrationState};
use thiserror::Error;

/// The uid of an object that came from a file begins with this: it has no leader, and no cluster gives it a uid.
pub const FILE_UID_PREFIX: &str = "file:";

/// The state of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    Active,
    DeliveryPaused,
    Disabled,
    /// The object is being deleted: webhooks are refused, and what was accepted is still delivered.
    Draining,
}

impl RowState {
    const ALL: [Self; 4] = [Self::Active, Self::DeliveryPaused, Self::Disabled, Self::Draining];

    /// The stored form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::DeliveryPaused => "DeliveryPaused",
            Self::Disabled => "Disabled",
            Self::Draining => "Draining",
        }
    }

    /// Reads the stored form.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl From<IntegrationState> for RowState {
    fn from(state: IntegrationState) -> Self {
        match state {
            IntegrationState::Active => Self::Active,
            IntegrationState::DeliveryPaused => Self::DeliveryPaused,
            IntegrationState::Disabled => Self::Disabled,
        }
    }
}

/// A live row. `spec` is the JSON text of the object's spec, `secrets` is sealed.
#[derive(Debug, Clone, PartialEq)]
pub struct IntegrationRow {
    pub id: IntegrationId,
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub generation: i64,
    pub writer_epoch: i64,
    pub provider: String,
    pub route: String,
    pub display_name: String,
    pub state: RowState,
    pub spec: String,
    pub secrets: Vec<u8>,
}

/// An integration, ready to verify and deliver.
#[derive(Debug)]
pub struct Integration {
    pub row: IntegrationRow,
    pub state: IntegrationState,
    /// Its object is being deleted: webhooks are refused, and what was accepted is still delivered.
    pub draining: bool,
    pub max_body_bytes: usize,
    /// `None`: the platform's limit; 0: no limit.
    pub rate_limit_per_minute: Option<u32>,
    pub provider: Arc<str>,
    /// How its webhooks are verified, answered and read.
    pub compiled: CompiledProvider,
    /// Which of its secrets prove webhooks.
    pub uses: SecretUses,
    pub destinations: Vec<Arc<Destination>>,
    /// The names of `destinations`, as events are stored with them.
    pub destination_names: Arc<[Arc<str>]>,
}

#[derive(Debug)]
pub struct Destination {
    pub name: Arc<str>,
    pub target: Target,
    pub timeout: Duration,
    /// Requests in flight from one worker.
    pub max_concurrency: usize,
    pub retry: RetryPolicy,
}

/// Why a row serves nothing.
#[derive(Debug, Error)]
pub enum CompileError {
    #[error("the spec is not of a form that this version knows")]
    Spec(#[source] serde_json::Error),
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error("{0}")]
    UnknownProvider(FieldError),
    /// The verification secrets are no keys for the provider.
    #[error(transparent)]
    Verification(SchemeError),
    #[error(transparent)]
    Provider(ProviderError),
    #[error("the signing secret of destination {destination} cannot be used")]
    Signing {
        destination: String,
        #[source]
        source: SigningKeyError,
    },
    #[error("destination {destination} cannot be used")]
    Destination {
        destination: String,
        #[source]
        source: TargetError,
    },
}

impl From<ProviderError> for CompileError {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::Unknown(error) => Self::UnknownProvider(error),
            ProviderError::Scheme(error @ (SchemeError::EmptySecret | SchemeError::Key(_))) => {
                Self::Verification(error)
            }
            error => Self::Provider(error),
        }
    }
}

impl Integration {
    /// What a row comes to. The controller compiles a row before it writes it, so that what is written can be served.
    pub fn compile(row: IntegrationRow, keys: &SealingKeys) -> Result<Self, CompileError> {
        let spec: IntegrationSpec = serde_json::from_str(&row.spec).map_err(CompileError::Spec)?;
        let secrets = IntegrationSecrets::open(keys, row.id, &row.secrets)?;
        let compiled = CompiledProvider::new(&spec, &secrets.verification()?)?;
        let destinations: Vec<_> = spec
            .destinations
            .iter()
            .map(|destination| compile_destination(destination, &row.provider, &secrets).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            state: spec.state,
            draining: row.state == RowState::Draining,
            max_body_bytes: usize::try_from(spec.ingress.max_body_bytes).unwrap_or(0),
            rate_limit_per_minute: spec
                .ingress
                .rate_limit_per_minute
                .map(|limit| u32::try_from(limit).unwrap_or(0)),
            provider: row.provider.as_str().into(),
            compiled,
            uses: SecretUses::new(&spec.verification),
            destination_names: destinations.iter().map(|destination| Arc::clone(&destination.name)).collect(),
            destinations,
            row,
        })
    }

    /// Whether webhooks are accepted.
    pub fn accepts(&self) -> bool {
        self.state != IntegrationState::Disabled && !self.draining
    }

    pub fn destination(&self, name: &str) -> Option<&Arc<Destination>> {
        self.destinations.iter().find(|destination| &*destination.name == name)
    }
}

fn compile_destination(
    spec: &grapnel_crds::Destination,
    provider: &str,
    secrets: &IntegrationSecrets,
) -> Result<Destination, CompileError> {
    let signing = |source| CompileError::Signing { destination: spec.name.clone(), source };
    let mut signing_keys = Vec::new();
    for secret in secrets.signing(&spec.name)? {
        let text = std::str::from_utf8(&secret).map_err(|_| signing(SigningKeyError::Base64))?;
        signing_keys.push(SigningKey::parse(text).map_err(signing)?);
    }
    let target = Target::new(&spec.url, spec.timeout(), provider, signing_keys)
        .map_err(|source| CompileError::Destination { destination: spec.name.clone(), source })?;
    Ok(Destination {
        name: spec.name.as_str().into(),
        target,
        timeout: spec.timeout(),
        max_concurrency: spec.concurrency(),
        retry: RetryPolicy {
            max_attempts: spec.retry.attempts(),
            backoff: match spec.retry.backoff {
                Backoff::Exponential => retry::Backoff::Exponential,
                Backoff::Linear => retry::Backoff::Linear,
            },
            initial_delay: spec.retry.initial_delay(),
            max_delay: spec.retry.max_delay(),
            retry_after_max: spec.retry.retry_after_max(),
        },
    })
}
