//! Finds deliveries that lost their message: they were queued longer ago than the bound, and their queue has fewer messages than
//! they need. Nothing is added to a queue that is merely long.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{BATCH, DestinationState, Dispatcher, report};
use grapnel_core::error_chain::chain;
use grapnel_store::deliveries::{self, DeliveryQueue, QueueBacklog};
use grapnel_store::replays;

/// Queues whose deliveries are counted by one statement: a bound for its time.
const CHUNK: usize = 16;

/// There are so many passes within the bound, so that a loss is found soon after it.
const PASSES_IN_BOUND: u32 = 4;

/// The bound while losses are likely, and the time between two passes.
const HASTY_BOUND: Duration = Duration::from_secs(10);

/// How long losses are likely: longer than a statement runs that nobody waits for any more.
const HASTY_FOR: Duration = Duration::from_secs(45);

/// When losses are looked for, and how long a delivery must have been queued to be one.
///
/// When PostgreSQL gave no answer, losses are likely: a statement may be committed all the same, and what it marked as queued is published by
/// nobody. Then the bound is short for a while.
#[derive(Debug)]
pub(super) struct LossSchedule {
    bound: Duration,
    next: Instant,
    unanswered: u64,
    hasty_until: Option<Instant>,
}

impl LossSchedule {
    pub(super) fn new(bound: Duration, now: Instant) -> Self {
        Self { bound, next: now + bound / PASSES_IN_BOUND, unanswered: 0, hasty_until: None }
    }

    /// Begins a pass if it is time for one, and returns its bound. `unanswered` is how often PostgreSQL gave no answer so far.
    pub(super) fn begin_pass(&mut self, unanswered: u64, now: Instant) -> Option<Duration> {
        if unanswered != self.unanswered {
            self.unanswered = unanswered;
            self.hasty_until = Some(now + HASTY_FOR);
            self.next = self.next.min(now + HASTY_BOUND);
        }
        if now < self.next {
            return None;
        }
        let is_hasty = self.hasty_until.is_some_and(|until| now < until);
        let most = if is_hasty { HASTY_BOUND } else { self.bound };
        self.next = now + most.min(self.bound / PASSES_IN_BOUND);
        Some(most.min(self.bound))
    }
}

impl Dispatcher {
    /// Queues the deliveries again that lost their message longer ago than the bound, and ends those whose destination is gone.
    pub(super) async fn requeue_lost(&mut self, bound: Duration, stop: &CancellationToken) {
        // All are compared before any is repaired, which may take long: later, the counts would no longer match.
        let mut losses = Vec::new();
        for queues in self.delivering_queues().await.chunks(CHUNK) {
            if stop.is_cancelled() || !self.publisher.is_connected() {
                return;
            }
            match deliveries::backlogs(&self.db, queues, bound).await {
                Ok(backlogs) => {
                    for backlog in backlogs {
                        match self.messages(&backlog.queue).await {
                            Ok(messages) => losses.push((lost_messages(&backlog, messages), backlog)),
                            Err(error) => {
                                report(&backlog.queue, "lost messages cannot be counted", &error.into());
                            }
                        }
                    }
                }
                Err(error) => tracing::warn!(error = %chain(&error), "queued deliveries cannot be counted"),
            }
        }
        for (lost, backlog) in losses {
            if let Err(error) = self.requeue(&backlog, lost, stop).await {
                let message = "deliveries whose messages were lost cannot be queued again";
                report(&backlog.queue, message, &error.into());
            }
        }
        if let Err(error) = replays::settle_leftovers(&self.db).await {
            tracing::warn!(error = %chain(&error), "replay requests cannot be settled");
        }
    }

