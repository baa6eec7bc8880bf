//! The data plane of Grapnel, behind the `grapnel` binary. The modules are in the order in which a webhook passes them.

mod args;
pub mod commands;
pub mod http;

mod egress;
mod captured_request;
mod integrations;
mod rate_limit;
mod traffic;
pub mod rejections;
mod ingress;
mod delivery;
pub mod management;
mod console;
mod maintenance;
