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
//! - `settle_in` follows every statement that finishes a delivery: `completed` when all deliveries succeeded, `failed` when none is
//!   unfinished and one failed. A request can end before it was marked as dispatched; both entries are then written.
//!   `completed` and `failed` are final.
//!
//! # The effect of a replay on a delivery
//!
//! | delivery | becomes |
//! |---|---|
//! | succeeded, failed | pending, due now |
//! | filtered | stays filtered, unless the replay names its destination: then pending, due now |
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
//! of its scope that carry its own id *or a newer one's*, so it is dispatched, completed or failed as they are, usually
//! together with the newer. Hence both functions look at all unfinished requests of an event, and none waits forever.
//! [`settle_leftovers`], which runs periodically, finds the requests that a crash has left behind.
//!
//! # A destination that the event did not have
//!
//! A replay that names a destination which the integration got after the event, such as the new name of a renamed one, adds
//! the delivery to it, in the same transaction, with an audit entry of its own. Without a name only the deliveries that
//! there are count.
//!
//! # Deliveries that cannot be replayed
//!
//! A delivery whose integration was removed or is `Disabled`, or whose destination the integration no longer has: no
//! worker would take it. A replay of all destinations leaves such destinations out, unless there is no other. The row of
//! the integration is locked for the transaction, so that a removal comes before or after, and then ends the deliveries.
//! Nor is an event whose day has expired: the day is held for the transaction, so that it expires before, or stays.

use grapnel_core::ids::{IntegrationId, ReplayId};
use sqlx::Row;
use uuid::Uuid;

use crate::columns::Columns;
use crate::database::Database;
use crate::deliveries::{LockedDelivery, add_for_replay, lock_for_replay, take_for_replay};
use crate::destinations;
use crate::error::Result;
use crate::partitions;

pub use crate::deliveries::NewReplay;
pub use crate::replay_settlement::{mark_dispatched, settle_leftovers};

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// Stored under this id; the dispatcher should be woken. With what becomes of each delivery that it could take.
    Accepted(ReplayId, Vec<ReplayedDelivery>),
    UnknownEvent,
    /// The event was never meant for the destination, and the integration does not have it either.
    UnknownDestination,
    /// The integration was removed or is disabled.
    InactiveIntegration,
    /// The integration no longer has the destination, or none of the event's.
    RemovedDestination,
    /// The filters of all the event's destinations left it out.
    Filtered,
    /// The content of the event was erased.
    Erased,
}

/// A delivery of the event of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedDelivery {
    pub destination: String,
    /// `None`: the replay takes it.
    pub left_out: Option<LeftOut>,
}

/// Why a replay does not take a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// The integration no longer has the destination.
    Removed,
    /// The destination's filter left the event out, and the replay does not name it.
    Filtered,
}

// The statement timeout is the deadline of `Database`. A row lock that takes longer than half of it is not worth the wait.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL statement_timeout = '10s';
    SET LOCAL lock_timeout = '5s'";

/// Group commits lock rows of many deliveries; a transaction that met one the wrong way round is run again.
const TRIES: usize = 3;

