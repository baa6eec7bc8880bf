//! Compiles an Integration's row: the result can verify, read and answer webhooks and deliver events.
//!
//! A row is compiled once for each of its versions. The controller compiles a row before it writes it, so that every
//! stored row can be served.

use std::sync::Arc;

use crate::compiled_provider::{CompiledProvider, ProviderError};
use crate::delivery::service_endpoints::ServiceEndpoints;
use crate::delivery::target::TargetError;
use crate::filter::{DestinationSet, IntegrationFilters};
use crate::ids::IntegrationId;
use crate::payload::DeliveredAs;
use crate::sealing::SealingKeys;
use crate::secret_uses::SecretUses;
use crate::secrets::{IntegrationSecrets, SecretsError};
use crate::verification::SchemeError;
use grapnel_crds::{FieldError, Integration, IntegrationSpec, IntegrationState, WebhookMethod};
use http::{HeaderValue, Method};
use thiserror::Error;

mod destination;

pub(crate) use destination::check_sent;
pub use destination::{CompiledDestination, DestinationSecretError, ForwardedHeaders};

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
    /// The destinations that answered 410 since the row has its generation.
    pub gone: Vec<String>,
    /// The JSON text of [`ServiceEndpoints`]; `None`: no destination is a Service.
    pub endpoints: Option<String>,
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
            gone: Vec::new(),
            endpoints: None,
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
    pub methods: WebhookMethods,
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
    /// Which of `destinations` get an event, by their positions; `None`: all get all.
    pub filters: Option<IntegrationFilters>,
    /// Those of `destinations` to which nothing is delivered now.
    pub held: DestinationSet,
}

/// The methods that webhooks may have.
#[derive(Debug)]
pub struct WebhookMethods(Vec<Method>);

/// A row that cannot be compiled.
#[derive(Debug, Error)]
pub enum CompileError {
    #[error("the spec has a format that this version does not know")]
    Spec(#[source] serde_json::Error),
    #[error("the addresses of its Services have a format that this version does not know")]
    Endpoints(#[source] serde_json::Error),
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error("{0}")]
    UnknownProvider(FieldError),
    /// The verification secrets are not valid keys for the provider.
    #[error(transparent)]
    Verification(SchemeError),
    #[error(transparent)]
    Provider(ProviderError),
    /// A secret of a destination is missing or cannot be used.
    #[error("a secret of destination {destination} cannot be used")]
    DestinationSecret {
        destination: String,
        #[source]
        source: DestinationSecretError,
    },
    /// Expressions of filters cannot be used. The errors name their fields.
    #[error("{}", joined(.0))]
    Filters(Vec<FieldError>),
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
        let filters = IntegrationFilters::new(&spec).map_err(CompileError::Filters)?;
        let endpoints = match &row.endpoints {
            Some(text) => ServiceEndpoints::parse(text).map_err(CompileError::Endpoints)?,
            None => ServiceEndpoints::default(),
        };
        let destinations: Vec<_> = spec
            .destinations
            .iter()
            .map(|destination| {
                CompiledDestination::new(destination, &row, &endpoints, &secrets).map(Arc::new)
            })
            .collect::<Result<_, _>>()?;
        let mut compiled = Self {
            state: spec.state,
            draining: row.state == RowState::Draining,
            methods: WebhookMethods::new(&spec.ingress.methods),
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
            filters,
            row,
            held: DestinationSet::default(),
        };
        for (position, destination) in compiled.destinations.iter().enumerate() {
            if !compiled.delivers_to(destination) {
                compiled.held.insert(position);
            }
        }
        Ok(compiled)
    }

    /// Returns whether webhooks are accepted.
    pub fn accepts(&self) -> bool {
        self.state != IntegrationState::Disabled && !self.draining
    }

    /// Returns whether accepted events are delivered to a destination of it now: not while it is paused, not to one that is gone, and not
    /// to a Service without ready pods.
    pub fn delivers_to(&self, destination: &CompiledDestination) -> bool {
        self.state == IntegrationState::Active
            && destination.has_receiver()
            && !self.row.gone.iter().any(|gone| **gone == *destination.name)
    }

    /// Returns whether a destination gets events as they came.
    pub fn delivers_raw(&self) -> bool {
        self.destination_forms().any(|(_, form)| form == DeliveredAs::Raw)
    }

    /// Returns whether a destination needs headers of the webhook: those that it is sent, or the `content-type` for the form of its events.
    pub fn needs_headers(&self) -> bool {
        self.destination_forms().any(|(destination, form)| {
            form != DeliveredAs::Normalized || destination.forwarded.are_always_needed()
        })
    }

    /// The destinations, and the form in which each gets new events.
    fn destination_forms(&self) -> impl Iterator<Item = (&CompiledDestination, DeliveredAs)> {
        let stored = self.compiled.mapper.delivered_as;
        self.destinations
            .iter()
            .map(move |destination| (&**destination, destination.delivered_as.unwrap_or(stored)))
    }

    pub fn destination(&self, name: &str) -> Option<&Arc<CompiledDestination>> {
        self.destinations.iter().find(|destination| &*destination.name == name)
    }
}

impl WebhookMethods {
    pub fn new(methods: &[WebhookMethod]) -> Self {
        let method = |method: &WebhookMethod| match method {
            WebhookMethod::Post => Method::POST,
            WebhookMethod::Get => Method::GET,
            WebhookMethod::Put => Method::PUT,
        };
        Self(methods.iter().map(method).collect())
    }

    pub fn contains(&self, method: &Method) -> bool {
        self.0.contains(method)
    }

    /// Returns the value of the header `allow`.
    pub fn allow(&self) -> HeaderValue {
        let names: Vec<&str> = self.0.iter().map(Method::as_str).collect();
        HeaderValue::try_from(names.join(", ")).expect("the names of methods are ASCII")
    }
}

fn joined(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
