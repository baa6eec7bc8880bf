//! What is new, read once for all who watch.
//!
//! One task of the process reads the changes of each second while somebody watches, so that many watchers cost PostgreSQL as much as
//! one. What it read is kept for a few seconds: who is slower than that is told how much passed it by.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use grapnel_core::error_chain::chain;
use grapnel_store::Database;
use grapnel_store::views::{ChangedEvent, Changes, Seen, changes_since, now_seen};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// The time between two readings, at least; and how many times as long as a reading took.
const PERIOD: Duration = Duration::from_secs(1);
const SHARE: u32 = 20;

/// Changes that are looked at at once. There may be more: then they are counted.
const READ_LIMIT: usize = 500;

/// Events of one reading for one watcher. Where nobody who watches leaves anything out, no more are read.
pub(super) const MOST_AT_ONCE: usize = 50;

/// The time for the first reading.
const FIRST_READING: Duration = Duration::from_secs(10);

/// Readings that are kept for slow watchers, and for those who come back.
const KEPT: usize = 8;

/// The time between two watchers that are sent the same reading, up to a number of them; the next ones go with the last of these.
const BETWEEN_WATCHERS: Duration = Duration::from_millis(2);
const LONGEST_TURN: u32 = 250;

/// The gauge of those who watch.
const WATCHERS: &str = "grapnel_stream_watchers";

/// Who may watch at a time: in all, and under one name.
const MAX_WATCHERS: usize = 1_000;
const MAX_WATCHERS_OF_ONE: usize = 250;

/// What one reading found.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) events: Vec<LiveEvent>,
    /// Changes that whoever wants all of them would be told, but for their number: nothing else is known of them.
    pub(super) counted: u64,
    /// Changes that were not read. None when nobody knows how many.
    pub(super) unread: Option<u64>,
    /// All changes since the task began, these included.
    total: u64,
    /// What a watcher that has got this has seen, as a client keeps it.
    pub(super) id: String,
    /// When that was.
    at: Instant,
}

/// A change, for all who watch.
#[derive(Debug)]
pub(super) struct LiveEvent {
    pub(super) changed: ChangedEvent,
    /// What they are sent of it: the first one who wants it makes it.
    pub(super) message: OnceLock<Bytes>,
}

impl Reading {
    fn of(changes: Changes, total: u64) -> Self {
        let live = |changed| LiveEvent { changed, message: OnceLock::new() };
        let events = changes.events.into_iter().map(live).collect();
        Self {
            events,
            counted: changes.counted,
            unread: changes.unread,
            total,
            id: changes.seen.to_text(),
            at: Instant::now(),
        }
    }

    fn changes(&self) -> u64 {
        self.events.len() as u64 + self.counted + self.unread.unwrap_or(0)
    }
}

/// The changes, for whoever watches them.
#[derive(Clone)]
pub struct LiveEvents(Arc<Shared>);

struct Shared {
    db: Database,
    stop: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    readings: Option<broadcast::Sender<Arc<Reading>>>,
    /// Whether there has been a reading.
    has_begun: bool,
    /// Of the last reading.
    total: u64,
    /// The latest ones.
    kept: VecDeque<Arc<Reading>>,
    /// By name.
    watchers: HashMap<String, usize>,
    /// Those who do not want everything.
    choosy: usize,
}

/// One who watches.
pub(super) struct Watcher {
    /// What it gets before the readings that are to come.
    before: VecDeque<Arc<Reading>>,
    readings: broadcast::Receiver<Arc<Reading>>,
    /// What it gets when its turn comes.
    received: Option<Next>,
    /// Whether the task had begun to read before.
    has_begun: bool,
    /// The total that it knows of.
    total: u64,
    /// How long it lets others go first, so that not all are sent a reading in the same moment, which webhooks would wait for.
    lets_go_first: Duration,
    /// Counted until it is dropped.
    _place: Place,
}

/// What a watcher gets next.
pub(super) struct Next {
    pub(super) reading: Arc<Reading>,
    /// Changes that passed it by, since it was too slow.
    pub(super) missed: u64,
}

impl LiveEvents {
    /// Ends for all watchers when it is told to stop.
    pub fn new(db: Database, stop: CancellationToken) -> Self {
        Self(Arc::new(Shared { db, stop, state: Mutex::default() }))
    }

    /// Returns who is told what happened from `since` on, or from now, and what follows. None when too many watch. Who is choosy does not want
    /// everything.
    pub(super) async fn watch(
        &self,
        name: &str,
        is_choosy: bool,
        since: Option<Seen>,
    ) -> grapnel_store::Result<Option<Watcher>> {
        let Some((mut watcher, kept)) = self.enter(name, is_choosy) else { return Ok(None) };
        // Its stream has just ended: nothing is read for it.
        let missed = since.as_ref().and_then(|since| readings_since(&kept, since));
        let is_enough =
            |missed: &VecDeque<Arc<Reading>>| !is_choosy || missed.iter().all(|reading| reading.counted == 0);
        if let Some(missed) = missed.filter(is_enough) {
            watcher.before = missed;
            return Ok(Some(watcher));
        }
        drop(kept);
        // It listens already, to a task that has begun: what happens meanwhile comes twice rather than never.
        if !watcher.has_begun {
            let first = timeout(FIRST_READING, watcher.next()).await;
            first.map_err(|_| grapnel_store::Error::Deadline)?;
        }
        let changes = read_once(&self.0.db, since.as_ref(), read_for(is_choosy)).await?;
        watcher.before.push_back(Arc::new(Reading::of(changes, watcher.total)));
        Ok(Some(watcher))
    }

