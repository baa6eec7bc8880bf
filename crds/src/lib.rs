//! The `Integration` custom resource: its types, its rules, and every name that is derived from it.
//!
//! This crate is the vocabulary that the controller and the runtime share. It does no I/O, starts no task and knows no
//! datastore. The schema generated from these types is the only description of the object: the API server enforces it,
//! and `validate` enforces the same bounds and rules on objects that come from files.

#![expect(
    unreachable_pub,
    reason = "the KubeSchema derive copies each type, its `pub` included, into a function body"
)]

mod defaults;
mod rules;
pub mod presets;
mod provider_rules;
mod checks;
mod url_rules;
mod schema;
pub mod integration;
pub mod scheme;
pub mod handshake;
pub mod mapping;
pub mod verification;
pub mod destination;
pub mod workers;
pub mod resources;
pub mod status;
pub mod conditions;
pub mod names;
pub mod crd;
pub mod validate;
pub mod secret;
pub mod document;

pub use crd::{crd, crd_yaml};
pub use destination::{Backoff, Destination, RetryPolicy};
pub use document::{Document, DocumentError, ParseError, parse_documents};
pub use handshake::{Condition, ConfirmUrl, Handshake, Match, Method, Proof, Respond, RespondHeader};
pub use integration::{DeletionPolicy, Ingress, Integration, IntegrationSpec, IntegrationState, Retention};
pub use mapping::{Acknowledgement, BodyKind, Deliver, MappedField, Mapping, TimeFormat};
pub use resources::{Resources, Toleration, TolerationEffect, TolerationOperator};
pub use scheme::{
    BodyDigest, Hash, Key, KeyEncoding, Scheme, SchemeType, Separator, SignatureEncoding, SignatureSource,
    TimeUnit, TimestampSource,
};
pub use secret::{Secret, SecretError, SecretValue, resolve_secret};
pub use status::{
    IntegrationStatus, RouteStatus, ScalingDecision, ScalingStatus, UnusedSecret, VerificationStatus,
    WorkersStatus,
};
pub use validate::FieldError;
pub use verification::{SecretRef, Verification};
pub use workers::{Scaling, ScalingMode, Workers};

/// The API group of every custom resource of Grapnel.
pub const API_GROUP: &str = "grapnel.dev";

/// The served and stored version of `Integration`.
pub const API_VERSION: &str = "grapnel.dev/v1alpha1";

/// The kind of the custom resource.
pub const KIND: &str = "Integration";
