//! What is sent when: hands out each number once, and says when sending is over.
//!
//! In a *closed loop* every lane (one client, one connection) takes the next number as soon as its last one is
//! answered. In an *open loop* number `n` is due at `n / rate` seconds, whatever the target does: the schedule is
//! fixed before the first request, a lane that comes late takes the oldest due number, and latency counts from the
//! time at which it was due. A thread of its own paces the schedule, because the timers of the asynchronous runtime
//! only know milliseconds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::config::{Amount, Pace};
use super::ledger::MAX_NUMBERS;

/// An open loop begins so long after its lanes, so that the first events find open connections.
const LEAD_TIME: Duration = Duration::from_millis(50);

/// An open loop of fixed duration may still send, so long after its end, what was due before it.
const GRACE: Duration = Duration::from_millis(250);

/// The pacing thread looks at least this often whether it is still wanted.
const PACER_LOOKS_UP: Duration = Duration::from_millis(20);

/// Connections that an open loop opens before it begins; more follow when these are busy.
const OPEN_LOOP_LANES: u32 = 16;

/// Why no more numbers were handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum StopReason {
    /// Everything that was asked for was sent, or the time was up.
    Completed,
    /// Someone asked to stop.
    Interrupted,
    /// For too long no connection to the target could be made, or nothing but failures came from one that is sent
    /// everything until it is accepted.
    Unreachable,
    /// A run of fixed duration used up all numbers that a run may have.
    NumbersExhausted,
}

/// One event to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) number: u64,
    pub(crate) scheduled: Instant,
}

/// The times at which the events of an open loop are due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    rate_per_second: u64,
    total: u64,
}

impl Schedule {
    pub(crate) fn new(rate_per_second: u32, amount: Amount) -> Schedule {
        let rate_per_second = u64::from(rate_per_second.max(1));
        let total = match amount {
            Amount::Events(events) => events,
            Amount::Time(time) => time.as_secs().saturating_mul(rate_per_second),
        };
        Schedule { rate_per_second, total: total.min(MAX_NUMBERS) }
    }

    pub(crate) fn total(self) -> u64 {
        self.total
    }

    /// When `number` is due, from the start of the schedule.
    fn due_at(self, number: u64) -> Duration {
        let (seconds, rest) = (number / self.rate_per_second, number % self.rate_per_second);
        // The rest is below the rate, a u32, so the product fits.
        Duration::new(seconds, 0)
            + Duration::from_nanos((rest * 1_000_000_000).div_ceil(self.rate_per_second))
    }

    /// How many numbers are due after `elapsed`.
    fn due_count(self, elapsed: Duration) -> u64 {
        let whole = elapsed.as_secs().saturating_mul(self.rate_per_second);
        let part = u64::from(elapsed.subsec_nanos()) * self.rate_per_second / 1_000_000_000;
        whole.saturating_add(part).saturating_add(1).min(self.total)
    }
}

enum Loop {
    Closed { next: AtomicU64, limit: u64, deadline: Option<Instant> },
    Open { schedule: Schedule, start: Instant, deadline: Option<Instant>, queue: Mutex<Queue>, grow: Notify },
}

/// Due numbers on one side, lanes without work on the other; never both.
#[derive(Default)]
struct Queue {
    due: u64,
    next: u64,
    scheduled_all: bool,
    idle: Vec<Arc<Notify>>,
    /// Lanes that were taken from `idle` and have not come yet.
    called: u64,
}

/// The plan of one run. Every method may be called from any thread.
pub(crate) struct Plan {
    pace: Loop,
    lanes: (u32, u32),
    stopped: OnceLock<StopReason>,
    over: CancellationToken,
}

impl Plan {
    /// The clock of the run starts here.
    pub(crate) fn start(amount: Amount, pace: Pace) -> Plan {
        let now = Instant::now();
        let (pace, lanes) = match pace {
            Pace::Closed { clients } => {
                let (limit, deadline) = match amount {
                    Amount::Events(events) => (events.min(MAX_NUMBERS), None),
                    Amount::Time(time) => (MAX_NUMBERS, Some(now + time)),
                };
                (Loop::Closed { next: AtomicU64::new(0), limit, deadline }, (clients, clients))
            }
            Pace::Open { rate_per_second, max_in_flight } => {
                let start = now + LEAD_TIME;
                let deadline = match amount {
                    Amount::Events(_) => None,
                    Amount::Time(time) => Some(start + time),
                };
                let schedule = Schedule::new(rate_per_second, amount);
                let queue = Mutex::new(Queue::default());
                let lanes = (OPEN_LOOP_LANES.min(max_in_flight), max_in_flight);
                (Loop::Open { schedule, start, deadline, queue, grow: Notify::new() }, lanes)
            }
        };
        Plan { pace, lanes, stopped: OnceLock::new(), over: CancellationToken::new() }
    }

