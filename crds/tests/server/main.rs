//! The published definitions on a real API server, which accepts, rejects, defaults and shows objects as this crate
//! does.
//!
//! The server is that of KUBECONFIG. `scripts/test --only cluster` starts one and runs these tests; without KUBECONFIG,
//! every test fails with a message.

#[path = "../it/cases.rs"]
mod cases;
mod kubectl;

mod admission;
mod commands;
mod replays;
mod storage;
