//! What a replay would do: which integrations and destinations it is about, and how many deliveries it selects.

use std::time::{Duration, Instant};

use grapnel_core::ids::{EventId, IntegrationId};
use grapnel_core::integration::RowState;
use grapnel_core::replay::{ReplayOrder, ReplaySpec};
use grapnel_crds::{Destination, IntegrationSpec};
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use uuid::Uuid;

use super::sift::{self, Sieve};
use super::walk::Walk;
use crate::columns::Columns;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::views::IntegrationRef;

/// Up to so many deliveries are counted.
pub const MAX_COUNTED: u64 = 100_000;

/// The deliveries that a plan names.
const SAMPLES: usize = 10;

/// The part by which what matches may differ from what was expected.
const TOLERATED: f64 = 0.1;

/// The destinations that one replay may have.
const MAX_DESTINATIONS: usize = 500;

/// The time that counting may take: with an index, and where events are read to be tested.
const COUNTING_TIME: Duration = Duration::from_secs(6);
const TESTING_TIME: Duration = Duration::from_secs(2);

/// The rows of a slice. One that takes too long is read again in a shorter form.
const MOST_ROWS: i64 = 20_000;
const FEWEST_ROWS: i64 = 100;
const SLICE_TIME: Duration = Duration::from_millis(1_500);

/// What a replay is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayTarget {
    Integration(IntegrationRef),
    /// All live integrations of a namespace.
    Namespace(String),
}

/// What a replay would do.
#[derive(Debug, Clone)]
pub struct ReplayPlan {
    pub namespace: String,
    pub is_of_namespace: bool,
    pub integration_ids: Vec<IntegrationId>,
    pub spec: ReplaySpec,
    pub destinations: Vec<PlannedDestination>,
    /// Whether all were counted.
    pub is_exact: bool,
    /// In the order of the replay.
    pub samples: Vec<ReplaySample>,
}

/// A destination of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedDestination {
    pub integration_id: IntegrationId,
    pub name: String,
    /// The deliveries to it that are selected, as far as they were counted.
    pub matched: u64,
    /// The oldest and the newest event of these; `None` where that is not known.
    pub oldest: Option<EventId>,
    pub newest: Option<EventId>,
}

/// A delivery that a replay would feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplaySample {
    pub event_id: EventId,
    pub integration_id: IntegrationId,
    pub destination: String,
}

/// The outcome of planning.
#[derive(Debug, Clone)]
pub enum PlanOutcome {
    Planned(Box<ReplayPlan>),
    UnknownIntegration,
    UnknownDestination(String),
    /// The integration is disabled, so nothing is delivered.
    Disabled,
    /// It would have so many destinations, which are too many.
    TooManyDestinations(usize),
}

impl ReplayPlan {
    pub fn matched(&self) -> u64 {
        self.destinations.iter().map(|destination| destination.matched).sum()
    }

    /// Returns whether more match than it may feed.
    pub fn is_over_limit(&self) -> bool {
        self.matched() > self.spec.max_deliveries
    }

    /// Returns whether as many match as were expected, as far as they were counted.
    pub fn is_as_expected(&self, expected: u64) -> bool {
        // Beyond what is counted, any number may be right.
        let (known, wanted) = (self.matched().min(MAX_COUNTED) as f64, expected.min(MAX_COUNTED) as f64);
        let is_short = known < wanted * (1.0 - TOLERATED);
        let is_long = known > wanted * (1.0 + TOLERATED);
        !(is_long || (is_short && self.is_exact))
    }
}

/// Finds out what a replay would do.
pub async fn plan(db: &Database, target: &ReplayTarget, spec: ReplaySpec) -> Result<PlanOutcome> {
    let integrations = read_targets(db, target).await?;
    let Some(namespace) = integrations.first().map(|one| one.namespace.clone()) else {
        return Ok(PlanOutcome::UnknownIntegration);
    };
    let integrations: Vec<_> = integrations.into_iter().filter(|one| !one.is_disabled).collect();
    if integrations.is_empty() {
        return Ok(PlanOutcome::Disabled);
    }
    let has = |name: &String| {
        integrations.iter().any(|one| one.destinations.iter().any(|destination| destination.name == *name))
    };
    if let Some(unknown) = spec.destinations.iter().flatten().find(|name| !has(name)) {
        return Ok(PlanOutcome::UnknownDestination(unknown.clone()));
    }
    let is_wanted = |destination: &&Destination| {
        spec.destinations.as_ref().is_none_or(|names| names.contains(&destination.name))
    };
    let wanted: Vec<(IntegrationId, &Destination)> = integrations
        .iter()
        .flat_map(|one| one.destinations.iter().filter(is_wanted).map(|destination| (one.id, destination)))
        .collect();
    if wanted.len() > MAX_DESTINATIONS {
        return Ok(PlanOutcome::TooManyDestinations(wanted.len()));
    }
    let mut count = Count::begin(db, &spec);
    for (position, (id, destination)) in wanted.iter().enumerate() {
        count.destination(*id, destination, wanted.len() - position).await?;
    }
    let Count { is_exact, destinations, samples, .. } = count;
    Ok(PlanOutcome::Planned(Box::new(ReplayPlan {
        namespace,
        is_of_namespace: matches!(target, ReplayTarget::Namespace(_)),
        integration_ids: integrations.iter().map(|one| one.id).collect(),
        destinations,
        is_exact,
        samples,
        spec,
    })))
}

/// An integration that a replay is about.
pub(super) struct TargetIntegration {
    pub(super) id: IntegrationId,
    pub(super) namespace: String,
    pub(super) is_disabled: bool,
    pub(super) destinations: Vec<Destination>,
}

