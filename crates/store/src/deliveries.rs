//! The deliveries. Every statement that writes one is in this folder, in the order of `grapnel_core::delivery::state`.
//!
//! Invariants: a result is written only under the newest claim and while its lease runs; a finished delivery cannot
//! be claimed; a delivery that becomes due or is requeued is marked before its message is published, so that every unfinished
//! delivery is either due, queued or leased.

mod insert;
mod held;
mod due;
mod claim;
mod attempt_index;
mod record;
mod abandoned;
mod replay;
pub(crate) mod end;
mod removals;

pub use abandoned::take_abandoned;
pub(crate) use attempt_index::{
    indexed_attempts, is_attempt_entry, is_attempt_entry_at, is_attempt_of_slice,
};
pub use claim::{ClaimedDelivery, ClaimingDestination, CloudEventFields, claim, long_payload};
pub use due::{
    LostDeliveries, QueueBacklog, RequeuedDelivery, Wait, backlogs, find_lost, give_back, queued_counts,
    take_due, take_lost,
};
pub(crate) use held::never;
pub use held::{DeliveryQueue, held_queues, open_queues, release};
pub use insert::Birth;
pub(crate) use insert::{insert_deliveries, is_filtered};
pub use record::{AttemptResult, RecordedAttempt, record};
pub use removals::{RemovalProgress, end_if_removed, end_removed};
pub(crate) use removals::{end_while_waiting, is_being_removed, record_removal};
pub use replay::NewReplay;
pub(crate) use replay::{LockedDelivery, add_for_replay, lock_for_replay, take_for_replay};
