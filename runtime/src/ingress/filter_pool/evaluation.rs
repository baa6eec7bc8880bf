//! One event on its way through the pool.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grapnel_core::filter::{DestinationSet, EvaluationError, FilterContext, FilterInput};
use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::CompiledIntegration;
use grapnel_platform::fair_shares::Share;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::FilterResults;

/// An event for the expressions of its Integration.
pub(super) struct Evaluation {
    pub(super) integration: Arc<CompiledIntegration>,
    /// The destinations whose expressions are not evaluated.
    pub(super) excluded: DestinationSet,
    pub(super) input: FilterInput,
    pub(super) progress: Arc<Progress>,
    pub(super) reply: oneshot::Sender<FilterResults>,
    pub(super) _place: Share<IntegrationId>,
}

/// How far an evaluation is: shared by its thread and by whoever waits for it.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Waiting,
    /// Nobody waits for it any more, and it has not begun.
    Cancelled,
    Running {
        since: Instant,
        /// The destination whose expression is evaluated.
        position: usize,
        /// Those of the destinations before it.
        results: FilterResults,
    },
    /// Nobody waits for it any more, and it goes on.
    GivenUp {
        is_replaced: bool,
    },
    Ended,
}

/// What is known of an evaluation that was given up.
pub(super) struct GivenUp {
    pub(super) position: usize,
    pub(super) results: FilterResults,
}

/// What a thread does after an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterEvaluation {
    /// Somebody waited for the results.
    GoOn,
    /// It was given up.
    GoOnLate,
    /// It was given up, and another thread has taken the place of this one.
    Stop,
}

impl Progress {
    /// Returns for how long it has been running; `None` if it has not begun.
    pub(super) fn running_for(&self) -> Option<Duration> {
        match &*self.state() {
            State::Running { since, .. } => Some(since.elapsed()),
            _ => None,
        }
    }

    /// Keeps it from beginning; returns whether it has not begun.
    pub(super) fn cancel(&self) -> bool {
        let mut state = self.state();
        let is_waiting = matches!(*state, State::Waiting);
        if is_waiting {
            *state = State::Cancelled;
        }
        is_waiting
    }

    /// Stops waiting for it; `None` if it has ended.
    pub(super) fn give_up(&self, is_replaced: bool) -> Option<GivenUp> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::GivenUp { is_replaced }) {
            State::Running { position, results, .. } => Some(GivenUp { position, results }),
            other => {
                *state = other;
                None
            }
        }
    }

    fn begin(&self) -> bool {
        let mut state = self.state();
        let is_waiting = matches!(*state, State::Waiting);
        if is_waiting {
            *state = State::Running { since: Instant::now(), position: 0, results: Vec::new() };
        }
        is_waiting
    }

    /// Notes the destination whose turn it is; returns whether anybody still waits.
    fn reach(&self, next: usize) -> bool {
        match &mut *self.state() {
            State::Running { position, .. } => {
                *position = next;
                true
            }
            _ => false,
        }
    }

    fn note(&self, position: usize, result: Result<bool, EvaluationError>) {
        if let State::Running { results, .. } = &mut *self.state() {
            results.push((position, result));
        }
    }

    /// Returns the results, if anybody waits for them, and what the thread does next.
    fn end(&self) -> (FilterResults, AfterEvaluation) {
        match std::mem::replace(&mut *self.state(), State::Ended) {
            State::Running { results, .. } => (results, AfterEvaluation::GoOn),
            State::GivenUp { is_replaced: true } => (Vec::new(), AfterEvaluation::Stop),
            _ => (Vec::new(), AfterEvaluation::GoOnLate),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while this is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Evaluation {
    /// Evaluates the expressions one after the other, as long as anybody waits.
    pub(super) fn run(self) -> AfterEvaluation {
        if !self.progress.begin() {
            return AfterEvaluation::GoOn;
        }
        let expressions =
            || self.integration.filters.iter().flat_map(|filters| filters.expressions(self.excluded));
        let first = expressions().next().map_or(0, |(position, _)| position);
        if self.progress.reach(first) {
            let context = FilterContext::new(&self.input, expressions().map(|(_, expression)| expression));
            for (position, expression) in expressions() {
                if !self.progress.reach(position) {
                    break;
                }
                self.progress.note(position, context.evaluate(expression));
            }
        }
        let (results, after) = self.progress.end();
        // Whoever waited may be gone.
        let _gone = self.reply.send(results);
        after
    }
}
