//! From the request to the deliveries that it takes.

use grapnel_core::ids::{EventId, IntegrationId, ReplayId};
use uuid::Uuid;

use crate::database::Database;
use crate::deliveries::{lock_for_replay, take_for_replay};
use crate::error::Result;
use crate::integrations::lock_active_destinations;

/// Who asks for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReplay {
    pub event_id: EventId,
    /// Only this destination; `None` is all of the event's.
    pub destination: Option<String>,
    pub requested_by: String,
    pub reason: String,
}

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// Stored under this id; the dispatcher should be woken.
    Accepted(ReplayId),
    UnknownEvent,
    /// The event was never meant for the destination.
    UnknownDestination,
    /// The integration was removed or is disabled.
    InactiveIntegration,
    /// The integration no longer has the destination, or none of the event's.
    RemovedDestination,
}

// The timeout is that of the reading statements. A row lock that cannot be had in half of it is not worth waiting for.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL statement_timeout = '10s';
    SET LOCAL lock_timeout = '5s'";

/// Group commits lock rows of many deliveries; a transaction that met one the wrong way round is run again.
const TRIES: usize = 3;

/// Stores a request and takes the deliveries. Nothing is stored unless it answers [`ReplayOutcome::Accepted`].
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
    let integration_id: Option<Uuid> =
        sqlx::query_scalar("/* replays::find_event */ SELECT integration_id FROM events WHERE id = $1")
            .bind(replay.event_id.uuid())
            .fetch_optional(&mut *tx)
            .await?;
    let Some(integration_id) = integration_id.map(IntegrationId::new) else {
        return Ok(ReplayOutcome::UnknownEvent);
    };
    // Locked in this order everywhere: the integration, its deliveries, their replay requests.
    let destinations = lock_active_destinations(&mut tx, integration_id).await?;
    let deliveries = lock_for_replay(&mut tx, replay).await?;
    if deliveries.is_empty() {
        return Ok(ReplayOutcome::UnknownDestination);
    }
    let Some(destinations) = destinations else {
        return Ok(ReplayOutcome::InactiveIntegration);
    };
    let last_replay = deliveries.iter().filter_map(|delivery| delivery.replay_request_id).max();
    let taken: Vec<String> = deliveries
        .into_iter()
        .map(|delivery| delivery.destination)
        .filter(|destination| destinations.contains(destination))
        .collect();
    if taken.is_empty() {
        return Ok(ReplayOutcome::RemovedDestination);
    }
    let id = next_id(last_replay);
    take_for_replay(&mut tx, id, replay, &taken).await?;
    tx.commit().await?;
    Ok(ReplayOutcome::Accepted(id))
}

/// A new id, greater than that of the last replay even if it was made by a machine whose clock is ahead.
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
