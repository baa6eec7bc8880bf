//! The deliveries. Every statement that writes one is in this folder, in the order of `grapnel_core::delivery::state`.
//!
//! Invariants: a result is written only under the newest claim and while its lease runs; a finished delivery cannot
//! be claimed; a delivery that becomes due or is requeued is marked before its message is published, so that every unfinished
//! delivery is either due, queued or leased.

mod insert;
mod due;
mod claim;
mod record;
mod replay;
pub(crate) mod end;

pub use claim::{ClaimedDelivery, CloudEventFields, claim, long_payload};
pub use due::{QueueBacklog, RequeuedDelivery, give_back, overdue_queues, take_due, take_overdue};
pub use end::end_if_removed;
pub(crate) use end::end_removed;
pub(crate) use insert::insert_deliveries;
pub use record::{AttemptResult, RecordedAttempt, record};
pub use replay::NewReplay;
pub(crate) use replay::{add_for_replay, lock_for_replay, take_for_replay};
