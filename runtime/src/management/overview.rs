//! How every Integration does: what the first page of the console shows, for all who look at it.
//!
//! It is read once for everybody and kept for a moment, so many open pages cost as much as one; who sees what of it is decided for each. The longer
//! a part takes to read, the longer it is kept, so that reading it takes no more than a part of the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use grapnel_core::ids::IntegrationId;
use grapnel_store::Database;
use grapnel_store::views::{
    Backlog, COUNTED_BACKLOG, IntegrationFilter, LastFailure, PageRequest, RecentTraffic, Start, TrafficPart,
    list_integrations, load_backlogs, load_last_failure, load_parts, load_recent,
};
use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};
use tokio::sync::Mutex;

use super::authorize::Visible;
use super::model::{IntegrationView, Rfc3339Millis};
use crate::http::envelope::ApiError;

/// The parts of a day.
const PARTS: usize = 96;
const PART: Duration = Duration::from_secs(15 * 60);

/// What counts as lately.
pub(crate) const RECENT: SignedDuration = SignedDuration::from_mins(10);

/// How long what is read is good for, at least.
const DAY_LASTS: Duration = Duration::from_secs(30);
const NOW_LASTS: Duration = Duration::from_millis(1_500);

/// It is kept for this many times as long as it took to read.
const COST: u32 = 15;

/// The integrations that are listed.
const MAX_INTEGRATIONS: u32 = 5_000;

/// The failing destinations whose last error is looked up.
const MAX_FAILURES: usize = 20;

/// How an Integration does.
#[derive(Debug)]
pub(crate) struct IntegrationHealth {
    pub(crate) integration: IntegrationView,
    /// Of the last 24 hours.
    pub(crate) day: TrafficPart,
    /// Accepted and failed in each quarter of an hour of the last day, the oldest first.
    pub(crate) accepted: Vec<i64>,
    pub(crate) failed: Vec<i64>,
    /// Of the last ten minutes.
    pub(crate) recent: TrafficPart,
    /// Those with traffic in the last ten minutes or with a backlog, by name.
    pub(crate) destinations: Vec<DestinationHealth>,
}

/// How a destination does.
#[derive(Debug)]
pub(crate) struct DestinationHealth {
    pub(crate) name: String,
    /// Of the last ten minutes.
    pub(crate) recent: TrafficPart,
    /// Unfinished deliveries, up to 10,000.
    pub(crate) backlog: i64,
    pub(crate) oldest: Option<Rfc3339Millis>,
    /// Of one that fails, for who may see deliveries.
    pub(crate) last_failure: Option<LastFailureView>,
}

/// The last attempt that failed.
#[derive(Debug)]
pub(crate) struct LastFailureView {
    pub(crate) http_status: Option<i16>,
    pub(crate) error: String,
    pub(crate) at: Rfc3339Millis,
}

impl DestinationHealth {
    /// Whether most of what was tried lately failed.
    pub(crate) fn is_failing(&self) -> bool {
        let failures = self.recent.failed + self.recent.retrying;
        failures > 0 && failures >= self.recent.delivered
    }

    /// Whether the backlog is the counted number or more.
    pub(crate) fn is_backlog_capped(&self) -> bool {
        self.backlog >= COUNTED_BACKLOG
    }
}

impl IntegrationHealth {
    /// Unfinished deliveries of all destinations.
    pub(crate) fn backlog(&self) -> i64 {
        self.destinations.iter().map(|destination| destination.backlog).sum()
    }

    pub(crate) fn is_backlog_capped(&self) -> bool {
        self.destinations.iter().any(DestinationHealth::is_backlog_capped)
    }

    /// When the oldest event was received of which a delivery waits.
    pub(crate) fn oldest(&self) -> Option<Rfc3339Millis> {
        let times = self.destinations.iter().filter_map(|destination| destination.oldest.map(|time| time.0));
        times.min().map(Rfc3339Millis)
    }
}

/// What was read for everybody.
#[derive(Default)]
pub(crate) struct OverviewCache {
    day: Kept<HashMap<IntegrationId, Vec<(usize, TrafficPart)>>>,
    now: Kept<Now>,
}

struct Now {
    recent: Vec<RecentTraffic>,
    backlogs: Vec<Backlog>,
    failures: HashMap<(IntegrationId, String), LastFailure>,
}

