//! A delivery: the work of bringing one event to one destination.
//!
//! Decisions and values only: the store writes the results, and the runtime sends the requests.

pub mod egress_policy;
pub mod service_endpoints;
pub mod signing;
pub mod hops;
pub mod tls_material;
pub mod oauth2;
pub mod target;
pub mod outcome;
pub mod retry;
pub mod state;
