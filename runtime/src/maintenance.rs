//! Periodic maintenance, run by whichever api process gets there first: creates partitions ahead of time, drops days past
//! their retention, prunes keys, and seals secrets again under a new key. Each step runs whatever became of the others.

use std::sync::Arc;
use std::time::Duration;

use grapnel_store::Database;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use crate::integrations::cache::IntegrationCache;
use grapnel_core::error_chain::chain;
use grapnel_core::sealing::SealingKeys;
use grapnel_core::secrets::IntegrationSecrets;
use grapnel_store::{
    captured_secrets, integrations as rows, partitions, replay_jobs, retention, traffic, worker_minutes,
};

pub(crate) mod removals;

/// The time between two rounds.
const PERIOD: Duration = Duration::from_secs(3600);

/// How soon a round is repeated that failed, or left something because of a lock that was taken.
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
    /// The platform's bound of every retention, in days.
    pub longest_retention: i32,
}

impl Maintenance {
    /// Runs the rounds until the token is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut changes = self.integrations.changes();
        loop {
            // A round can end anywhere: its connection is closed, and the next round goes on from there.
            let round = tokio::time::timeout(ROUND_DEADLINE, self.round());
            let Some(outcome) = stop.run_until_cancelled(round).await else { return };
            let wait = match outcome {
                Ok(true) => PERIOD,
                Ok(false) => RETRY,
                Err(_elapsed) => {
                    self.report_failure("a round of the maintenance", &grapnel_store::Error::Deadline);
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

    /// Runs every step and returns whether nothing is left to do soon.
    async fn round(&self) -> bool {
        let created = self.is_done("creating partitions", partitions::ensure(&self.db).await);
        match partitions::days_ahead(&self.db).await {
            Ok(days) => metrics::gauge!("grapnel_partition_days_ahead").set(f64::from(days)),
            Err(error) => self.report_failure("counting partitions", &error),
        }
        let resealed = self.is_done("resealing", self.reseal().await);
        let captured = self.is_done("resealing captured secrets", self.reseal_captured().await);
        let forgotten = self.is_done("forgetting secrets", rows::forget_secrets(&self.db).await.map(drop));
        let traffic = traffic::drop_old(&self.db).await.map(drop);
        let traffic = self.is_done("dropping old minutes of traffic", traffic);
        let minutes = worker_minutes::drop_old(&self.db).await.map(drop);
        let minutes = self.is_done("dropping old minutes of workers", minutes);
        let states = rows::status::forget_retired(&self.db).await.map(drop);
        let states = self.is_done("forgetting the states of removed integrations", states);
        let replays = replay_jobs::forget_ended(&self.db, self.longest_retention).await.map(drop);
        let replays = self.is_done("deleting old replays", replays);
        let dropped = match self.drop_expired().await {
            Ok(is_complete) => is_complete,
            Err(error) => {
                self.report_failure("dropping expired days", &error);
                false
            }
        };
        created && resealed && captured && forgotten && traffic && minutes && states && replays && dropped
    }

    fn is_done(&self, step: &str, outcome: grapnel_store::Result<()>) -> bool {
        match outcome {
            Ok(()) => true,
            Err(error) => {
                self.report_failure(step, &error);
                false
            }
        }
    }

    fn report_failure(&self, step: &str, error: &grapnel_store::Error) {
        tracing::warn!(error = %chain(error), step, "maintenance failed");
        metrics::counter!("grapnel_maintenance_failures_total").increment(1);
    }

    /// Drops what is past its retention. Returns whether nothing is left that can go.
    async fn drop_expired(&self) -> grapnel_store::Result<bool> {
        let Some(round) = retention::drop_expired(&self.db, self.longest_retention).await? else {
            return Ok(true);
        };
        for (id, days) in &round.shortened {
            tracing::warn!(
                integration.id = %id, days, longest = self.longest_retention,
                "the retention of an Integration is shortened to the longest one of the platform"
            );
        }
        if !round.dropped.is_empty() {
            tracing::info!(partitions = round.dropped.len(), "history past its retention was dropped");
        }
        if round.pruned_keys > 0 {
            tracing::info!(pruned = round.pruned_keys, "idempotency keys of dropped events were pruned");
        }
        if round.ended_deliveries > 0 {
            tracing::warn!(
                count = round.ended_deliveries,
                "unfinished deliveries were given up: their events are a week past the longest retention"
            );
        }
        if round.ending_deliveries > 0 {
            tracing::warn!(
                count = round.ending_deliveries,
                "unfinished deliveries will be given up within three days: their events are past the longest retention"
            );
        }
        metrics::gauge!("grapnel_deliveries_ending").set(round.ending_deliveries as f64);
        metrics::gauge!("grapnel_expired_days").set(round.expired_days as f64);
        Ok(!round.is_incomplete)
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
