//! A delivery, from its row to the receiver and back.
//!
//! The modules are the steps, in order: the dispatcher queues due deliveries, a worker's lanes consume and claim them, an
//! attempt is sent, and its result is recorded.

pub mod dispatch;
pub mod worker;
pub mod lane;
pub mod payload_budget;
pub mod attempt;
pub mod send;
pub mod record;
