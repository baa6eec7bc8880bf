//! Takes the deliveries of dead workers over, before their leases end.
//!
//! A claimant is dead when its session with PostgreSQL and its connection to RabbitMQ have both ended (`delivery/claimants.rs`), or when
//! it says itself that it has stopped. Neither comes back, so it is enough to see each once. A worker that is not dead notices that it
//! has lost both, and stops sending; there is enough time for that before its deliveries are taken over.

use std::collections::HashMap;
use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_core::ids::ClaimantId;
use grapnel_store::claimants::{self, ClaimantRow};
use grapnel_store::deliveries::{self, DeliveryQueue};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{BATCH, Dispatcher};
use crate::delivery::claimants::LOST_AFTER;

/// The time between the first look that finds a claimant dead and the take-over. Its worker has stopped sending a second before.
const GRACE: Duration = LOST_AFTER.saturating_add(Duration::from_secs(1));

/// Since when claimants are known to have neither a session nor a connection.
#[derive(Debug, Default)]
pub(super) struct Suspects(HashMap<ClaimantId, Instant>);

impl Suspects {
    /// Forgets those whose rows are gone.
    fn retain(&mut self, found: &[ClaimantRow]) {
        self.0.retain(|id, _| found.iter().any(|row| row.id == *id));
    }

    fn add(&mut self, id: ClaimantId, now: Instant) {
        self.0.entry(id).or_insert(now);
    }

    fn contains(&self, id: ClaimantId) -> bool {
        self.0.contains_key(&id)
    }

    /// Returns whether a claimant can have no attempt under way any more.
    fn is_dead(&self, row: &ClaimantRow, now: Instant) -> bool {
        let is_over = |since: &Instant| now.saturating_duration_since(*since) >= GRACE;
        row.is_given_up || self.0.get(&row.id).is_some_and(is_over)
    }
}

impl Dispatcher {
    /// Queues the deliveries of dead claimants again.
    pub(super) async fn take_over_abandoned(&self, suspects: &mut Suspects, stop: &CancellationToken) {
        let found = match claimants::without_session(&self.db).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "claimants without a session cannot be found");
                return;
            }
        };
        suspects.retain(&found);
        for row in found.iter().filter(|row| !row.is_given_up) {
            if suspects.contains(row.id) {
                continue;
            }
            match self.queues.is_present(&row.presence).await {
                Ok(true) => {}
                Ok(false) => suspects.add(row.id, Instant::now()),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "a claimant cannot be looked for in RabbitMQ");
                    break;
                }
            }
        }
        let now = Instant::now();
        let dead: Vec<&ClaimantRow> = found.iter().filter(|row| suspects.is_dead(row, now)).collect();
        if dead.is_empty() {
            return;
        }
        if let Err(error) = self.take_over(&dead, stop).await {
            tracing::warn!(error = %chain(&error), "deliveries of dead workers cannot be taken over yet");
        }
    }

    async fn take_over(&self, dead: &[&ClaimantRow], stop: &CancellationToken) -> grapnel_store::Result<()> {
        let mut count = 0;
        for queue in deliveries::open_queues(&self.db).await? {
            let ids: Vec<ClaimantId> =
                dead.iter().filter(|row| may_serve(row, &queue)).map(|row| row.id).collect();
            if ids.is_empty() {
                continue;
            }
            loop {
                if !self.has_room(stop).await {
                    // The rows stay, for the next look.
                    return Ok(());
                }
                let taken = deliveries::take_abandoned(&self.db, &queue, &ids, BATCH as i64).await?;
                let is_last = taken.len() < BATCH;
                count += taken.len();
                self.publish_or_hold(taken).await?;
                if is_last {
                    break;
                }
            }
        }
        let ids: Vec<ClaimantId> = dead.iter().map(|row| row.id).collect();
        claimants::remove(&self.db, &ids).await?;
        metrics::counter!("grapnel_deliveries_taken_over_total").increment(count as u64);
        if count > 0 {
            tracing::info!(count, "deliveries of dead workers are queued again");
        }
        Ok(())
    }
}

fn may_serve(row: &ClaimantRow, queue: &DeliveryQueue) -> bool {
    row.integration_id.is_none_or(|id| id == queue.integration_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(is_given_up: bool) -> ClaimantRow {
        let id = ClaimantId::generate();
        ClaimantRow { id, session: 1, presence: String::from("worker"), integration_id: None, is_given_up }
    }

    #[test]
    fn claimant_is_dead_when_its_worker_has_had_the_time_to_stop() {
        let (row, now, moment) = (row(false), Instant::now(), Duration::from_millis(1));
        let mut suspects = Suspects::default();
        assert!(!suspects.is_dead(&row, now + GRACE));
        suspects.add(row.id, now);
        suspects.add(row.id, now + GRACE);
        assert!(!suspects.is_dead(&row, now + GRACE - moment));
        assert!(suspects.is_dead(&row, now + GRACE), "since it was first seen");
        suspects.retain(&[]);
        assert!(!suspects.is_dead(&row, now + GRACE));
    }

    #[test]
    fn claimant_that_has_given_up_is_dead_at_once() {
        assert!(Suspects::default().is_dead(&row(true), Instant::now()));
    }
}
