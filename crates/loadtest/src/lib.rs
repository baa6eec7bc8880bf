//! A load generator for Grapnel: numbered, signed webhooks out, their deliveries in, and an exact ledger of both.
//!
//! The number of an event is part of its id. The ledger knows for each number whether it was sent, how it was answered, and
//! how often it was delivered. So a report states what was lost (answered with a 2xx and never delivered), what was
//! delivered twice, and what was delivered although it never should have been. A run may continue while parts of the system
//! under test are killed: an event without an answer is *unknown*, and may be delivered or not.
//!
//! A [`ReplayRun`] lets every delivery fail, and has a replay deliver them again.
//!
//! Sender, sink and, in an open loop, pacing run on one thread each, separate from the caller's runtime. [`Report`]
//! documents the fields of `--json`.
//!
//! Limits: in a [`Run`], an event that is delivered to two routes of the sink counts as delivered twice, HTTPS is not supported, and a run
//! id must not be used again.
//!
//! Of Grapnel, only the presets and the types of the Integration are used here: the load generator must not share the code
//! that it tests.

pub mod commands;
mod config;
mod schedule;
mod request_template;
mod event_body;
mod byte_template;
mod decimal;
mod credentials;
mod signer;
mod connection;
mod sender;
mod sink;
mod signing_key;
mod ledger;
mod outage_ledger;
mod latency;
mod run;
mod replay;
mod process;
mod progress_bar;
mod report;
mod bench;
#[cfg(test)]
mod tests;

pub use config::{Amount, Config, Pace, Provider, RunId, SinkConfig, Target};
pub use latency::Percentiles;
pub use ledger::{MAX_NUMBERS, Progress};
pub use outage_ledger::KeptRate;
pub use replay::{Counters, FailedEvents, ReplayConfig, ReplayLimits, ReplayReport, ReplayRun, Skipped};
pub use report::{ConfigEcho, Deliveries, Latencies, Rates, Report, SettleOutcome};
pub use run::{Handle, Run};
pub use schedule::StopReason;
pub use signing_key::VerificationKey;
