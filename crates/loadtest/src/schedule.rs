//! Decides what is sent when: hands out each number once, and knows when sending is over.
//!
//! In a *closed loop* every lane (one client, one connection) takes the next number as soon as its previous one is
//! answered. In an *open loop* number `n` is due after `n / rate` seconds, whatever the target does: the times are
//! fixed before the first request, a lane that is late takes the oldest due number, and latency counts from the time
//! at which it was due. A separate thread paces an open loop, because the timers of the asynchronous runtime have a
//! resolution of a millisecond.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::due_times::DueTimes;
use crate::config::{Amount, Pace};
use crate::ledger::MAX_NUMBERS;

mod due_times;
#[cfg(test)]
mod tests;

/// An open loop starts this much later than its lanes, so that connections are open for the first events.
const LEAD_TIME: Duration = Duration::from_millis(50);

/// How long after its end an open loop of fixed duration may send events that were due before.
const GRACE: Duration = Duration::from_millis(250);

/// The pacing thread checks at least this often whether the schedule was stopped.
const PACER_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Connections that an open loop opens before it starts; it opens more when these are busy.
const OPEN_LOOP_LANES: u32 = 16;

/// The reason why no more numbers were handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum StopReason {
    /// Everything was sent, or the time was up.
    Completed,
    /// The run was stopped from outside.
    Interrupted,
    /// For too long the target could not be connected to or, in a run that sends every event until it is accepted, it
    /// answered nothing but failures.
    Unreachable,
    /// All numbers were used up before the time was.
    NumbersExhausted,
}

/// An event to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScheduledEvent {
    pub(crate) number: u64,
    pub(crate) scheduled: Instant,
}

/// The state of a closed or an open loop.
enum Pacing {
    Closed {
        next: AtomicU64,
        /// The events of a request.
        step: u64,
        limit: u64,
        deadline: Option<Instant>,
    },
    Open {
        times: DueTimes,
        start: Instant,
        deadline: Option<Instant>,
        queue: Mutex<DueQueue>,
        more_lanes: Notify,
    },
}

/// Either due numbers without a lane, or lanes without a number; never both.
#[derive(Default)]
struct DueQueue {
    due: u64,
    next: u64,
    all_due: bool,
    idle: Vec<Arc<Notify>>,
    /// Lanes that were taken from `idle` and have not run since.
    woken: u64,
}

/// The schedule of one run. Every method may be called from any thread.
pub(crate) struct Schedule {
    pacing: Pacing,
    lanes: (u32, u32),
    stopped: OnceLock<StopReason>,
    over: CancellationToken,
}

impl Schedule {
    /// Starts the clock of the run.
    pub(crate) fn start(amount: Amount, pace: Pace, elements: u32) -> Schedule {
        let now = Instant::now();
        let (pacing, lanes) = match pace {
            Pace::Closed { clients } => {
                let (limit, deadline) = match amount {
                    Amount::Events(events) => (events.min(MAX_NUMBERS), None),
                    Amount::Time(time) => (MAX_NUMBERS, Some(now + time)),
                };
                let step = u64::from(elements.max(1));
                (Pacing::Closed { next: AtomicU64::new(0), step, limit, deadline }, (clients, clients))
            }
            Pace::Open { rate_per_second, max_in_flight } => {
                let start = now + LEAD_TIME;
                let deadline = match amount {
                    Amount::Events(_) => None,
                    Amount::Time(time) => Some(start + time),
                };
                let times = DueTimes::new(rate_per_second, amount);
                let queue = Mutex::new(DueQueue::default());
                let lanes = (OPEN_LOOP_LANES.min(max_in_flight), max_in_flight);
                (Pacing::Open { times, start, deadline, queue, more_lanes: Notify::new() }, lanes)
            }
        };
        Schedule { pacing, lanes, stopped: OnceLock::new(), over: CancellationToken::new() }
    }

    /// Returns the upper bound, exclusive, of the numbers of such a run.
    pub(crate) fn limit(amount: Amount, pace: Pace) -> u64 {
        match (amount, pace) {
            (Amount::Events(events), _) => events.min(MAX_NUMBERS),
            (Amount::Time(_), Pace::Closed { .. }) => MAX_NUMBERS,
            (Amount::Time(_), Pace::Open { rate_per_second, .. }) => {
                DueTimes::new(rate_per_second, amount).total()
            }
        }
    }

    /// Returns how many lanes to open at the start, and the maximum.
    pub(crate) fn lanes(&self) -> (u32, u32) {
        self.lanes
    }

    /// Returns the next event for a lane; in an open loop it waits until one is due. `wake` belongs to the lane. `None`:
    /// there are no more.
    pub(crate) async fn next(&self, wake: &Arc<Notify>) -> Option<ScheduledEvent> {
        let event = match &self.pacing {
            Pacing::Closed { next, step, limit, deadline } => self.take(next, *step, *limit, *deadline),
            Pacing::Open { times, start, queue, .. } => loop {
                if self.is_stopped() {
                    break None;
                }
                {
                    let mut queue = lock(queue);
                    if queue.next < queue.due {
                        let number = queue.next;
                        queue.next += 1;
                        break Some(ScheduledEvent { number, scheduled: *start + times.of(number) });
                    }
                    if queue.all_due {
                        break None;
                    }
                    queue.idle.push(Arc::clone(wake));
                }
                // A lane is taken from `idle` before it is woken, so each wake-up belongs to one push.
                wake.notified().await;
                lock(queue).woken -= 1;
            },
        };
        if event.is_none() {
            self.over.cancel();
        }
        event
    }

