//! The custom resources `Integration` and `Replay`: their types, their rules, and every name that is derived from them.
//!
//! This crate is the vocabulary that the controller and the runtime share. It does no I/O, starts no task and knows no
//! datastore. The schema generated from these types is the only description of an object: the API server enforces it,
//! and `validation` enforces the same bounds and rules on objects that come from files.
//!
//! No two of these modules import each other: each one uses only modules above it.

#![expect(
    unreachable_pub,
    reason = "the KubeSchema derive copies each type, its `pub` included, into a function body"
)]

mod rules;
mod formats;
pub mod presets;
pub mod conditions;
mod status;
mod replay_status;
mod spec;
pub mod names;
mod crd;
mod validation;
mod secret;
mod document;

pub use crd::{API_VERSION, KIND, REPLAY_KIND, crd, definition_yaml, definitions, replay_crd};
pub use document::{Document, DocumentError, ParseError, parse_documents};
pub use replay_status::{ReplayPhase, ReplayStatus, SkippedDeliveries};
pub use secret::{
    Secret, SecretError, SecretValue, permits_destinations, resolve_secret, resolve_sent_secret,
    white_space_warning, without_line_end,
};
pub use spec::destination::{
    Auth, Backoff, BasicAuth, CaRef, CertificateRef, ClientAuthentication, Destination, DestinationFormat,
    DestinationHeader, DestinationTls, FilterErrorPolicy, OAuth2, RetryPolicy, ServiceRef, ServiceScheme,
};
pub use spec::handshake::{
    ConfirmationUrl, Handshake, HandshakeAuth, HandshakeCondition, HandshakeHeader, HandshakeMatch,
    HandshakeMethod, HandshakeResponse,
};
pub use spec::integration::{
    DeletionPolicy, IngressLimits, Integration, IntegrationSpec, IntegrationState, Retention, WebhookMethod,
};
pub use spec::mapping::{Acknowledgement, BodyKind, DeliveryFormat, MappedField, Mapping, TimeFormat};
pub use spec::replay::{IntegrationRef, Replay, ReplayOrder, ReplaySelection, ReplaySpec, ReplayState};
pub use spec::resources::{
    Resources, Toleration, TolerationEffect, TolerationOperator, exceeds_quantity, same_quantity,
};
pub use spec::scheme::{
    BodyDigest, HashAlgorithm, KeyEncoding, KeyFormat, Scheme, SchemeType, Separator, SignatureEncoding,
    SignatureSource, SignedBody, TimeUnit, TimestampSource,
};
pub use spec::verification::{SecretRef, Verification};
pub use spec::workers::{Scaling, ScalingMode, Workers};
pub use status::{
    IntegrationStatus, RouteStatus, ScalingDecision, ScalingStatus, UnusedSecret, VerificationStatus,
    WorkersStatus,
};
pub use validation::FieldError;