/// A value that is read again when it is too old.
struct Kept<T>(Mutex<Option<(Instant, Arc<T>)>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Kept<T> {
    /// Returns the value. One caller reads it, and the others wait for that.
    async fn get(
        &self,
        lasts: Duration,
        read: impl Future<Output = grapnel_store::Result<T>>,
    ) -> grapnel_store::Result<Arc<T>> {
        let mut kept = self.0.lock().await;
        if let Some((until, value)) = &*kept
            && Instant::now() < *until
        {
            return Ok(Arc::clone(value));
        }
        let began = Instant::now();
        let value = Arc::new(read.await?);
        let until = Instant::now() + lasts.max(began.elapsed() * COST);
        *kept = Some((until, Arc::clone(&value)));
        Ok(value)
    }
}

/// Reads how the visible Integrations do. `with_errors`: of which the texts of errors may be shown.
pub(super) async fn read(
    db: &Database,
    cache: &OverviewCache,
    visible: &Visible,
    with_errors: &Visible,
) -> Result<Vec<IntegrationHealth>, ApiError> {
    let filter = IntegrationFilter { visible: visible.filter(), ..IntegrationFilter::default() };
    let request = PageRequest { start: Start::Page(std::num::NonZeroU32::MIN), size: MAX_INTEGRATIONS };
    let summaries = list_integrations(db, &filter, request).await?.items;
    let day = cache.day.get(DAY_LASTS, load_parts(db, first_part(), PART)).await?;
    let now = cache.now.get(NOW_LASTS, load_now(db)).await?;
    let mut health = Vec::with_capacity(summaries.len());
    for summary in summaries {
        let id = summary.id;
        let integration = IntegrationView::from_summary(summary)?;
        health.push(one(integration, id, &day, &now, with_errors.includes(id)));
    }
    Ok(health)
}

/// The beginning of the first part of the last day.
fn first_part() -> Timestamp {
    let quarter = TimestampRound::new().smallest(Unit::Minute).increment(15).mode(RoundMode::Floor);
    let now = Timestamp::now();
    let last = now.round(quarter).unwrap_or(now);
    last - SignedDuration::from_mins(15 * (PARTS as i64 - 1))
}

async fn load_now(db: &Database) -> grapnel_store::Result<Now> {
    let minute = TimestampRound::new().smallest(Unit::Minute).mode(RoundMode::Floor);
    let since = Timestamp::now() - RECENT;
    let since = since.round(minute).unwrap_or(since);
    let recent = load_recent(db, since).await?;
    let backlogs = load_backlogs(db).await?;
    let mut failures = HashMap::new();
    let failing = recent.iter().filter(|traffic| {
        let failed = traffic.counts.failed + traffic.counts.retrying;
        failed > 0 && failed >= traffic.counts.delivered
    });
    for traffic in failing.take(MAX_FAILURES) {
        let (id, destination) = (traffic.integration_id, &traffic.destination);
        if let Some(failure) = load_last_failure(db, id, destination, since).await? {
            failures.insert((id, destination.clone()), failure);
        }
    }
    Ok(Now { recent, backlogs, failures })
}

fn one(
    integration: IntegrationView,
    id: IntegrationId,
    day: &HashMap<IntegrationId, Vec<(usize, TrafficPart)>>,
    now: &Now,
    with_errors: bool,
) -> IntegrationHealth {
    let mut health = IntegrationHealth {
        integration,
        day: TrafficPart::default(),
        accepted: vec![0; PARTS],
        failed: vec![0; PARTS],
        recent: TrafficPart::default(),
        destinations: Vec::new(),
    };
    for (number, part) in day.get(&id).into_iter().flatten() {
        add(&mut health.day, part);
        if let Some(accepted) = health.accepted.get_mut(*number) {
            *accepted += part.accepted;
            health.failed[*number] += part.failed;
        }
    }
    for traffic in now.recent.iter().filter(|traffic| traffic.integration_id == id) {
        add(&mut health.recent, &traffic.counts);
        if !traffic.destination.is_empty() {
            destination(&mut health.destinations, &traffic.destination).recent = traffic.counts;
        }
    }
    for backlog in now.backlogs.iter().filter(|backlog| backlog.integration_id == id) {
        let waiting = destination(&mut health.destinations, &backlog.destination);
        waiting.backlog = backlog.count;
        waiting.oldest = backlog.oldest.map(Rfc3339Millis);
    }
    if with_errors {
        for waiting in &mut health.destinations {
            let failure = now.failures.get(&(id, waiting.name.clone()));
            waiting.last_failure = failure.map(|failure| LastFailureView {
                http_status: failure.http_status,
                error: failure.error.clone().unwrap_or_default(),
                at: failure.at.into(),
            });
        }
    }
    health.destinations.sort_by(|one, other| one.name.cmp(&other.name));
    health
}

fn destination<'a>(known: &'a mut Vec<DestinationHealth>, name: &str) -> &'a mut DestinationHealth {
    let at = known.iter().position(|destination| destination.name == name).unwrap_or_else(|| {
        known.push(DestinationHealth {
            name: name.to_owned(),
            recent: TrafficPart::default(),
            backlog: 0,
            oldest: None,
            last_failure: None,
        });
        known.len() - 1
    });
    &mut known[at]
}

fn add(sum: &mut TrafficPart, part: &TrafficPart) {
    sum.accepted += part.accepted;
    sum.duplicate += part.duplicate;
    sum.refused += part.refused;
    sum.delivered += part.delivered;
    sum.failed += part.failed;
    sum.retrying += part.retrying;
}
