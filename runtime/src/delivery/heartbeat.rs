//! The worker's heartbeat: it reports which forms of events this version can read, so that an api stores no other.

use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_store::{Database, worker_heartbeats};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The time between two beats. A worker counts as live for more than three of them.
const PERIOD: Duration = Duration::from_secs(10);

/// Beats until the token is cancelled.
pub(crate) async fn run(db: Database, stop: CancellationToken) {
    let worker_id = Uuid::now_v7();
    while !stop.is_cancelled() {
        if let Err(error) = worker_heartbeats::beat(&db, worker_id).await {
            tracing::warn!(error = %chain(&error), "the heartbeat was not written");
        }
        let _stopped = stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await;
    }
    if let Err(error) = worker_heartbeats::end(&db, worker_id).await {
        tracing::warn!(error = %chain(&error), "the end of the heartbeat was not written");
    }
}
