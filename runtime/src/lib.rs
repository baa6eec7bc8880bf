//! The data plane of Grapnel.

pub mod config;
pub mod telemetry;
pub mod respond;
pub mod preset;
pub mod sealing;
pub mod secrets;
pub mod integrations;
pub mod ingress;
pub mod limits;
pub mod server;
pub mod health;
pub mod hint;
pub mod store;
pub mod queue;
pub mod dispatch;
pub mod event;
pub mod worker;
pub mod standard_webhooks;
pub mod deliver;
pub mod retry;
