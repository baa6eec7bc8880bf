//! The dispatcher: queues deliveries that are due or that lost their message.
//!
//! It runs in every api process, and any number of them can run at once: they select under SKIP LOCKED. It takes care of
//! retries and replays that are due; of hints that could not be published; and of deliveries that were queued longer ago
//! than the bound while their queue has fewer messages than deliveries. Nothing is added to a queue that is merely long.
//! Deliveries that wait for a destination that is no longer configured end as failed.

use std::sync::Arc;
use std::time::Duration;

use grapnel_store::Database;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use grapnel_core::error_chain::chain;
use grapnel_platform::queue::publish::{Publisher, UnpublishedHint};
use grapnel_platform::queue::{QueueConnection, QueueError};
use grapnel_store::deliveries::{self, QueueBacklog, RequeuedDelivery};
use grapnel_store::replays;

/// How often the database is asked for due deliveries without a notification.
const TICK: Duration = Duration::from_millis(500);

/// Deliveries queued by one statement.
const BATCH: usize = 1_000;

/// How often the dispatcher checks whether there is room again.
const ROOM_POLL: Duration = Duration::from_millis(5);

/// The requeue pass runs this many times within the bound, so that a loss is found soon after it.
const PASSES_IN_BOUND: u32 = 4;

/// The parts of the dispatcher.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub db: Database,
    pub publisher: Publisher,
    /// Asks queues for their length. Not the publisher's connection, whose channel an error would close.
    pub queues: QueueConnection,
    pub queue_prefix: String,
    pub unpublished: mpsc::Receiver<UnpublishedHint>,
    /// Notified when a delivery that is due now was committed.
    pub wake: Arc<Notify>,
    pub requeue_after: Duration,
}