/// Stores a request and takes the deliveries. Nothing is stored unless it returns [`ReplayOutcome::Accepted`].
pub async fn request_replay(db: &Database, replay: &NewReplay) -> Result<ReplayOutcome> {
    db.bounded(async {
        let mut tries = 1;
        loop {
            match try_request(db, replay).await {
                Err(failure) if failure.is_collision() && tries < TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    })
    .await
}

async fn try_request(db: &Database, replay: &NewReplay) -> Result<ReplayOutcome> {
    let mut tx = db.begin(BEGIN).await?;
    // An event whose day is being dropped is as good as gone.
    if !partitions::hold_day(&mut tx, replay.event_id).await? {
        return Ok(ReplayOutcome::UnknownEvent);
    }
    let event = sqlx::query(
        "/* replays::lock_event */
        SELECT integration_id, erased_at IS NOT NULL AS is_erased FROM events WHERE id = $1 FOR SHARE",
    )
    .bind(replay.event_id.uuid())
    .fetch_optional(&mut *tx)
    .await?;
    let Some(event) = event else { return Ok(ReplayOutcome::UnknownEvent) };
    if event.try_get("is_erased")? {
        return Ok(ReplayOutcome::Erased);
    }
    let integration_id = event.id("integration_id", IntegrationId::new)?;
    // Locked in this order everywhere: the event (by an erasure too), the integration, its deliveries, their replay requests.
    let destinations = destinations::lock(&mut tx, integration_id).await?;
    let mut deliveries = lock_for_replay(&mut tx, replay).await?;
    if deliveries.is_empty() {
        let is_configured =
            |name: &&String| destinations.as_ref().is_some_and(|known| known.names.contains(name));
        let Some(added) = replay.destination.as_ref().filter(is_configured) else {
            return Ok(ReplayOutcome::UnknownDestination);
        };
        add_for_replay(&mut tx, replay, integration_id, added).await?;
        deliveries = lock_for_replay(&mut tx, replay).await?;
    }
    let Some(destinations) = destinations.filter(|destinations| !destinations.is_disabled) else {
        return Ok(ReplayOutcome::InactiveIntegration);
    };
    let last_replay = deliveries.iter().filter_map(|delivery| delivery.replay_request_id).max();
    let replayed: Vec<ReplayedDelivery> =
        deliveries.into_iter().map(|delivery| replayed(delivery, replay, &destinations.names)).collect();
    let taken: Vec<String> = replayed
        .iter()
        .filter(|delivery| delivery.left_out.is_none())
        .map(|delivery| delivery.destination.clone())
        .collect();
    if taken.is_empty() {
        let is_filtered = replayed.iter().any(|delivery| delivery.left_out == Some(LeftOut::Filtered));
        return Ok(if is_filtered { ReplayOutcome::Filtered } else { ReplayOutcome::RemovedDestination });
    }
    let id = next_id(last_replay);
    take_for_replay(&mut tx, id, replay, &taken).await?;
    tx.commit().await?;
    Ok(ReplayOutcome::Accepted(id, replayed))
}

/// Decides whether a replay takes a delivery of its event.
fn replayed(delivery: LockedDelivery, replay: &NewReplay, configured: &[String]) -> ReplayedDelivery {
    let left_out = if !configured.contains(&delivery.destination) {
        Some(LeftOut::Removed)
    } else if delivery.is_filtered && replay.destination.is_none() {
        Some(LeftOut::Filtered)
    } else {
        None
    };
    ReplayedDelivery { destination: delivery.destination, left_out }
}

/// Returns a new id that is greater than that of the last replay, even if a machine whose clock is ahead made that.
fn next_id(last: Option<ReplayId>) -> ReplayId {
    let id = ReplayId::generate();
    match last {
        Some(last) if last >= id => ReplayId::new(Uuid::from_u128(last.uuid().as_u128().saturating_add(1))),
        _ => id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::DEADLINE;

    #[test]
    fn the_server_has_the_same_deadline() {
        let seconds = DEADLINE.as_secs();
        assert!(BEGIN.contains(&format!("statement_timeout = '{seconds}s'")));
        assert!(BEGIN.contains(&format!("lock_timeout = '{}s'", seconds / 2)));
    }

    #[test]
    fn ids_of_replays_grow_although_clocks_differ() {
        let ahead = ReplayId::new(Uuid::from_u128(Uuid::now_v7().as_u128() + (3_600_000 << 80)));
        let next = next_id(Some(ahead));
        assert!(next > ahead);
        assert_eq!(next.uuid().get_version_num(), 7);
        let now = next_id(Some(ReplayId::new(Uuid::nil())));
        assert!(now < ahead);
    }
}
