//! The feeder of replays: makes their deliveries due again, at their rates, and counts what becomes of them.
//!
//! It runs in every api process and works in the one whose dispatcher has the lease. Two at once do no harm: whatever a job has (its position,
//! its rate, its state) is in its row, and whoever feeds holds the lock of the row. What is fed is due, and the dispatcher queues it as it does all else.
//!
//! Deliveries of new events come first: at most a quarter of what the workers of a destination can send at a time is of replays. A destination
//! that is paused gets none.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_core::ids::{IntegrationId, ReplayJobId};
use grapnel_core::replay::{ReplayState, pace};
use grapnel_crds::{Destination, IntegrationSpec, IntegrationState};
use grapnel_platform::queue::QueueConnection;
use grapnel_store::Database;
use grapnel_store::replay_jobs::{
    self, DestinationPosition, Feed, FeedOutcome, Finder, FoundDeliveries, Turn,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::integrations::cache::IntegrationCache;

/// How often jobs are looked for.
const IDLE: Duration = Duration::from_millis(500);

/// The time between two turns of the jobs: while their rates hold them up, and while they wait for deliveries to end.
const PACED: Duration = Duration::from_millis(100);
const CROWDED: Duration = Duration::from_millis(25);

/// Deliveries that one transaction feeds.
const BATCH: u64 = 500;

/// How long the number of workers of a queue is believed.
const LANES_KEPT: Duration = Duration::from_secs(2);

/// What was found ahead is not believed for longer.
const FOUND_KEPT: Duration = Duration::from_secs(10);

/// How often the jobs in each state are counted.
const COUNTED_EVERY: Duration = Duration::from_secs(10);

/// Why a job pauses itself.
const INTEGRATION_DISABLED: &str = "IntegrationDisabled";

/// The parts of the feeder.
#[derive(Debug)]
pub(crate) struct Feeder {
    pub db: Database,
    /// Whether the dispatcher of this process has the lease.
    pub leads: Arc<AtomicBool>,
    pub integrations: IntegrationCache,
    /// Asks queues for their consumers.
    pub queues: QueueConnection,
    pub queue_prefix: String,
    /// Wakes the dispatcher.
    pub wake: Arc<Notify>,
}

/// A destination of a job.
type Part = (ReplayJobId, IntegrationId, String);

/// What the feeder remembers from one turn to the next. All of it can be found again.
#[derive(Debug, Default)]
struct Memory {
    finders: HashMap<Part, (Finder, Instant)>,
    lanes: HashMap<(IntegrationId, String), (usize, Instant)>,
    counted_at: Option<Instant>,
    /// Which destination of a job comes first takes turns.
    turns: usize,
}

/// What a turn ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Pace {
    Idle,
    Paced,
    /// More would be fed if less were under way.
    Crowded,
}

/// What may be fed to a destination.
enum Room {
    For(u64),
    /// It takes nothing now.
    None,
    /// It is not there any more: what is left is skipped.
    Gone,
    Disabled,
}