impl Dispatcher {
    /// Dispatches until the token is cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut next_requeue = Instant::now() + self.requeue_after / PASSES_IN_BOUND;
        let mut next_tick = Instant::now();
        let mut failed = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                count = self.unpublished.recv_many(&mut failed, BATCH) => {
                    if count > 0 { self.make_due(&mut failed).await; }
                    continue;
                }
                () = self.wake.notified() => {}
                () = sleep_until(next_tick) => {}
            }
            next_tick = Instant::now() + TICK;
            if !self.publisher.is_connected() {
                continue;
            }
            if let Err(error) = self.queue_due(&stop).await {
                tracing::warn!(error = %chain(&error), "due deliveries cannot be queued");
            }
            if Instant::now() >= next_requeue {
                next_requeue = Instant::now() + self.requeue_after / PASSES_IN_BOUND;
                self.requeue_lost(&stop).await;
            }
        }
        // Another process finds the last failed hints due at once, and not only after the bound.
        while let Ok(hint) = self.unpublished.try_recv() {
            failed.push(hint);
        }
        self.make_due(&mut failed).await;
        self.queues.close().await;
    }

    /// Makes the deliveries of failed hints due again.
    async fn make_due(&self, failed: &mut Vec<UnpublishedHint>) {
        for hints in failed.chunks(BATCH) {
            let hints: Vec<_> = hints.iter().map(|failed| (&failed.hint, failed.wait)).collect();
            if let Err(error) = deliveries::give_back(&self.db, &hints).await {
                // Their deliveries stay marked as queued, and the requeue pass finds them.
                tracing::warn!(error = %chain(&error), count = hints.len(), "deliveries of failed hints cannot be made due");
            }
        }
        failed.clear();
    }

    /// Queues all due deliveries.
    async fn queue_due(&self, stop: &CancellationToken) -> grapnel_store::Result<()> {
        while self.has_room(stop).await {
            let taken = deliveries::take_due(&self.db, BATCH as i64).await?;
            let count = taken.len();
            self.publish(taken).await?;
            if count < BATCH {
                break;
            }
        }
        Ok(())
    }

    /// Waits until there is room for a batch. Returns false when nothing more should be offered.
    async fn has_room(&self, stop: &CancellationToken) -> bool {
        while self.publisher.is_connected() {
            if self.publisher.room() >= BATCH {
                return !stop.is_cancelled();
            }
            if stop.run_until_cancelled(tokio::time::sleep(ROOM_POLL)).await.is_none() {
                return false;
            }
        }
        false
    }

    async fn publish(&self, taken: Vec<RequeuedDelivery>) -> grapnel_store::Result<()> {
        metrics::counter!("grapnel_dispatched_total").increment(taken.len() as u64);
        let mut replays: Vec<_> = taken.iter().filter_map(|taken| taken.replay_request_id).collect();
        self.publisher.offer_due(taken.into_iter().map(|taken| taken.hint));
        if !replays.is_empty() {
            replays.sort_unstable();
            replays.dedup();
            replays::mark_dispatched(&self.db, &replays).await?;
        }
        Ok(())
    }

    async fn requeue_lost(&self, stop: &CancellationToken) {
        let backlogs = match deliveries::overdue_queues(&self.db, self.requeue_after).await {
            Ok(backlogs) => backlogs,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "queued deliveries cannot be counted");
                return;
            }
        };
        // All are compared before any is repaired, which may take long: later, the counts would no longer match.
        let mut losses = Vec::new();
        for queue in backlogs {
            if stop.is_cancelled() || !self.publisher.is_connected() {
                return;
            }
            match self.count_lost(&queue).await {
                Ok(0) => {}
                Ok(lost) => losses.push((queue, lost)),
                Err(error) => report(&queue, "lost messages cannot be counted", &error),
            }
        }
        for (queue, lost) in losses {
            if let Err(error) = self.requeue_queue(&queue, lost, stop).await {
                report(&queue, "deliveries whose messages were lost cannot be queued again", &error.into());
            }
        }
        if let Err(error) = replays::settle_leftovers(&self.db).await {
            tracing::warn!(error = %chain(&error), "replay requests cannot be settled");
        }
    }

    /// Returns how many of a queue's deliveries have lost their message.
    async fn count_lost(&self, queue: &QueueBacklog) -> anyhow::Result<i64> {
        let end_work = deliveries::end_if_removed(&self.db, queue.integration_id, &queue.destination);
        if end_work.await? {
            return Ok(0);
        }
        let key = (queue.integration_id, queue.destination.as_str().into());
        let in_flight = self.publisher.in_flight(&key) as i64;
        let ready = self.ready_messages(queue).await?;
        Ok(lost_messages(queue, ready + in_flight))
    }

    async fn requeue_queue(
        &self,
        queue: &QueueBacklog,
        lost: i64,
        stop: &CancellationToken,
    ) -> grapnel_store::Result<()> {
        let mut left = lost;
        while left > 0 && self.has_room(stop).await {
            let take = deliveries::take_overdue(&self.db, queue, left.min(BATCH as i64));
            let taken = take.await?;
            if taken.is_empty() {
                break;
            }
            metrics::counter!("grapnel_requeued_total").increment(taken.len() as u64);
            left -= taken.len() as i64;
            self.publish(taken).await?;
            // Refilling a long queue must not hold up deliveries that become due meanwhile.
            self.queue_due(stop).await?;
        }
        if left < lost {
            tracing::info!(
                integration.id = %queue.integration_id, destination = queue.destination, count = lost - left,
                "deliveries whose messages were lost are queued again"
            );
        }
        Ok(())
    }

    async fn ready_messages(&self, queue: &QueueBacklog) -> Result<i64, QueueError> {
        let name = grapnel_crds::names::queue_name(
            &self.queue_prefix,
            queue.integration_id.uuid(),
            &queue.destination,
        );
        Ok(self.queues.ready_messages(&name).await?.map_or(0, i64::from))
    }
}

fn report(queue: &QueueBacklog, message: &str, error: &anyhow::Error) {
    tracing::warn!(
        error = %format!("{error:#}"), integration.id = %queue.integration_id, destination = queue.destination, "{message}"
    );
}

/// Returns how many of a queue's overdue deliveries have no message.
///
/// Every queued delivery that is not claimed should have a message, in the queue or on its way there: `messages`. Others
/// may be on their way from other processes, so no more are lost than are overdue. Messages that a worker has fetched but
/// not started are not ready; their deliveries are counted as lost at most once within the bound, and a second message for
/// a delivery does nothing.
fn lost_messages(queue: &QueueBacklog, messages: i64) -> i64 {
    (queue.queued - messages).clamp(0, queue.overdue)
}

#[cfg(test)]
mod tests {
    use grapnel_core::ids::IntegrationId;

    use super::*;

    #[test]
    fn only_what_is_overdue_and_missing_is_lost() {
        let check = |queued, overdue, messages, lost| {
            let (integration_id, destination) =
                (IntegrationId::new(uuid::Uuid::nil()), String::from("orders"));
            let overdue_before = jiff::Timestamp::UNIX_EPOCH;
            let backlog = QueueBacklog { integration_id, destination, queued, overdue, overdue_before };
            assert_eq!(lost_messages(&backlog, messages), lost, "{backlog:?} {messages}");
        };
        check(50_000, 50_000, 50_000, 0); // long, not lost
        check(50_000, 50_000, 0, 50_000); // emptied
        check(50_000, 20_000, 40_000, 10_000);
        check(100, 10, 0, 10); // messages of the newer 90 may be on their way
        check(10, 10, 500, 0); // more messages than deliveries
    }
}