    fn take(
        &self,
        next: &AtomicU64,
        step: u64,
        limit: u64,
        deadline: Option<Instant>,
    ) -> Option<ScheduledEvent> {
        let now = Instant::now();
        if self.is_stopped() || deadline.is_some_and(|deadline| now >= deadline) {
            return None;
        }
        let number = next.fetch_add(step, Ordering::Relaxed);
        if number + step <= limit {
            return Some(ScheduledEvent { number, scheduled: now });
        }
        if deadline.is_some() {
            self.stop(StopReason::NumbersExhausted);
        }
        None
    }

    /// Ends the schedule. The first reason is kept.
    pub(crate) fn stop(&self, reason: StopReason) {
        // A later reason is ignored.
        let _first = self.stopped.set(reason);
        if let Pacing::Open { queue, .. } = &self.pacing {
            wake_all(&mut lock(queue));
        }
        self.over.cancel();
    }

    /// Whether sending was ended early, so that nothing is sent again either.
    pub(crate) fn is_interrupted(&self) -> bool {
        matches!(self.stopped.get(), Some(StopReason::Interrupted | StopReason::Unreachable))
    }

    /// Whether numbers that have not left must not leave any more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.get().is_some()
    }

    /// Returns why no more numbers are handed out.
    pub(crate) fn stop_reason(&self) -> StopReason {
        self.stopped.get().copied().unwrap_or(StopReason::Completed)
    }

    /// Whether a lane without a number will never get one.
    pub(crate) fn is_over(&self) -> bool {
        if self.is_stopped() {
            return true;
        }
        let over = match &self.pacing {
            Pacing::Closed { next, limit, deadline, .. } => {
                next.load(Ordering::Relaxed) >= *limit || deadline.is_some_and(|at| Instant::now() >= at)
            }
            Pacing::Open { queue, .. } => {
                let queue = lock(queue);
                queue.all_due && queue.next >= queue.due
            }
        };
        if over {
            self.over.cancel();
        }
        over
    }

    /// Waits until no further number will be handed out.
    pub(crate) async fn over(&self) {
        // When the target hangs, no lane may look at the clock.
        if let Pacing::Closed { deadline: Some(deadline), .. } = &self.pacing {
            let deadline = tokio::time::Instant::from_std(*deadline);
            // Either way, the schedule is over: the deadline has passed, or it was over before.
            tokio::time::timeout_at(deadline, self.over.cancelled()).await.ok();
            self.over.cancel();
        }
        self.over.cancelled().await;
    }

    /// Returns how many numbers should have been sent by now.
    pub(crate) fn scheduled(&self) -> u64 {
        match &self.pacing {
            Pacing::Closed { next, limit, .. } => next.load(Ordering::Relaxed).min(*limit),
            Pacing::Open { queue, .. } => lock(queue).due,
        }
    }

    /// Waits until there are due numbers without a lane, and returns how many.
    pub(crate) async fn missing_lanes(&self) -> u64 {
        let Pacing::Open { queue, more_lanes, .. } = &self.pacing else {
            return std::future::pending().await;
        };
        loop {
            more_lanes.notified().await;
            let queue = lock(queue);
            let missing = (queue.due - queue.next).saturating_sub(queue.woken);
            if missing > 0 {
                return missing;
            }
        }
    }

    /// Releases the numbers of an open loop when they are due, until all are or the schedule is stopped. Blocks its
    /// thread. Returns immediately for a closed loop.
    pub(crate) fn pace(&self) {
        let Pacing::Open { times, start, deadline, queue, more_lanes } = &self.pacing else { return };
        while !self.is_stopped() {
            let now = Instant::now();
            let Some(elapsed) = now.checked_duration_since(*start) else {
                std::thread::sleep((*start - now).min(PACER_CHECK_INTERVAL));
                continue;
            };
            let due = times.count(elapsed);
            release(&mut lock(queue), due, more_lanes);
            if due == times.total() {
                break;
            }
            let due_next = *start + times.of(due);
            std::thread::sleep(due_next.saturating_duration_since(Instant::now()).min(PACER_CHECK_INTERVAL));
        }
        if let Some(deadline) = deadline {
            while !self.is_stopped() && Instant::now() < *deadline {
                std::thread::sleep(
                    deadline.saturating_duration_since(Instant::now()).min(PACER_CHECK_INTERVAL),
                );
            }
        }
        {
            let mut queue = lock(queue);
            queue.all_due = true;
            wake_all(&mut queue);
        }
        let Some(deadline) = deadline else { return };
        while !self.is_over() {
            if Instant::now() >= *deadline + GRACE {
                // The rest was due and is never sent. The report counts it.
                self.stop(StopReason::Completed);
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn release(queue: &mut DueQueue, due: u64, more_lanes: &Notify) {
    queue.due = due;
    while queue.due - queue.next > queue.woken {
        // The lane that became idle last, so that few connections carry a calm load and stay warm.
        let Some(lane) = queue.idle.pop() else {
            more_lanes.notify_one();
            break;
        };
        queue.woken += 1;
        lane.notify_one();
    }
}

fn wake_all(queue: &mut DueQueue) {
    while let Some(lane) = queue.idle.pop() {
        queue.woken += 1;
        lane.notify_one();
    }
}

/// These counters are usable after a panic elsewhere.
fn lock(queue: &Mutex<DueQueue>) -> MutexGuard<'_, DueQueue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}