    /// Returns the queues with unfinished deliveries that are delivered now. A paused destination loses nothing that it could have,
    /// so it is not looked at until it is resumed.
    async fn delivering_queues(&self) -> Vec<DeliveryQueue> {
        let open = match deliveries::open_queues(&self.db).await {
            Ok(open) => open,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "queues with unfinished deliveries cannot be found");
                return Vec::new();
            }
        };
        let mut delivering = Vec::with_capacity(open.len());
        for queue in open {
            match self.state_of(&queue) {
                DestinationState::Delivering => delivering.push(queue),
                DestinationState::Paused => {}
                DestinationState::Unknown => self.end_if_removed(&queue).await,
            }
        }
        delivering
    }

    /// Queues the deliveries of this many messages again, for as long as this process has the lease: another that took it over would count those as
    /// lost that are queued here meanwhile.
    async fn requeue(
        &mut self,
        backlog: &QueueBacklog,
        lost: i64,
        stop: &CancellationToken,
    ) -> grapnel_store::Result<()> {
        if lost == 0 {
            return Ok(());
        }
        let Some(lost) = deliveries::find_lost(&self.db, backlog, lost).await? else {
            return Ok(());
        };
        let mut left = lost.count;
        while left > 0 && self.has_room(stop).await && self.lease.is_held().await {
            let taken =
                deliveries::take_lost(&self.db, &backlog.queue, lost.queued_through, left.min(BATCH as i64))
                    .await?;
            if taken.is_empty() {
                break;
            }
            metrics::counter!("grapnel_requeued_total").increment(taken.len() as u64);
            left -= taken.len() as i64;
            self.publish(taken).await?;
            // Refilling a long queue must not hold up deliveries that become due meanwhile.
            self.queue_due(stop).await?;
        }
        if left < lost.count {
            tracing::info!(
                integration.id = %backlog.queue.integration_id, destination = backlog.queue.destination,
                count = lost.count - left, "deliveries whose messages were lost are queued again"
            );
        }
        Ok(())
    }
}

/// Returns how many messages of a queue's overdue deliveries are missing.
///
/// Every queued delivery that is not claimed should be in a message, in the queue or on its way there: `messages`. Others
/// may be on their way from other processes, so no more are lost than are overdue. Messages that a worker has fetched but
/// not finished are not ready; their deliveries that are not started are counted as lost at most once within the bound, and a
/// second message for a delivery does nothing.
fn lost_messages(backlog: &QueueBacklog, messages: i64) -> i64 {
    (backlog.queued - messages).clamp(0, backlog.overdue)
}

#[cfg(test)]
mod tests {
    use grapnel_core::ids::IntegrationId;

    use super::*;

    #[test]
    fn losses_are_looked_for_sooner_when_postgres_gave_no_answer() {
        let (bound, began, moment) = (Duration::from_secs(60), Instant::now(), Duration::from_millis(1));
        let period = bound / PASSES_IN_BOUND;
        let mut schedule = LossSchedule::new(bound, began);
        assert_eq!(schedule.begin_pass(0, began + period - moment), None);
        assert_eq!(schedule.begin_pass(0, began + period), Some(bound));
        let failed = began + period + moment;
        assert_eq!(schedule.begin_pass(3, failed), None);
        assert_eq!(schedule.begin_pass(3, failed + HASTY_BOUND), Some(HASTY_BOUND));
        assert_eq!(schedule.begin_pass(3, failed + HASTY_BOUND + moment), None);
        assert_eq!(schedule.begin_pass(3, failed + 2 * HASTY_BOUND), Some(HASTY_BOUND));
        assert_eq!(schedule.begin_pass(3, failed + HASTY_FOR), Some(bound));
        assert_eq!(schedule.begin_pass(3, failed + HASTY_FOR + period), Some(bound));
        let mut often = LossSchedule::new(Duration::from_secs(4), began);
        assert_eq!(
            often.begin_pass(1, began + Duration::from_secs(1)),
            Some(Duration::from_secs(4)),
            "it is short"
        );
    }

    #[test]
    fn only_what_is_overdue_and_missing_is_lost() {
        let check = |queued, overdue, messages, lost| {
            let (integration_id, destination) =
                (IntegrationId::new(uuid::Uuid::nil()), String::from("orders"));
            let queue = DeliveryQueue { integration_id, destination };
            let overdue_before = jiff::Timestamp::UNIX_EPOCH;
            let backlog = QueueBacklog { queue, queued, overdue, overdue_before };
            assert_eq!(lost_messages(&backlog, messages), lost, "{backlog:?} {messages}");
        };
        check(50_000, 50_000, 50_000, 0); // long, not lost
        check(50_000, 50_000, 0, 50_000); // emptied
        check(50_000, 20_000, 40_000, 10_000);
        check(100, 10, 0, 10); // messages of the newer 90 may be on their way
        check(10, 10, 500, 0); // more messages than deliveries need
    }
}
