//! The published definition on a real API server: that it accepts, refuses, defaults and shows what this crate says.
//!
//! The server is that of KUBECONFIG. `scripts/test --only cluster` starts one and runs this; where KUBECONFIG is not set,
//! every test fails and says so.

#[path = "../it/cases.rs"]
mod cases;
mod kubectl;

mod admission;
mod commands;
mod storage;