    /// Numbers below this one may be used in a run of this kind.
    pub(crate) fn limit(amount: Amount, pace: Pace) -> u64 {
        match (amount, pace) {
            (Amount::Events(events), _) => events.min(MAX_NUMBERS),
            (Amount::Time(_), Pace::Closed { .. }) => MAX_NUMBERS,
            (Amount::Time(_), Pace::Open { rate_per_second, .. }) => {
                Schedule::new(rate_per_second, amount).total()
            }
        }
    }

    /// Lanes to open at once, and the most that may ever be open.
    pub(crate) fn lanes(&self) -> (u32, u32) {
        self.lanes
    }

    /// The next event for a lane; in an open loop it waits for one to be due. `wake` belongs to the lane. `None`:
    /// there will be no more.
    pub(crate) async fn next(&self, wake: &Arc<Notify>) -> Option<Turn> {
        let turn = match &self.pace {
            Loop::Closed { next, limit, deadline } => self.take(next, *limit, *deadline),
            Loop::Open { schedule, start, queue, .. } => loop {
                if self.is_stopped() {
                    break None;
                }
                {
                    let mut queue = lock(queue);
                    if queue.next < queue.due {
                        let number = queue.next;
                        queue.next += 1;
                        break Some(Turn { number, scheduled: *start + schedule.due_at(number) });
                    }
                    if queue.scheduled_all {
                        break None;
                    }
                    queue.idle.push(Arc::clone(wake));
                }
                // A lane is taken from `idle` before it is woken, so one waking answers one push.
                wake.notified().await;
                lock(queue).called -= 1;
            },
        };
        if turn.is_none() {
            self.over.cancel();
        }
        turn
    }

    fn take(&self, next: &AtomicU64, limit: u64, deadline: Option<Instant>) -> Option<Turn> {
        let now = Instant::now();
        if self.is_stopped() || deadline.is_some_and(|deadline| now >= deadline) {
            return None;
        }
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number < limit {
            return Some(Turn { number, scheduled: now });
        }
        if deadline.is_some() {
            self.stop(StopReason::NumbersExhausted);
        }
        None
    }

    /// Hands out nothing more. The first reason stays.
    pub(crate) fn stop(&self, reason: StopReason) {
        // A second reason comes too late to be the reason.
        let _first = self.stopped.set(reason);
        if let Loop::Open { queue, .. } = &self.pace {
            wake_all(&mut lock(queue));
        }
        self.over.cancel();
    }

    /// Whether sending was ended before its time, so that nothing is worth a resend either.
    pub(crate) fn is_interrupted(&self) -> bool {
        matches!(self.stopped.get(), Some(StopReason::Interrupted | StopReason::Unreachable))
    }

