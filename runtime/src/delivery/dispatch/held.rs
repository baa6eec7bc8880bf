//! Releases deliveries that are held, as far as their queue takes them. Who holds them, and who resumes the destination, need not
//! know about it.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{BATCH, DestinationState, Dispatcher, key_of, report};
use grapnel_core::error_chain::chain;
use grapnel_store::deliveries::{self, DeliveryQueue};

/// The shortest time between two passes.
const PERIOD: Duration = Duration::from_secs(1);

/// A pass may take this part of the time.
const SHARE: u32 = 10;

/// Batches of one queue in a pass, so that the queues take turns.
const BATCHES: usize = 10;

/// Returns when the next pass begins, after one that took so long.
pub(super) fn next_pass(took: Duration) -> Instant {
    Instant::now() + (took * (SHARE - 1)).max(PERIOD)
}

impl Dispatcher {
    /// Releases held deliveries of all queues that may have some, and returns how long looking for them took.
    pub(super) async fn release_held(&mut self, stop: &CancellationToken) -> Duration {
        let started = Instant::now();
        let queues = match deliveries::held_queues(&self.db).await {
            Ok(queues) => queues,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "held deliveries cannot be found");
                return started.elapsed();
            }
        };
        let took = started.elapsed();
        metrics::gauge!("grapnel_held_queues").set(queues.len() as f64);
        for queue in queues {
            if stop.is_cancelled() || !self.publisher.is_connected() {
                break;
            }
            match self.state_of(&queue) {
                DestinationState::Paused => {}
                DestinationState::Unknown => self.end_if_removed(&queue).await,
                DestinationState::Delivering => {
                    if let Err(error) = self.release(&queue, stop).await {
                        report(&queue, "held deliveries cannot be released", &error);
                    }
                }
            }
        }
        took
    }

    async fn release(&mut self, queue: &DeliveryQueue, stop: &CancellationToken) -> anyhow::Result<()> {
        let allowed = self.publisher.allowance(&key_of(queue));
        if allowed == 0 {
            return Ok(());
        }
        let messages = usize::try_from(self.messages(queue).await?)?;
        let deliveries = self.publisher.deliveries_in(&key_of(queue), messages);
        let mut room = self.max_queue_length.saturating_sub(deliveries);
        for _ in 0..BATCHES {
            let limit = room.min(allowed).min(BATCH);
            if limit == 0 || !self.has_room(stop).await || !self.lease.is_held().await {
                break;
            }
            let released = deliveries::release(&self.db, queue, limit as i64).await?;
            let count = released.len();
            self.publish(released).await?;
            room -= count;
            // A queue that is tried again answers first.
            if count < limit || allowed < BATCH {
                break;
            }
            // Deliveries that become due meanwhile do not wait for this.
            self.queue_due(stop).await?;
        }
        Ok(())
    }
}
