//! Replays: an operator's request to deliver an event again, from the request to its end.
//!
//! # States of a request
//!
//! ```text
//! queued ──▶ dispatched ──▶ completed | failed
//!    └──────────────────────────▲
//! ```
//!
//! - [`request_replay`] stores the request as `queued`, audits it and takes the deliveries, in one transaction: before
//!   anything is published. When every delivery it takes is already in its queue or in flight, there is nothing left to
//!   dispatch, and it is `dispatched` at once.
//! - [`mark_dispatched`] follows the dispatcher: `dispatched` when no delivery waits for its first publication.
//! - [`settle`] follows whoever finished a delivery: `completed` when all deliveries succeeded, `failed` when none is
//!   unfinished and one failed. A request can end before it was marked as dispatched; both entries are then written.
//!   `completed` and `failed` are final.
//!
//! # What a replay does to a delivery
//!
//! | delivery | becomes |
//! |---|---|
//! | succeeded, failed | pending, due now |
//! | retrying, waiting for its time | pending, due now |
//! | pending or retrying, queued | stays queued: the attempt that comes is the replay's |
//! | processing under a running lease | stays claimed: the attempt under way counts as the replay's own |
//! | processing, lease expired | pending, due now; the lost claim can write no result |
//!
//! All of them count on from their attempts with a fresh budget (`budget_start`), carry the request's id and are
//! triggered by `replay`. To know which deliveries are a request's own, ids of requests for one event strictly grow.
//!
//! # Several replays of one event
//!
//! A newer request takes the deliveries over from an older one. The older does not end by that: its deliveries are those
//! of its scope that carry its own id *or a newer one's*, so it is dispatched, completed or failed by what becomes of
//! them, as a rule together with the newer. Hence both functions look at all unfinished requests of an event, and none
//! waits for ever. What a crash left behind is found by [`settle_leftovers`], which runs now and then.
//!
//! # What cannot be replayed
//!
//! A delivery whose integration was removed or is `Disabled`, or whose destination the integration no longer has: no
//! worker would take it. A replay of all destinations leaves such destinations out, unless there is no other. The row of
//! the integration is locked for the transaction, so that a removal comes before or after, and then ends the deliveries.

mod request;
mod settle;

pub use request::{NewReplay, ReplayOutcome, request_replay};
pub(crate) use settle::settle_in;
pub use settle::{mark_dispatched, settle_leftovers};