    pub(super) fn stopped(&self) -> CancellationToken {
        self.0.stop.clone()
    }

    /// Returns a new watcher, and the readings before those that it will get. None when too many watch.
    fn enter(&self, name: &str, is_choosy: bool) -> Option<(Watcher, VecDeque<Arc<Reading>>)> {
        let mut state = self.0.state();
        let of_one = state.watchers.get(name).copied().unwrap_or(0);
        let others = state.watchers.values().sum::<usize>();
        if of_one >= MAX_WATCHERS_OF_ONE || others >= MAX_WATCHERS {
            return None;
        }
        *state.watchers.entry(name.to_owned()).or_default() += 1;
        state.choosy += usize::from(is_choosy);
        let readings = match &state.readings {
            Some(readings) => readings.subscribe(),
            None => {
                let (readings, receiver) = broadcast::channel(KEPT);
                state.readings = Some(readings.clone());
                (state.has_begun, state.total) = (false, 0);
                tokio::spawn(read(Arc::clone(&self.0), readings));
                receiver
            }
        };
        metrics::gauge!(WATCHERS).set((others + 1) as f64);
        let watcher = Watcher {
            before: VecDeque::new(),
            readings,
            received: None,
            has_begun: state.has_begun,
            total: state.total,
            lets_go_first: turn(others),
            _place: Place { shared: Arc::clone(&self.0), name: name.to_owned(), is_choosy },
        };
        Some((watcher, state.kept.clone()))
    }
}

/// Returns the readings after the one whose id a client has, if that is one of them.
fn readings_since(kept: &VecDeque<Arc<Reading>>, since: &Seen) -> Option<VecDeque<Arc<Reading>>> {
    let id = since.to_text();
    let last = kept.iter().position(|reading| reading.id == id)?;
    Some(kept.range(last + 1..).cloned().collect())
}

/// Returns how long the watcher beside so many others waits with a reading.
fn turn(others: usize) -> Duration {
    BETWEEN_WATCHERS * u32::try_from(others).unwrap_or(u32::MAX).min(LONGEST_TURN)
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the task ends, since nobody watches any more. Who comes later begins another.
    fn is_left(&self) -> bool {
        let mut state = self.state();
        let is_left = state.watchers.is_empty() || self.stop.is_cancelled();
        if is_left {
            state.readings = None;
            state.kept.clear();
        }
        is_left
    }
}

struct Place {
    shared: Arc<Shared>,
    name: String,
    is_choosy: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.choosy -= usize::from(self.is_choosy);
        if let Some(count) = state.watchers.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                state.watchers.remove(&self.name);
            }
        }
        metrics::gauge!(WATCHERS).set(state.watchers.values().sum::<usize>() as f64);
    }
}

impl Watcher {
    /// None when the process stops. Nothing is lost when it is dropped meanwhile.
    pub(super) async fn next(&mut self) -> Option<Next> {
        if let Some(reading) = self.before.pop_front() {
            return Some(Next { reading, missed: 0 });
        }
        if self.received.is_none() {
            self.received = self.receive().await;
        }
        if let Some(next) = &self.received {
            sleep_until(next.reading.at + self.lets_go_first).await;
        }
        self.received.take()
    }

    async fn receive(&mut self) -> Option<Next> {
        loop {
            match self.readings.recv().await {
                Ok(reading) => {
                    let before = reading.total.saturating_sub(reading.changes());
                    let missed = before.saturating_sub(self.total);
                    self.total = reading.total;
                    return Some(Next { reading, missed });
                }
                // The next one tells how much that was.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

async fn read(shared: Arc<Shared>, readings: broadcast::Sender<Arc<Reading>>) {
    let mut seen: Option<Seen> = None;
    let (mut total, mut next) = (0_u64, Instant::now());
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => {}
            () = sleep_until(next) => {}
        }
        if shared.is_left() {
            return;
        }
        let began = Instant::now();
        let latest = read_for(shared.state().choosy > 0);
        match read_once(&shared.db, seen.as_ref(), latest).await {
            Ok(changes) => {
                seen = Some(changes.seen.clone());
                let mut reading = Reading::of(changes, total);
                total += reading.changes();
                reading.total = total;
                let reading = Arc::new(reading);
                let mut state = shared.state();
                (state.has_begun, state.total) = (true, total);
                if state.kept.len() == KEPT {
                    state.kept.pop_front();
                }
                state.kept.push_back(Arc::clone(&reading));
                // Nobody receives it when all have just left.
                drop(readings.send(reading));
            }
            Err(error) => tracing::warn!(error = %chain(&error), "changes of events cannot be read"),
        }
        next = began + PERIOD.max(began.elapsed() * SHARE);
    }
}

/// Returns what happened from `seen` on; from now, nothing.
async fn read_once(db: &Database, seen: Option<&Seen>, latest: usize) -> grapnel_store::Result<Changes> {
    match seen {
        Some(seen) => changes_since(db, seen, READ_LIMIT, latest).await,
        None => Ok(Changes { events: Vec::new(), counted: 0, unread: Some(0), seen: now_seen(db).await? }),
    }
}

/// Returns how many changes are read for those who watch.
fn read_for(is_any_choosy: bool) -> usize {
    if is_any_choosy { READ_LIMIT } else { MOST_AT_ONCE }
}
