//! The data plane of Grapnel.

pub mod config;
pub mod respond;
pub mod preset;
pub mod ingress;
pub mod hint;
pub mod store;
pub mod queue;
pub mod standard_webhooks;
pub mod sealing;
