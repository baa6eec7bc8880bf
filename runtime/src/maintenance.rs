//! Periodic maintenance, run by whichever api process gets there first: creates partitions ahead of time, drops days past
//! their retention, prunes keys, and seals secrets again under a new key.

use std::sync::Arc;
use std::time::Duration;

use grapnel_store::Database;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use crate::integrations::cache::IntegrationCache;
use grapnel_core::error_chain::chain;
use grapnel_core::sealing::SealingKeys;
use grapnel_core::secrets::IntegrationSecrets;
use grapnel_store::{captured_secrets, integrations as rows, partitions};

/// The time between two rounds.
const PERIOD: Duration = Duration::from_secs(3600);

/// How soon a failed round is retried.
const RETRY: Duration = Duration::from_secs(60);

/// The delay from a change of an integration to its round: one round for all that are applied at once.
const CHANGE_DELAY: Duration = Duration::from_secs(5);

/// A round that takes longer hangs: the server bounds its statements, if it is still reachable.
const ROUND_DEADLINE: Duration = Duration::from_secs(900);

/// The parts of the maintenance task.
#[derive(Debug)]
pub(crate) struct Maintenance {
    pub db: Database,
    pub integrations: IntegrationCache,
    pub keys: Arc<SealingKeys>,
}

impl Maintenance {
    /// Runs the rounds until the token is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut changes = self.integrations.changes();
        loop {
            let round = tokio::time::timeout(ROUND_DEADLINE, self.round());
            let wait = match round.await.unwrap_or(Err(grapnel_store::Error::Deadline)) {
                Ok(()) => PERIOD,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "maintenance failed");
                    metrics::counter!("grapnel_maintenance_failures_total").increment(1);
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                // A process that has the older key may have sealed the row that was just written.
                changed = changes.changed() => if changed.is_err() { return },
            }
            if stop.run_until_cancelled(tokio::time::sleep(CHANGE_DELAY)).await.is_none() {
                return;
            }
            changes.mark_unchanged();
        }
    }

    async fn round(&self) -> grapnel_store::Result<()> {
        partitions::ensure(&self.db).await?;
        self.reseal().await?;
        self.reseal_captured().await?;
        let dropped = partitions::drop_expired(&self.db).await?;
        if !dropped.is_empty() {
            tracing::info!(partitions = dropped.len(), "history past its retention was dropped");
        }
        let pruned = partitions::prune_keys(&self.db).await?;
        if pruned > 0 {
            tracing::info!(pruned, "idempotency keys of dropped events were pruned");
        }
        Ok(())
    }

    /// Seals secrets that another key sealed under the first one. When this has run everywhere, the old key can be removed.
    async fn reseal(&self) -> grapnel_store::Result<()> {
        for row in rows::load_all(&self.db).await? {
            if !self.keys.needs_reseal(&row.secrets) {
                continue;
            }
            match IntegrationSecrets::open(&self.keys, row.id, &row.secrets) {
                Ok(secrets) => {
                    let sealed = secrets.seal(&self.keys, row.id);
                    if rows::reseal(&self.db, row.id, &row.secrets, &sealed).await? {
                        tracing::info!(integration.id = %row.id, "secrets were sealed under the new key");
                    }
                }
                Err(error) => {
                    tracing::error!(integration.id = %row.id, error = %chain(&error), "secrets cannot be sealed under the new key");
                }
            }
        }
        Ok(())
    }

    /// Does the same for captured secrets that are not in their Secrets yet.
    async fn reseal_captured(&self) -> grapnel_store::Result<()> {
        for captured in captured_secrets::load_all(&self.db).await? {
            if !self.keys.needs_reseal(&captured.sealed) {
                continue;
            }
            let id = captured.integration_id;
            match self.keys.open(id.as_bytes(), &captured.sealed) {
                Ok(secret) => {
                    let sealed = self.keys.seal(id.as_bytes(), secret.expose_secret());
                    if captured_secrets::reseal(&self.db, &captured, &sealed).await? {
                        tracing::info!(integration.id = %id, "a captured secret was sealed under the new key");
                    }
                }
                Err(error) => {
                    tracing::error!(integration.id = %id, error = %chain(&error), "a captured secret cannot be sealed under the new key");
                }
            }
        }
        Ok(())
    }
}
