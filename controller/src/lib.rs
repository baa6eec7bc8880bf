//! The control plane of Grapnel: turns Integrations into rows, queues and workers that follow the backlog.
//!
//! Two loops share what is here. *Reconcile* makes one object true, step by step; *scale* looks at all of them every few
//! seconds. What is to be decided is decided by functions of values; what is to be done is done by a few lines beside
//! them. The data plane goes on without this program.

pub mod config;
pub mod run;
pub mod crd_wait;
pub mod lease;
pub mod context;

pub mod watch;
pub mod reconcile;
pub mod resolve_secrets;
pub mod register;
pub mod queues;
pub mod apply_workers;
pub mod worker_deployment;
pub mod undecodable;
pub mod status;
pub mod events;
pub mod cleanup;
pub mod sweep;
pub mod secrets;

pub mod scale;

pub mod backoff;
pub mod metrics;
pub mod explain;
pub mod uninstall;
