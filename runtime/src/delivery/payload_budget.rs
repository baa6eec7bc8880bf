//! The payloads of deliveries that are about to be sent, within a bound of memory that all lanes of a worker share.
//!
//! A short payload comes with its claim. A long one is fetched when there is room for it and for the request that is made
//! of it; while there is none, its delivery waits, and after a while it is put off without counting as an attempt.

use std::sync::Arc;
use std::time::Duration;

use grapnel_store::Database;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use grapnel_core::error_chain::chain;
use grapnel_store::deliveries::{self, ClaimedDelivery};

/// For long payloads of all lanes, and the requests that are made of them.
const BUDGET_BYTES: usize = 64 * 1024 * 1024;

/// How long a delivery waits for room. Well within the margin of its lease, so that its result can still be recorded.
const PATIENCE: Duration = Duration::from_secs(10);

/// The memory for long payloads, and where they come from.
#[derive(Debug)]
pub struct Payloads {
    db: Database,
    room: Arc<Semaphore>,
}

/// A payload, and its share of the memory, to be kept until the request is done.
#[derive(Debug)]
pub struct Payload {
    pub bytes: Vec<u8>,
    pub share: Option<OwnedSemaphorePermit>,
}

impl Payloads {
    pub fn new(db: Database) -> Self {
        Self { db, room: Arc::new(Semaphore::new(BUDGET_BYTES)) }
    }

    /// The delivery's payload, or why it cannot be had now.
    pub async fn take(&self, claimed: &mut ClaimedDelivery) -> Result<Payload, String> {
        if let Some(bytes) = claimed.payload.take() {
            return Ok(Payload { bytes, share: None });
        }
        let share = charge(&self.room, claimed.payload_length);
        let share = match timeout(PATIENCE, share).await {
            Ok(Some(share)) => share,
            Ok(None) | Err(_) => return Err("too many long payloads are being delivered".to_owned()),
        };
        let fetched = deliveries::long_payload(&self.db, claimed).await;
        let bytes = fetched.map_err(|error| format!("the payload cannot be read: {}", chain(&error)))?;
        Ok(Payload { bytes, share: Some(share) })
    }
}

/// For the row that it comes in, for the payload, and for the request. One that is larger than everything takes everything.
async fn charge(room: &Arc<Semaphore>, length: usize) -> Option<OwnedSemaphorePermit> {
    let bytes = length.saturating_mul(3).min(BUDGET_BYTES);
    Arc::clone(room).acquire_many_owned(u32::try_from(bytes).ok()?).await.ok()
}
