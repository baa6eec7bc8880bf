//! The data plane of Grapnel: the `grapnel` binary, in the order in which a webhook meets its parts.

pub mod args;
pub mod commands;
pub mod http;

pub mod integrations;
pub mod rate_limit;
pub mod ingress;
pub mod delivery;
pub mod management;
pub mod maintenance;
