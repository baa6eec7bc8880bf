//! Evaluates expressions on threads of their own, so that none can hold up the ingress.
//!
//! An evaluation cannot be interrupted. So whoever waits for one gives up after 50 ms, and its thread is replaced by another one, until
//! it ends; it does end, since loops, values and patterns are bounded. At most 8 threads are replaced at a time: when that many are
//! stuck, the pool goes on with what it has left. An expression that was given up three times in a row is switched off until its
//! Integration has another generation: once could be the fault of a busy machine. The threads start with the first event that needs them.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use grapnel_core::filter::{DestinationSet, EvaluationError, FilterInput};
use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::CompiledIntegration;
use grapnel_platform::fair_shares::FairShares;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use evaluation::{Evaluation, Progress};
use strikes::Strikes;
use threads::Threads;

mod evaluation;
mod strikes;
mod threads;

/// The time for all expressions of one event.
const LONGEST_EVALUATION: Duration = Duration::from_millis(50);

/// How long an event waits for a thread.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// The events that may wait or be evaluated. One Integration gets half of them at most.
const CAPACITY: usize = 256;

/// The threads that can be replaced at a time while their evaluation goes on.
const MAX_STUCK: usize = 8;

/// The result of each expression, by the position of its destination.
pub(super) type FilterResults = Vec<(usize, Result<bool, EvaluationError>)>;

/// The pool. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FilterPool(Arc<Inner>);

struct Inner {
    threads: OnceLock<Threads>,
    places: FairShares<IntegrationId>,
    /// The evaluations that were given up and go on.
    stuck: AtomicUsize,
    strikes: Strikes,
}

impl Default for FilterPool {
    fn default() -> Self {
        Self(Arc::new(Inner {
            threads: OnceLock::new(),
            places: FairShares::new(CAPACITY, 2),
            stuck: AtomicUsize::new(0),
            strikes: Strikes::default(),
        }))
    }
}

impl fmt::Debug for FilterPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterPool").field("stuck", &self.0.stuck).finish_non_exhaustive()
    }
}

impl FilterPool {
    /// Evaluates the expressions of an Integration for an event, but for those of the excluded destinations.
    pub(super) async fn evaluate(
        &self,
        integration: &Arc<CompiledIntegration>,
        excluded: DestinationSet,
        input: FilterInput,
    ) -> FilterResults {
        let Some(filters) = &integration.filters else { return Vec::new() };
        let off = self.0.strikes.switched_off(integration);
        let (known, missing) = self.evaluate_on_thread(integration, excluded.union(off), input).await;
        let result = |position| {
            if off.contains(position) {
                return Err(EvaluationError::SwitchedOff);
            }
            let known = known.iter().find(|(known, _)| *known == position);
            known.map_or_else(|| Err(missing.clone()), |(_, result)| result.clone())
        };
        filters.expressions(excluded).map(|(position, _)| (position, result(position))).collect()
    }

    /// Returns the results that there are, and why there are not more.
    async fn evaluate_on_thread(
        &self,
        integration: &Arc<CompiledIntegration>,
        excluded: DestinationSet,
        input: FilterInput,
    ) -> (FilterResults, EvaluationError) {
        let none = (Vec::new(), EvaluationError::Busy);
        let Some(place) = self.0.places.take(Some(integration.row.id), 1) else { return none };
        let progress = Arc::new(Progress::default());
        let (reply, mut answer) = oneshot::channel();
        let evaluation = Evaluation {
            integration: Arc::clone(integration),
            excluded,
            input,
            progress: Arc::clone(&progress),
            reply,
            _place: place,
        };
        if !self.threads().offer(evaluation) {
            return none;
        }
        let queued = Instant::now();
        loop {
            let left = match progress.running_for() {
                Some(time) => LONGEST_EVALUATION.saturating_sub(time),
                None => LONGEST_EVALUATION,
            };
            if let Ok(results) = timeout(left, &mut answer).await {
                let results = results.unwrap_or_default();
                self.0.strikes.clear(integration, &results);
                return (results, EvaluationError::Busy);
            }
            match progress.running_for() {
                Some(time) if time >= LONGEST_EVALUATION => {
                    return self.give_up(integration, &progress, answer).await;
                }
                None if queued.elapsed() >= LONGEST_WAIT && progress.cancel() => return none,
                _ => {}
            }
        }
    }

    /// Gives up an evaluation that takes too long, and replaces its thread.
    async fn give_up(
        &self,
        integration: &CompiledIntegration,
        progress: &Progress,
        answer: oneshot::Receiver<FilterResults>,
    ) -> (FilterResults, EvaluationError) {
        let is_replaced = self.0.stuck.fetch_add(1, Ordering::AcqRel) < MAX_STUCK;
        let Some(given_up) = progress.give_up(is_replaced) else {
            // It has ended meanwhile.
            self.0.stuck.fetch_sub(1, Ordering::AcqRel);
            return (answer.await.unwrap_or_default(), EvaluationError::NotReached);
        };
        metrics::gauge!("grapnel_filter_threads_stuck").set(self.0.stuck.load(Ordering::Relaxed) as f64);
        if is_replaced {
            self.threads().start_one(Arc::downgrade(&self.0));
        }
        let is_off = self.0.strikes.add(integration, given_up.position);
        let destination = integration.destination_names.get(given_up.position).map(|name| &**name);
        tracing::warn!(integration.id = %integration.row.id, destination, is_off, "a filter took too long");
        let mut results = given_up.results;
        results.push((given_up.position, Err(EvaluationError::TimedOut)));
        (results, EvaluationError::NotReached)
    }

    fn threads(&self) -> &Threads {
        self.0.threads.get_or_init(|| Threads::start(&self.0))
    }
}

impl Inner {
    /// Notes that an evaluation which was given up has ended after all.
    fn ended(&self) {
        let stuck = self.stuck.fetch_sub(1, Ordering::AcqRel) - 1;
        metrics::gauge!("grapnel_filter_threads_stuck").set(stuck as f64);
    }
}