impl Feeder {
    /// Feeds until the token is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut memory = Memory::default();
        loop {
            let mut pace = Pace::Idle;
            if self.leads.load(Ordering::Acquire) && self.integrations.is_loaded() {
                let pass = self.pass(&mut memory, &stop);
                match pass.await {
                    Ok(reached) => pace = reached,
                    Err(error) => tracing::warn!(error = %chain(&error), "replays cannot go on yet"),
                }
            } else {
                memory = Memory::default();
            }
            let wait = match pace {
                Pace::Idle => IDLE,
                Pace::Paced => PACED,
                Pace::Crowded => CROWDED,
            };
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                break;
            }
        }
        self.queues.close().await;
    }

    /// Gives each job a turn.
    async fn pass(&self, memory: &mut Memory, stop: &CancellationToken) -> grapnel_store::Result<Pace> {
        self.count_jobs(memory).await;
        let jobs = replay_jobs::unfinished(&self.db).await?;
        memory.forget_others(&jobs);
        let mut pace = Pace::Idle;
        for id in jobs {
            if stop.is_cancelled() {
                break;
            }
            let turn = match replay_jobs::take_turn(&self.db, id).await {
                Ok(Some(turn)) => turn,
                Ok(None) => {
                    pace = pace.max(Pace::Paced);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), replay.id = %id, "a replay cannot go on yet");
                    continue;
                }
            };
            pace = pace.max(self.feed(&turn, memory).await);
        }
        Ok(pace)
    }

    /// Feeds what may be fed of a job now.
    async fn feed(&self, turn: &Turn, memory: &mut Memory) -> Pace {
        let (id, mut left, mut pace) = (turn.job.id, turn.allowed, Pace::Paced);
        let count = turn.destinations.len();
        memory.turns = memory.turns.wrapping_add(1);
        for step in 0..count {
            let Some(position) = turn.destinations.get((memory.turns + step) % count) else { continue };
            // What one does not take is left for those behind it.
            let share = left.div_ceil((count - step) as u64).min(BATCH);
            let most = match self.room(position, memory).await {
                Room::For(room) => {
                    if room < share {
                        pace = Pace::Crowded;
                    }
                    share.min(room)
                }
                Room::None => continue,
                Room::Gone => BATCH,
                Room::Disabled => {
                    self.pause_disabled(id).await;
                    return Pace::Paced;
                }
            };
            if most == 0 && !turn.is_at_limit {
                continue;
            }
            match self.feed_destination(turn, position, most, memory).await {
                Ok(Some(fed)) => left = left.saturating_sub(fed),
                Ok(None) => return Pace::Paced,
                Err(error) => {
                    memory.forget(id, position);
                    tracing::warn!(
                        error = %chain(&error), replay.id = %id, destination = position.name,
                        "deliveries of a replay cannot be fed yet"
                    );
                }
            }
        }
        pace
    }

    /// Feeds up to so many deliveries to a destination, and returns how many; `None` when the job has ended by that.
    async fn feed_destination(
        &self,
        turn: &Turn,
        position: &DestinationPosition,
        most: u64,
        memory: &mut Memory,
    ) -> grapnel_store::Result<Option<u64>> {
        let job = &turn.job;
        let configured = self.configured(position);
        let finder =
            memory.finder(job.id, position, || Finder::new(&job.spec, configured.as_ref(), position.cursor));
        finder.look(&self.db, &job.spec, position.integration_id, &position.name).await?;
        if turn.is_at_limit && finder.has_found() {
            replay_jobs::stop_at_limit(&self.db, job.id).await?;
            return Ok(None);
        }
        let found = finder.take(usize::try_from(most).unwrap_or(usize::MAX));
        let FoundDeliveries { cursor, next_cursor, is_last, events, unfinished } = found;
        if cursor == next_cursor && events.is_empty() && !is_last {
            return Ok(Some(0));
        }
        let feed = Feed {
            job_id: job.id,
            integration_id: position.integration_id,
            destination: &position.name,
            cursor,
            next_cursor,
            is_last,
            events: &events,
            unfinished,
            allowed: most.min(turn.allowed),
        };
        match replay_jobs::feed(&self.db, &feed).await? {
            FeedOutcome::Fed(fed) => {
                if fed > 0 {
                    metrics::counter!("grapnel_replay_deliveries_fed_total").increment(fed);
                    self.wake.notify_one();
                }
                Ok(Some(fed))
            }
            FeedOutcome::Stale => {
                memory.forget(job.id, position);
                Ok(Some(0))
            }
        }
    }

    /// Returns a destination as it is configured now.
    fn configured(&self, position: &DestinationPosition) -> Option<Destination> {
        let integrations = self.integrations.load();
        let spec = &integrations.get(position.integration_id)?.row.spec;
        let spec: IntegrationSpec = serde_json::from_str(spec).ok()?;
        spec.destinations.into_iter().find(|destination| destination.name == position.name)
    }

    async fn room(&self, position: &DestinationPosition, memory: &mut Memory) -> Room {
        let max_concurrency = {
            let integrations = self.integrations.load();
            let id = position.integration_id;
            let Some(integration) = integrations.get(id) else {
                // One that cannot be read here may be served by other processes.
                return if integrations.is_unusable(id) { Room::None } else { Room::Gone };
            };
            if integration.state == IntegrationState::Disabled {
                return Room::Disabled;
            }
            match integration.destination(&position.name) {
                None => return Room::Gone,
                Some(destination) if !integration.delivers_to(destination) => return Room::None,
                Some(destination) => destination.max_concurrency,
            }
        };
        let window = pace::window(max_concurrency, self.lanes(position, memory).await);
        Room::For(window.saturating_sub(position.under_way) as u64)
    }

    /// Returns how many workers consume the queue of a destination. While RabbitMQ does not say, it is as many as before.
    async fn lanes(&self, position: &DestinationPosition, memory: &mut Memory) -> usize {
        let key = (position.integration_id, position.name.clone());
        let known = memory.lanes.get(&key).copied();
        if let Some((lanes, _)) = known.filter(|(_, read_at)| read_at.elapsed() < LANES_KEPT) {
            return lanes;
        }
        let queue = grapnel_crds::names::queue_name(
            &self.queue_prefix,
            position.integration_id.uuid(),
            &position.name,
        );
        let lanes = match self.queues.consumers(&queue).await {
            Ok(consumers) => consumers as usize,
            Err(error) => {
                tracing::debug!(error = %chain(&error), queue, "the consumers of a queue cannot be counted");
                known.map_or(0, |(lanes, _)| lanes)
            }
        };
        memory.lanes.insert(key, (lanes, Instant::now()));
        lanes
    }

    async fn pause_disabled(&self, id: ReplayJobId) {
        let message = "the Integration is disabled";
        if let Err(error) = replay_jobs::pause(&self.db, id, INTEGRATION_DISABLED, message).await {
            tracing::warn!(error = %chain(&error), replay.id = %id, "a replay cannot be paused yet");
        }
    }

    /// Says how many jobs are in each state.
    async fn count_jobs(&self, memory: &mut Memory) {
        if memory.counted_at.is_some_and(|counted_at| counted_at.elapsed() < COUNTED_EVERY) {
            return;
        }
        memory.counted_at = Some(Instant::now());
        let counts = match replay_jobs::count_by_state(&self.db).await {
            Ok(counts) => counts,
            Err(error) => {
                tracing::debug!(error = %chain(&error), "replays cannot be counted");
                return;
            }
        };
        for state in ReplayState::ALL {
            let jobs = counts.iter().find(|count| count.state == state).map_or(0, |count| count.jobs);
            metrics::gauge!("grapnel_replays", "state" => state.as_str()).set(jobs as f64);
        }
    }
}

impl Memory {
    /// Returns what was found of a destination, as far as it is where the job is.
    fn finder(
        &mut self,
        id: ReplayJobId,
        position: &DestinationPosition,
        begin: impl FnOnce() -> Finder,
    ) -> &mut Finder {
        let part = (id, position.integration_id, position.name.clone());
        let is_current = self.finders.get(&part).is_some_and(|(finder, began_at)| {
            finder.cursor() == position.cursor && began_at.elapsed() < FOUND_KEPT
        });
        if !is_current {
            self.finders.remove(&part);
        }
        &mut self.finders.entry(part).or_insert_with(|| (begin(), Instant::now())).0
    }

    fn forget(&mut self, id: ReplayJobId, position: &DestinationPosition) {
        self.finders.remove(&(id, position.integration_id, position.name.clone()));
    }

    /// Forgets what is about jobs that have ended.
    fn forget_others(&mut self, jobs: &[ReplayJobId]) {
        let jobs: HashSet<&ReplayJobId> = jobs.iter().collect();
        self.finders.retain(|(id, ..), _| jobs.contains(id));
        self.lanes.retain(|_, (_, read_at)| read_at.elapsed() < FOUND_KEPT);
    }
}
