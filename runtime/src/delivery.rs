//! A delivery, from its row to the receiver and back.
//!
//! The modules are the steps, in order: the dispatcher queues due deliveries (those of replays are made due by the feeder), a worker's lanes consume and claim them, an
//! attempt is sent, and its result is recorded.

pub(crate) mod dispatch;
pub(crate) mod feed;
pub(crate) mod worker;
pub(crate) mod heartbeat;
pub(crate) mod lane;
mod lane_permits;
mod claimants;
pub(crate) mod payload_budget;
mod content;
pub(crate) mod tokens;
pub(crate) mod attempt;
pub(crate) mod send;
pub(crate) mod record;
mod message;
