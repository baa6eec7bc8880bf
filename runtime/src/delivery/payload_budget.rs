//! Provides the payloads of claimed deliveries, within a memory budget that all lanes of a worker share.
//!
//! A short payload comes with its claim. A long one is fetched when there is room for it and for the request that is built
//! from it; without room, its delivery waits, and after a while it is postponed without counting as an attempt.

use std::sync::Arc;
use std::time::Duration;

use grapnel_store::Database;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use grapnel_core::error_chain::chain;
use grapnel_store::deliveries::{self, ClaimedDelivery};

/// Memory for the long payloads of all lanes and for the requests that are built from them.
const BUDGET_BYTES: usize = 64 * 1024 * 1024;

/// How long a delivery waits for room. Well within the margin of its lease, so that its result can still be recorded.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The memory for long payloads, and the database that they are fetched from.
#[derive(Debug)]
pub(super) struct PayloadBudget {
    db: Database,
    room: Arc<Semaphore>,
}

/// A payload and its share of the budget, which is held until the request is done.
#[derive(Debug)]
pub(super) struct BudgetedPayload {
    pub bytes: Vec<u8>,
    pub share: Option<OwnedSemaphorePermit>,
}

impl PayloadBudget {
    pub(super) fn new(db: Database) -> Self {
        Self { db, room: Arc::new(Semaphore::new(BUDGET_BYTES)) }
    }

    /// Returns the delivery's payload, or why it is not available now.
    pub(super) async fn take(&self, claimed: &mut ClaimedDelivery) -> Result<BudgetedPayload, String> {
        if let Some(bytes) = claimed.payload.take() {
            return Ok(BudgetedPayload { bytes, share: None });
        }
        let share = charge(&self.room, claimed.payload_length);
        let share = match timeout(MAX_WAIT, share).await {
            Ok(Some(share)) => share,
            Ok(None) | Err(_) => return Err("too many long payloads are being delivered".to_owned()),
        };
        let fetched = deliveries::long_payload(&self.db, claimed).await;
        let bytes = fetched.map_err(|error| format!("the payload cannot be read: {}", chain(&error)))?;
        Ok(BudgetedPayload { bytes, share: Some(share) })
    }
}

/// Charges for the fetched row, the payload, and the request. A payload larger than the budget takes all of it.
async fn charge(room: &Arc<Semaphore>, length: usize) -> Option<OwnedSemaphorePermit> {
    let bytes = length.saturating_mul(3).min(BUDGET_BYTES);
    Arc::clone(room).acquire_many_owned(u32::try_from(bytes).ok()?).await.ok()
}
