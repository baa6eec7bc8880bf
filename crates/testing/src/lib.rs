//! Shared by the tests of Grapnel's crates; part of no program.
//!
//! It depends on none of the crates under test.

mod wait;
mod environment;
mod process;
mod services;
mod database;
mod queue;
mod proxy;
mod receiver;
mod acme;
mod request;
pub mod signer;
pub mod certificates;

pub use acme::{ACME_SECRET, acme_event, acme_signature, hmac_sha256};
pub use database::{TestDatabase, TestTransaction};
pub use environment::{Environment, MANAGEMENT_KEY, SEALING_KEYS, free_port, unique_name};
pub use process::{TestProcess, print_logs, run_to_end};
pub use proxy::{FaultProxy, on_port};
pub use queue::{BusyConsumer, TestQueue};
pub use receiver::{Delivery, RawReceiver, Reply, TestReceiver};
pub use request::{PUBLIC_URL, WebhookRequest};
pub use services::TestServices;
pub use wait::{WAIT_TIMEOUT, wait_until};
