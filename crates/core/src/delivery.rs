//! A delivery: the work of bringing one event to one destination.
//!
//! Decisions and values only. The store writes what is decided here, and the runtime sends.

pub mod egress_policy;
pub mod signing;
pub mod target;
pub mod outcome;
pub mod retry;
pub mod state;