    /// Whether a number that has not left must not leave any more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.get().is_some()
    }

    /// Why nothing more is handed out.
    pub(crate) fn stop_reason(&self) -> StopReason {
        self.stopped.get().copied().unwrap_or(StopReason::Completed)
    }

    /// Whether a lane without a number will not get one any more.
    pub(crate) fn is_over(&self) -> bool {
        if self.is_stopped() {
            return true;
        }
        let over = match &self.pace {
            Loop::Closed { next, limit, deadline } => {
                next.load(Ordering::Relaxed) >= *limit || deadline.is_some_and(|at| Instant::now() >= at)
            }
            Loop::Open { queue, .. } => {
                let queue = lock(queue);
                queue.scheduled_all && queue.next >= queue.due
            }
        };
        if over {
            self.over.cancel();
        }
        over
    }

    /// Completes when no further number will be handed out.
    pub(crate) async fn over(&self) {
        // A target that hangs may keep every lane from looking at the clock.
        if let Loop::Closed { deadline: Some(deadline), .. } = &self.pace {
            let deadline = tokio::time::Instant::from_std(*deadline);
            // The deadline has passed, or the plan was over before.
            tokio::time::timeout_at(deadline, self.over.cancelled()).await.ok();
            self.over.cancel();
        }
        self.over.cancelled().await;
    }

    /// How many numbers should have been sent by now.
    pub(crate) fn scheduled(&self) -> u64 {
        match &self.pace {
            Loop::Closed { next, limit, .. } => next.load(Ordering::Relaxed).min(*limit),
            Loop::Open { queue, .. } => lock(queue).due,
        }
    }

    /// Waits until due numbers find no lane, and says how many there are.
    pub(crate) async fn short_of_lanes(&self) -> u64 {
        let Loop::Open { queue, grow, .. } = &self.pace else {
            return std::future::pending().await;
        };
        loop {
            grow.notified().await;
            let queue = lock(queue);
            let short = (queue.due - queue.next).saturating_sub(queue.called);
            if short > 0 {
                return short;
            }
        }
    }

    /// Releases the numbers of an open loop when they are due, until all are or the plan is stopped. Blocks its
    /// thread. Returns at once for a closed loop.
    pub(crate) fn pace(&self) {
        let Loop::Open { schedule, start, deadline, queue, grow } = &self.pace else { return };
        while !self.is_stopped() {
            let now = Instant::now();
            let Some(elapsed) = now.checked_duration_since(*start) else {
                std::thread::sleep((*start - now).min(PACER_LOOKS_UP));
                continue;
            };
            let due = schedule.due_count(elapsed);
            release(&mut lock(queue), due, grow);
            if due == schedule.total() {
                break;
            }
            let due_next = *start + schedule.due_at(due);
            std::thread::sleep(due_next.saturating_duration_since(Instant::now()).min(PACER_LOOKS_UP));
        }
        if let Some(deadline) = deadline {
            while !self.is_stopped() && Instant::now() < *deadline {
                std::thread::sleep(deadline.saturating_duration_since(Instant::now()).min(PACER_LOOKS_UP));
            }
        }
        {
            let mut queue = lock(queue);
            queue.scheduled_all = true;
            wake_all(&mut queue);
        }
        let Some(deadline) = deadline else { return };
        while !self.is_over() {
            if Instant::now() >= *deadline + GRACE {
                // What is left was due and never sent. The report says so.
                self.stop(StopReason::Completed);
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn release(queue: &mut Queue, due: u64, grow: &Notify) {
    queue.due = due;
    while queue.due - queue.next > queue.called {
        // The lane that was idle last: few connections then carry a calm load, and stay warm.
        let Some(lane) = queue.idle.pop() else {
            grow.notify_one();
            break;
        };
        queue.called += 1;
        lane.notify_one();
    }
}

fn wake_all(queue: &mut Queue) {
    while let Some(lane) = queue.idle.pop() {
        queue.called += 1;
        lane.notify_one();
    }
}

/// A panic elsewhere leaves these counters usable.
fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Pace = Pace::Open { rate_per_second: 10_000, max_in_flight: 4 };

    #[test]
    fn the_schedule_is_even_and_its_two_directions_agree() {
        for rate in [1, 3, 7, 200, 1_000, 12_345, 1_000_000] {
            let schedule = Schedule::new(rate, Amount::Events(MAX_NUMBERS));
            for number in [0, 1, 2, 99, 12_344, 12_345, 1_000_001] {
                let due = schedule.due_at(number);
                assert_eq!(schedule.due_count(due), number + 1, "rate {rate}, number {number}");
                if let Some(before) = due.checked_sub(Duration::from_nanos(1)) {
                    assert_eq!(schedule.due_count(before), number, "rate {rate}, number {number}");
                }
            }
        }
    }

    #[test]
    fn a_duration_becomes_a_number_of_events_in_an_open_loop() {
        let amount = Amount::Time(Duration::from_secs(3));
        assert_eq!(Schedule::new(200, amount).total(), 600);
        assert_eq!(Plan::limit(amount, OPEN), 30_000);
        assert_eq!(Plan::limit(amount, Pace::Closed { clients: 1 }), MAX_NUMBERS);
    }

    #[tokio::test]
    async fn a_closed_loop_hands_out_each_number_once_and_then_is_over() {
        let plan = Plan::start(Amount::Events(3), Pace::Closed { clients: 2 });
        let wake = Arc::new(Notify::new());
        for number in 0..3 {
            assert_eq!(plan.next(&wake).await.map(|turn| turn.number), Some(number));
        }
        assert_eq!(plan.next(&wake).await, None);
        plan.over().await;
        assert_eq!((plan.stop_reason(), plan.scheduled()), (StopReason::Completed, 3));
    }

    #[tokio::test]
    async fn a_stopped_loop_hands_out_nothing() {
        for pace in [OPEN, Pace::Closed { clients: 2 }] {
            let plan = Plan::start(Amount::Time(Duration::from_secs(60)), pace);
            plan.stop(StopReason::Interrupted);
            plan.stop(StopReason::Unreachable);
            assert_eq!(plan.next(&Arc::new(Notify::new())).await, None);
            assert_eq!(plan.stop_reason(), StopReason::Interrupted);
            plan.pace();
        }
    }

    #[tokio::test]
    async fn an_open_loop_hands_out_in_order_and_never_early() {
        let plan = Arc::new(Plan::start(Amount::Events(50), OPEN));
        let pacer = std::thread::spawn({
            let plan = Arc::clone(&plan);
            move || plan.pace()
        });
        let wake = Arc::new(Notify::new());
        let mut numbers = 0..50;
        while let Some(turn) = plan.next(&wake).await {
            assert_eq!(Some(turn.number), numbers.next());
            assert!(turn.scheduled <= Instant::now());
        }
        assert_eq!(numbers.next(), None);
        assert_eq!(plan.scheduled(), 50);
        pacer.join().expect("the pacer ends with the schedule");
    }

    #[tokio::test]
    async fn due_numbers_without_a_lane_are_reported_and_left_when_the_time_is_up() {
        let plan = Arc::new(Plan::start(Amount::Time(Duration::from_secs(1)), OPEN));
        let pacer = std::thread::spawn({
            let plan = Arc::clone(&plan);
            move || plan.pace()
        });
        assert!(plan.short_of_lanes().await > 0);
        pacer.join().expect("the pacer ends after the grace");
        assert_eq!(plan.next(&Arc::new(Notify::new())).await, None);
        assert_eq!((plan.scheduled(), plan.stop_reason()), (10_000, StopReason::Completed));
    }
}
