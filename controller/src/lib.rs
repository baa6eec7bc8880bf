//! The control plane of Grapnel: turns Integrations into rows, queues and workers that follow the backlog.
//!
//! Three loops work on one [`context::Context`]. *Reconcile* brings one Integration to its desired state, step by step; the
//! *scaler* looks at all of them every few seconds; [`replays`] makes and reports jobs. Decisions are pure functions ([`replicas`], [`report::status`],
//! [`reconcile::worker_deployment`], [`worker_policy`], [`namespace_limits`], [`unused_secrets`], [`services::endpoints`], [`filter_problems`]); a few lines next to them perform the result. The data plane
//! keeps running without this program. No two modules of this list import each other.

pub mod worker_policy;
pub mod namespace_limits;
pub mod config;
pub mod namespaces;
pub mod run;
pub mod crd_wait;
pub mod lease;

pub mod watch;
pub mod reconcile;
pub mod queues;
pub mod unused_secrets;
pub mod services;
pub mod filter_problems;
pub mod report;
pub mod status_copies;

pub mod replays;

pub mod scaler;
pub mod replicas;
pub mod scale_subresource;

pub mod context;
pub mod memory;
pub mod object;
pub mod api;
pub mod error;
pub mod backoff;
pub mod metrics;

pub mod commands;
