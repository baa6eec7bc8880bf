//! The dispatcher: queues what is due, and what lost its message.
//!
//! It runs in every api process, and any number of them work side by side: picks are made under SKIP LOCKED. Three
//! things are its work: retries and replays whose time has come; hints that could not be published; and deliveries that
//! were queued longer ago than the bound while their queue holds fewer messages than they are. A queue that is merely
//! long gets nothing added. What waits for a destination that is no longer configured ends as failed.

use std::sync::Arc;
use std::time::Duration;

use grapnel_store::Database;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use grapnel_core::error_chain::chain;
use grapnel_core::hint::Hint;
use grapnel_platform::queue::publish::Publisher;
use grapnel_platform::queue::{Link, QueueError};
use grapnel_store::deliveries::{self, QueueBacklog, RequeuedDelivery};
use grapnel_store::replays;

/// How often the database is asked what is due while nothing else says so.
const TICK: Duration = Duration::from_millis(500);

/// Deliveries queued by one statement.
const BATCH: usize = 1_000;

/// How often the dispatcher looks whether there is room again.
const ROOM_POLL: Duration = Duration::from_millis(5);

/// How long a hint that could not be published rests.
const REST: Duration = Duration::from_secs(1);

/// The requeue pass looks this many times within the bound, so that a loss is found soon after it.
const PASSES_IN_BOUND: u32 = 4;

/// Everything the dispatcher works with.
#[derive(Debug)]
pub struct Dispatcher {
    pub db: Database,
    pub publisher: Publisher,
    /// For asking queues how long they are; apart from the publisher's, whose channel an error would close.
    pub link: Link,
    pub queue_prefix: String,
    pub unpublished: mpsc::Receiver<Hint>,
    /// Someone committed a delivery that is due now.
    pub wake: Arc<Notify>,
    pub requeue_after: Duration,
}

impl Dispatcher {
    /// Dispatches until the token is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut next_requeue = Instant::now() + self.requeue_after / PASSES_IN_BOUND;
        let mut next_tick = Instant::now();
        let mut failed = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                count = self.unpublished.recv_many(&mut failed, BATCH) => {
                    if count > 0 { self.give_back(&mut failed).await; }
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
        // What failed last is found due at once by another process, and not only after the bound.
        while let Ok(hint) = self.unpublished.try_recv() {
            failed.push(hint);
        }
        self.give_back(&mut failed).await;
        self.link.close().await;
    }

    async fn give_back(&self, failed: &mut Vec<Hint>) {
        for hints in failed.chunks(BATCH) {
            let given_back = deliveries::give_back(&self.db, hints, REST);
            if let Err(error) = given_back.await {
                // They stay marked as queued, and the requeue pass finds them.
                tracing::warn!(error = %chain(&error), count = hints.len(), "hints cannot be given back");
            }
        }
        failed.clear();
    }

    /// Queues everything that is due.
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

    /// Waits until a batch can be offered. False when nothing should be any more.
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
        let waiting = match deliveries::overdue_queues(&self.db, self.requeue_after).await {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "queued deliveries cannot be counted");
                return;
            }
        };
        // All are compared before any is repaired, which may take long: later, the counts would be those of another time.
        let mut losses = Vec::new();
        for queue in waiting {
            if stop.is_cancelled() || !self.publisher.is_connected() {
                return;
            }
            match self.find_lost(&queue).await {
                Ok(0) => {}
                Ok(lost) => losses.push((queue, lost)),
                Err(error) => report(&queue, "lost deliveries cannot be found", &error),
            }
        }
        for (queue, lost) in losses {
            if let Err(error) = self.requeue_queue(&queue, lost, stop).await {
                report(&queue, "lost deliveries cannot be queued again", &error.into());
            }
        }
        if let Err(error) = replays::settle_leftovers(&self.db).await {
            tracing::warn!(error = %chain(&error), "replay requests cannot be settled");
        }
    }

    /// How many of a queue's deliveries have lost their message.
    async fn find_lost(&self, queue: &QueueBacklog) -> anyhow::Result<i64> {
        let end_work = deliveries::end_if_removed(&self.db, queue.integration_id, &queue.destination);
        if end_work.await? {
            return Ok(0);
        }
        let on_their_way = self.publisher.on_their_way() as i64;
        let ready = self.ready_messages(queue).await?;
        Ok(lost_messages(queue, ready + on_their_way))
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
            // A long queue that was emptied must not hold up what is due meanwhile.
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
        Ok(self.link.ready_messages(&name).await?.map_or(0, i64::from))
    }
}

fn report(queue: &QueueBacklog, what: &str, error: &anyhow::Error) {
    tracing::warn!(
        error = %format!("{error:#}"), integration.id = %queue.integration_id, destination = queue.destination, "{what}"
    );
}

/// How many of a queue's overdue deliveries have no message.
///
/// Every queued delivery that nobody holds should have one, in the queue or on its way there: `messages`. Others may be
/// on their way from other processes, so no more are lost than are overdue. Messages that a worker has fetched but not
/// begun are not ready; their deliveries are counted as lost at most once in a bound, and a second message for a delivery
/// does nothing.
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
            let waiting = QueueBacklog { integration_id, destination, queued, overdue, overdue_before };
            assert_eq!(lost_messages(&waiting, messages), lost, "{waiting:?} {messages}");
        };
        check(50_000, 50_000, 50_000, 0); // long, not lost
        check(50_000, 50_000, 0, 50_000); // emptied
        check(50_000, 20_000, 40_000, 10_000);
        check(100, 10, 0, 10); // the newer 90 may be on their way
        check(10, 10, 500, 0); // more messages than deliveries
    }
}