async fn read_targets(db: &Database, target: &ReplayTarget) -> Result<Vec<TargetIntegration>> {
    let (id, namespace, name) = match target {
        ReplayTarget::Integration(IntegrationRef::Id(id)) => (Some(*id), None, None),
        ReplayTarget::Integration(IntegrationRef::Name { namespace, name }) => {
            (None, Some(namespace), Some(name))
        }
        ReplayTarget::Namespace(namespace) => (None, Some(namespace), None),
    };
    db.bounded(async {
        let rows = sqlx::query(
            "/* replay_jobs::plan::read_targets */
            SELECT i.id, i.namespace, i.state, i.spec FROM integrations i
            WHERE i.deleted_at IS NULL
                AND ($1::uuid IS NULL OR i.id = $1)
                AND ($2::text IS NULL OR i.namespace = $2)
                AND ($3::text IS NULL OR i.name = $3)
            ORDER BY i.id",
        )
        .bind(id)
        .bind(namespace)
        .bind(name)
        .fetch_all(db.pool())
        .await?;
        rows.iter().map(target_integration).collect()
    })
    .await
}

pub(super) fn target_integration(row: &PgRow) -> Result<TargetIntegration> {
    let id = row.id("id", IntegrationId::new)?;
    let corrupt = |_| Error::Corrupt { table: "integrations", column: "spec", id: id.uuid() };
    let Json(spec): Json<IntegrationSpec> = row.try_get("spec").map_err(corrupt)?;
    Ok(TargetIntegration {
        id,
        namespace: row.try_get("namespace")?,
        is_disabled: row.try_get::<&str, _>("state")? == RowState::Disabled.as_str(),
        destinations: spec.destinations,
    })
}

/// Counts what is selected, destination by destination.
struct Count<'a> {
    db: &'a Database,
    spec: &'a ReplaySpec,
    deadline: Instant,
    counted: u64,
    is_exact: bool,
    destinations: Vec<PlannedDestination>,
    samples: Vec<ReplaySample>,
}

impl<'a> Count<'a> {
    fn begin(db: &'a Database, spec: &'a ReplaySpec) -> Self {
        let is_tested = spec.filter.is_some() || spec.subject.is_some() || spec.error_contains.is_some();
        let time = if is_tested { TESTING_TIME } else { COUNTING_TIME };
        Self {
            db,
            spec,
            deadline: Instant::now() + time,
            counted: 0,
            is_exact: true,
            destinations: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// Counts one destination. Those that are left, this one included, share the time.
    async fn destination(&mut self, id: IntegrationId, destination: &Destination, left: usize) -> Result<()> {
        let time = self.deadline.saturating_duration_since(Instant::now());
        let deadline = Instant::now() + time / u32::try_from(left).unwrap_or(u32::MAX);
        let walk = Walk::new(self.spec, id, &destination.name);
        let sieve = Sieve::new(self.spec, Some(destination));
        let (mut after, mut rows) = (None, MOST_ROWS);
        let mut counted = Counted::default();
        loop {
            if self.counted >= MAX_COUNTED || Instant::now() >= deadline {
                self.is_exact = false;
                break;
            }
            let slice = match walk.read(self.db, after, rows, SLICE_TIME).await {
                Ok(slice) => slice,
                Err(Error::Deadline) if rows > FEWEST_ROWS => {
                    rows = (rows / 10).max(FEWEST_ROWS);
                    continue;
                }
                Err(Error::Deadline) => {
                    self.is_exact = false;
                    break;
                }
                Err(error) => return Err(error),
            };
            let matching = slice.met.iter().filter(|met| !met.is_unfinished).map(|met| met.event_id);
            let matching: Vec<EventId> = matching.collect();
            match &sieve {
                None => self.add(&mut counted, id, destination, &matching),
                Some(sieve) => {
                    for batch in matching.chunks(sift::BATCH) {
                        if Instant::now() >= deadline {
                            break;
                        }
                        let passing = sieve.pass(self.db, batch.to_vec()).await?;
                        self.add(&mut counted, id, destination, &passing);
                    }
                }
            }
            after = slice.through.or(after);
            if slice.is_last {
                counted.is_complete = Instant::now() < deadline || sieve.is_none();
                break;
            }
        }
        self.is_exact &= counted.is_complete;
        let (first, last) = (counted.first, counted.last.filter(|_| counted.is_complete));
        let (oldest, newest) = match self.spec.order {
            ReplayOrder::OldestFirst => (first, last),
            ReplayOrder::NewestFirst => (last, first),
        };
        let name = destination.name.clone();
        let matched = counted.matched;
        self.destinations.push(PlannedDestination { integration_id: id, name, matched, oldest, newest });
        Ok(())
    }

    fn add(
        &mut self,
        counted: &mut Counted,
        id: IntegrationId,
        destination: &Destination,
        events: &[EventId],
    ) {
        counted.matched += events.len() as u64;
        self.counted += events.len() as u64;
        counted.first = counted.first.or(events.first().copied());
        counted.last = events.last().copied().or(counted.last);
        for event_id in events.iter().take(SAMPLES.saturating_sub(self.samples.len())) {
            let destination = destination.name.clone();
            self.samples.push(ReplaySample { event_id: *event_id, integration_id: id, destination });
        }
    }
}

/// What was counted of a destination.
#[derive(Default)]
struct Counted {
    matched: u64,
    /// In the order of the walk.
    first: Option<EventId>,
    last: Option<EventId>,
    is_complete: bool,
}

/// Returns the id of an event as the rows have it.
pub(super) fn bare(id: Option<EventId>) -> Option<Uuid> {
    id.map(EventId::uuid)
}
