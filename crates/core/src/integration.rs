//! Compiles an Integration's row: the result can verify, read and answer webhooks and deliver events.
//!
//! A row is compiled once for each of its versions. The controller compiles a row before it writes it, so that every
//! stored row can be served.

use std::sync::Arc;
use std::time::Duration;

use crate::compiled_provider::{CompiledProvider, ProviderError};
use crate::delivery::retry::CompiledRetryPolicy;
use crate::delivery::signing::{SigningKey, SigningKeyError};
use crate::delivery::target::{DeliveryTarget, TargetError};
use crate::ids::IntegrationId;
use crate::sealing::SealingKeys;
use crate::secret_uses::SecretUses;
use crate::secrets::{IntegrationSecrets, SecretsError};
use crate::verification::SchemeError;
use grapnel_crds::{FieldError, Integration, IntegrationSpec, IntegrationState};
use thiserror::Error;

/// The beginning of the uid of an object from a file. Such an object has no leader, and no cluster assigns it a uid.
pub const FILE_UID_PREFIX: &str = "file:";

/// The state of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    Active,
    DeliveryPaused,
    Disabled,
    /// The object is being deleted: webhooks are refused, and accepted events are still delivered.
    Draining,
}

impl RowState {
    const ALL: [Self; 4] = [Self::Active, Self::DeliveryPaused, Self::Disabled, Self::Draining];

    /// Returns the stored form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::DeliveryPaused => "DeliveryPaused",
            Self::Disabled => "Disabled",
            Self::Draining => "Draining",
        }
    }

    /// Returns whether webhooks are accepted.
    pub const fn accepts(self) -> bool {
        matches!(self, Self::Active | Self::DeliveryPaused)
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

/// An integration's row. `spec` is the JSON text of the object's spec, `secrets` is sealed.
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

/// The parts of a row that an object in a cluster and one from a file get in different ways.
#[derive(Debug, Clone)]
pub struct RowIdentity {
    pub id: IntegrationId,
    pub uid: String,
    pub generation: i64,
    pub writer_epoch: i64,
}

impl IntegrationRow {
    /// Returns the row of an object with its sealed secrets.
    pub fn new(object: &Integration, identity: RowIdentity, secrets: Vec<u8>) -> Self {
        let RowIdentity { id, uid, generation, writer_epoch } = identity;
        Self {
            id,
            uid,
            namespace: object.namespace_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
            generation,
            writer_epoch,
            provider: object.spec.provider.clone(),
            route: object.route().to_owned(),
            display_name: object.display_name().to_owned(),
            state: object.spec.state.into(),
            spec: spec_text(&object.spec),
            secrets,
        }
    }
}

impl IntegrationRow {
    /// Returns the destinations that the row has and a write with these ones removes. A spec that cannot be read has none.
    pub fn removed_destinations(&self, kept: &[String]) -> Vec<String> {
        let spec: Option<IntegrationSpec> = serde_json::from_str(&self.spec).ok();
        let names = spec.into_iter().flat_map(|spec| spec.destinations).map(|destination| destination.name);
        names.filter(|name| !kept.contains(name)).collect()
    }
}

/// Returns the stored form of a spec.
pub fn spec_text(spec: &IntegrationSpec) -> String {
    serde_json::to_string(spec).expect("a spec has only string keys")
}

/// An integration that can verify webhooks and deliver events.
#[derive(Debug)]
pub struct CompiledIntegration {
    pub row: IntegrationRow,
    pub state: IntegrationState,
    /// The object is being deleted: webhooks are refused, and accepted events are still delivered.
    pub draining: bool,
    pub max_body_bytes: usize,
    /// `None`: the platform's limit; 0: no limit.
    pub rate_limit_per_minute: Option<u32>,
    pub provider: Arc<str>,
    /// How its webhooks are verified, answered and read.
    pub compiled: CompiledProvider,
    /// Counts the webhooks that each of its secrets verified.
    pub uses: SecretUses,
    pub destinations: Vec<Arc<CompiledDestination>>,
    /// The names of `destinations`, as they are stored with events.
    pub destination_names: Arc<[Arc<str>]>,
}

/// A destination that events can be delivered to. Everything that an attempt uses is in it, so two that are equal deliver alike.
#[derive(Debug, PartialEq)]
pub struct CompiledDestination {
    pub name: Arc<str>,
    pub target: DeliveryTarget,
    pub timeout: Duration,
    /// Concurrent requests from one worker.
    pub max_concurrency: usize,
    pub retry: CompiledRetryPolicy,
}

/// A row that cannot be compiled.
#[derive(Debug, Error)]
pub enum CompileError {
    #[error("the spec has a format that this version does not know")]
    Spec(#[source] serde_json::Error),
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error("{0}")]
    UnknownProvider(FieldError),
    /// The verification secrets are not valid keys for the provider.
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

impl CompiledIntegration {
    /// Compiles a row.
    pub fn compile(row: IntegrationRow, keys: &SealingKeys) -> Result<Self, CompileError> {
        let spec: IntegrationSpec = serde_json::from_str(&row.spec).map_err(CompileError::Spec)?;
        let secrets = IntegrationSecrets::open(keys, row.id, &row.secrets)?;
        let verify_token = secrets.verify_token()?;
        let verify_token = verify_token.as_ref().map(|token| &token[..]);
        let compiled = CompiledProvider::new(&spec, &secrets.verification()?, verify_token)?;
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

    /// Returns whether webhooks are accepted.
    pub fn accepts(&self) -> bool {
        self.state != IntegrationState::Disabled && !self.draining
    }

    /// Returns whether accepted events are delivered now.
    pub fn delivers(&self) -> bool {
        self.state == IntegrationState::Active
    }

    pub fn destination(&self, name: &str) -> Option<&Arc<CompiledDestination>> {
        self.destinations.iter().find(|destination| &*destination.name == name)
    }
}

fn compile_destination(
    spec: &grapnel_crds::Destination,
    provider: &str,
    secrets: &IntegrationSecrets,
) -> Result<CompiledDestination, CompileError> {
    let signing = |source| CompileError::Signing { destination: spec.name.clone(), source };
    let mut signing_keys = Vec::new();
    for secret in secrets.signing(&spec.name)? {
        let text = std::str::from_utf8(&secret).map_err(|_| signing(SigningKeyError::Base64))?;
        signing_keys.push(SigningKey::parse(text).map_err(signing)?);
    }
    let target = DeliveryTarget::new(&spec.url, spec.timeout(), provider, signing_keys)
        .map_err(|source| CompileError::Destination { destination: spec.name.clone(), source })?;
    Ok(CompiledDestination {
        name: spec.name.as_str().into(),
        target,
        timeout: spec.timeout(),
        max_concurrency: spec.concurrency(),
        retry: CompiledRetryPolicy {
            max_attempts: spec.retry.attempts(),
            backoff: spec.retry.backoff,
            initial_delay: spec.retry.initial_delay(),
            max_delay: spec.retry.max_delay(),
            retry_after_max: spec.retry.retry_after_max(),
        },
    })
}
