//! Provides the payloads of claimed deliveries, within a memory budget.
//!
//! A short payload comes with its claim. A long one is fetched when there is room for it and for the request that is built
//! from it; without room, its delivery waits, and after a while it is postponed without counting as an attempt.
//!
//! A destination that answers slowly holds its payloads for long. So each destination may always have one long payload, and takes
//! others from a budget that all share, up to its part of it. A worker's memory for long payloads is bounded by that budget and one
//! payload for each of its destinations.

use std::sync::Arc;
use std::time::Duration;

use grapnel_store::Database;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use grapnel_core::error_chain::chain;
use grapnel_store::deliveries::{self, ClaimedDelivery};

/// Memory for long payloads and for the requests that are built from them, beyond the first of each destination.
const BUDGET_BYTES: usize = 64 * 1024 * 1024;

/// The part of it that one destination may take.
const PART_BYTES: usize = BUDGET_BYTES / 4;

/// How long a delivery waits for room. Well within the margin of its lease, so that its result can still be recorded.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The memory for long payloads, and the database that they are fetched from.
#[derive(Debug)]
pub(super) struct PayloadBudget {
    db: Database,
    room: Arc<Semaphore>,
}

/// The payloads of one destination.
#[derive(Debug)]
pub(super) struct LanePayloads {
    db: Database,
    /// Its one payload beyond the budget.
    first: Arc<Semaphore>,
    part: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

/// A payload and its share of the budget, which is held until the request is done.
#[derive(Debug)]
pub(super) struct BudgetedPayload {
    pub bytes: Vec<u8>,
    pub share: Option<PayloadShare>,
}

/// A place in the memory of a worker.
#[derive(Debug)]
pub(super) enum PayloadShare {
    First { _permit: OwnedSemaphorePermit },
    Shared { _part: OwnedSemaphorePermit, _room: OwnedSemaphorePermit },
}

impl PayloadBudget {
    pub(super) fn new(db: Database) -> Self {
        Self { db, room: Arc::new(Semaphore::new(BUDGET_BYTES)) }
    }

    /// Returns the payloads of one more destination.
    pub(super) fn lane(&self) -> LanePayloads {
        LanePayloads {
            db: self.db.clone(),
            first: Arc::new(Semaphore::new(1)),
            part: Arc::new(Semaphore::new(PART_BYTES)),
            room: Arc::clone(&self.room),
        }
    }
}

impl LanePayloads {
    /// Returns the delivery's payload, or why it is not available now.
    pub(super) async fn take(&self, claimed: &mut ClaimedDelivery) -> Result<BudgetedPayload, String> {
        if let Some(bytes) = claimed.payload.take() {
            return Ok(BudgetedPayload { bytes, share: None });
        }
        // Boxed: few payloads are long.
        Box::pin(self.fetch(claimed)).await
    }

    async fn fetch(&self, claimed: &ClaimedDelivery) -> Result<BudgetedPayload, String> {
        let share = match timeout(MAX_WAIT, self.charge(claimed.payload_length)).await {
            Ok(Some(share)) => share,
            Ok(None) | Err(_) => return Err("too many long payloads are being delivered".to_owned()),
        };
        let fetched = deliveries::long_payload(&self.db, claimed).await;
        let bytes = fetched.map_err(|error| format!("the payload cannot be read: {}", chain(&error)))?;
        Ok(BudgetedPayload { bytes, share: Some(share) })
    }

    /// Waits for room for the fetched row, the payload, and the request.
    async fn charge(&self, length: usize) -> Option<PayloadShare> {
        tokio::select! {
            biased; // what is the destination's own is used first
            first = Arc::clone(&self.first).acquire_owned() => Some(PayloadShare::First { _permit: first.ok()? }),
            shared = self.charge_shared(length.saturating_mul(3)) => shared,
        }
    }

    /// A payload that is larger than the part takes all of it.
    async fn charge_shared(&self, bytes: usize) -> Option<PayloadShare> {
        let bytes = u32::try_from(bytes.min(PART_BYTES)).ok()?;
        let part = Arc::clone(&self.part).acquire_many_owned(bytes).await.ok()?;
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await.ok()?;
        Some(PayloadShare::Shared { _part: part, _room: room })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const MIB: usize = 1024 * 1024;

    fn budget() -> PayloadBudget {
        let url = "postgres://localhost/unused".to_owned().into();
        PayloadBudget::new(Database::new(&url, "test", 1).expect("a URL"))
    }

    /// Takes payloads until the destination has to wait.
    fn fill(lane: &LanePayloads, length: usize) -> Vec<PayloadShare> {
        std::iter::from_fn(|| lane.charge(length).now_or_never().flatten()).collect()
    }

    #[tokio::test]
    async fn each_destination_has_one_payload_whatever_the_others_hold() {
        let budget = budget();
        let hogs: Vec<LanePayloads> = (0..20).map(|_| budget.lane()).collect();
        let held: Vec<_> = hogs.iter().map(|lane| fill(lane, 3 * MIB)).collect();
        // Its own one and its part of the budget, as long as there is any.
        assert_eq!(held.iter().map(Vec::len).collect::<Vec<_>>()[..3], [2, 2, 2]);
        assert!(
            held.iter().all(|held| !held.is_empty()),
            "{:?}",
            held.iter().map(Vec::len).collect::<Vec<_>>()
        );
        let one = budget.lane();
        assert_eq!(fill(&one, 100 * MIB).len(), 1);
    }

    #[tokio::test]
    async fn room_that_is_given_back_is_taken_by_who_waits() {
        let budget = budget();
        let lane = budget.lane();
        let mut held = fill(&lane, MIB);
        assert_eq!(held.len(), 1 + PART_BYTES / (3 * MIB));
        assert!(lane.charge(MIB).now_or_never().is_none());
        for _ in 0..2 {
            held.pop();
            held.push(lane.charge(MIB).now_or_never().flatten().expect("room"));
        }
    }
}
