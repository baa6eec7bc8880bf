//! A delivery, from its row to the receiver and back.
//!
//! The modules are the steps, in order: the dispatcher queues due deliveries, a worker's lanes consume and claim them, an
//! attempt is sent, and its result is recorded.

pub(crate) mod dispatch;
pub(crate) mod worker;
pub(crate) mod lane;
mod lane_permits;
pub(crate) mod payload_budget;
pub(crate) mod attempt;
pub(crate) mod send;
pub(crate) mod record;
