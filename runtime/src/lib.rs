//! The data plane of Grapnel, in the order in which a webhook meets it.

pub mod secret_file;
pub mod config;
pub mod telemetry;
pub mod shutdown;
pub mod roles;
pub mod server;
pub mod respond;
pub mod health;
pub mod clock;

pub mod files;
pub mod apply;
pub mod preset;
pub mod provider;
pub mod providers;
pub mod verify;
pub mod sealing;
pub mod secrets;
pub mod integrations;
pub mod secret_uses;

pub mod ingress;
pub mod limits;
pub mod hint;
pub mod store;
pub mod queue;
pub mod dispatch;
pub mod maintenance;

pub mod event;
pub mod worker;
pub mod deliver;
pub mod standard_webhooks;
pub mod retry;

pub mod management;
pub mod openapi;

pub mod probe;
