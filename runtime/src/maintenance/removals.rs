//! Ends the deliveries of what was removed, and deletes the histories that are to be deleted, in the background: a batch at a
//! time, and in turn with the other api processes.

use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_store::integrations::purge;
use grapnel_store::{Database, deliveries};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::integrations::cache::IntegrationCache;

/// How often the tables are read without a change of an integration.
const POLL: Duration = Duration::from_secs(2);

/// How soon a failed batch is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The parts of the task.
#[derive(Debug)]
pub(crate) struct RemovalWorker {
    pub db: Database,
    pub integrations: IntegrationCache,
}

impl RemovalWorker {
    /// Works until the token is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut changes = self.integrations.changes();
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let wait = match self.run_batch().await {
                // Half of the time is left to everybody else.
                Ok(true) => begun.elapsed(),
                Ok(false) => POLL,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "a batch of a removal failed and is tried again");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Runs a batch of both, and returns whether there was anything to do.
    async fn run_batch(&self) -> grapnel_store::Result<bool> {
        let removal = deliveries::end_removed(&self.db).await?;
        if let Some(removal) = removal.as_ref().filter(|removal| removal.is_finished && removal.ended > 0) {
            tracing::info!(
                integration.id = %removal.integration_id, destination = removal.destination, count = removal.ended,
                "deliveries of a removal were given up"
            );
        }
        let purge = purge::purge_next(&self.db).await?;
        if let Some(purge) = purge.filter(|purge| purge.is_finished) {
            tracing::info!(integration.id = %purge.integration_id, events = purge.events, "a history was deleted");
        }
        Ok(removal.is_some() || purge.is_some())
    }
}
