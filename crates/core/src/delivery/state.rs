//! The states of a delivery and the transitions between them.
//!
//! | state | event | next state | statement |
//! |---|---|---|---|
//! | – | its event is stored | pending | `events::store` |
//! | – | its event is stored, and its filter leaves the event out | filtered | `events::store` |
//! | pending, retrying | its time has come, or its message was lost | as before, queued | `deliveries::take_due`, `deliveries::take_lost` |
//! | pending, retrying | its message could not be published | as before, due again or held | `deliveries::give_back` |
//! | pending, retrying | it was held, and its destination can have it | as before, queued | `deliveries::release` |
//! | pending, retrying, processing with an expired lease | a worker claims it | processing | `deliveries::claim` |
//! | processing | the receiver accepted it | succeeded | `deliveries::record` |
//! | processing | the attempt failed, and another is allowed | retrying | `deliveries::record` |
//! | processing | the attempt failed, and it was the last | failed | `deliveries::record` |
//! | processing | it could not be sent because of a fault of ours | retrying; failed after 24 hours of such faults | `deliveries::record` |
//! | pending, processing, retrying | its destination or integration is removed | failed | `deliveries::end_removed` |
//! | all but processing under a running lease | an operator replays it | pending | `replays::request_replay` |
//! | processing under a running lease | an operator replays it | processing | `replays::request_replay` |
//! | filtered | an operator replays it by the name of its destination | pending | `replays::request_replay` |
//! | succeeded, failed, filtered | a replay of many feeds it | pending | `replay_jobs::feed` |
//! | – | a replay of many feeds an event that has no delivery to the destination | pending | `replay_jobs::feed` |
//! | pending, retrying | its replay is cancelled while it waits for its time | failed | `replay_jobs::take_turn` |
//!
//! `succeeded`, `failed` and `filtered` are final: only a replay leaves them. A result is written only under the newest claim and while
//! its lease runs; the statements check that, and the constraints of the table enforce these rules.
//!
//! `filtered` is stored as `succeeded` without an attempt, which nothing else is: so an event with such a delivery has the status of its
//! others, and a version that knows no filters reads it as what it is to them, an end without a failure.

use std::time::Duration;

use super::outcome::AttemptOutcome;
use super::retry::{self, CompiledRetryPolicy, RetryDecision};

/// A delivery that could not be sent for this long, because of faults of ours, fails: its event is too old to come unannounced.
const LONGEST_UNSENT: Duration = Duration::from_secs(24 * 60 * 60);

/// The state of a delivery. The order is that of progress, as in the database type `delivery_status`: the
/// status of an event is the most advanced one of its deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeliveryState {
    /// Waiting for its first attempt, or for the first attempt of a replay.
    Pending,
    /// A worker has claimed it.
    Processing,
    /// Waiting for another attempt.
    Retrying,
    /// The receiver accepted it.
    Succeeded,
    /// Given up.
    Failed,
}

impl DeliveryState {
    /// All states, in order.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Processing, Self::Retrying, Self::Succeeded, Self::Failed];

    /// Returns the stored form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// Reads the stored form.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Returns whether only a replay leaves the state.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// The cause of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// The event was received.
    Webhook,
    /// An earlier attempt failed.
    Retry,
    /// An operator requested it.
    Replay,
}

impl Trigger {
    /// All triggers.
    pub const ALL: [Self; 3] = [Self::Webhook, Self::Retry, Self::Replay];

    /// Returns the stored form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Retry => "retry",
            Self::Replay => "replay",
        }
    }

    /// Reads the stored form.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|trigger| trigger.as_str() == text)
    }
}

/// The state that an attempt leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextState {
    /// The receiver accepted the delivery.
    Succeeded,
    /// The attempts of the budget are used up, or the receiver is gone.
    Failed,
    /// The delivery is queued again after this wait. The database adds it to its own time, the only clock that all processes share.
    RetryAfter(Duration),
}

impl NextState {
    /// Returns the state without its wait.
    pub const fn state(self) -> DeliveryState {
        match self {
            Self::Succeeded => DeliveryState::Succeeded,
            Self::Failed => DeliveryState::Failed,
            Self::RetryAfter(_) => DeliveryState::Retrying,
        }
    }

    /// Returns how long the delivery waits until it is due again, if it will be.
    pub const fn wait(self) -> Option<Duration> {
        match self {
            Self::RetryAfter(wait) => Some(wait),
            Self::Succeeded | Self::Failed => None,
        }
    }
}

/// The result of evaluating an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEvaluation {
    /// The next state of the delivery.
    pub next: NextState,
    /// Its next state if a replay renewed its budget while the attempt was in flight. The replay counts that attempt as its
    /// own, so a final failure becomes the first failure of the new budget. Only the statement that writes the result can
    /// see which of the two applies.
    pub next_if_replayed: NextState,
    /// For operators; `None` on success.
    pub error_message: Option<String>,
    /// Whether it counts as an attempt: a failure of ours before the request was sent is neither numbered nor kept.
    pub counts: bool,
}

/// Evaluates an attempt. `attempts_in_budget` counts the attempts of this budget, including this one; `unsent_for` is the time since
/// the first of the failures of ours, if the last try was one too; `jitter` is uniform in `[0, 1)`.
pub fn evaluate(
    policy: &CompiledRetryPolicy,
    attempts_in_budget: u32,
    unsent_for: Option<Duration>,
    outcome: &AttemptOutcome,
    jitter: f64,
) -> AttemptEvaluation {
    let error = || outcome.error_message().map(|message| message.into_owned());
    let (next, error_message, counts) = match retry::decide(policy, attempts_in_budget, outcome, jitter) {
        RetryDecision::Succeeded => (NextState::Succeeded, None, true),
        RetryDecision::RetryAfter(wait) => (NextState::RetryAfter(wait), error(), true),
        RetryDecision::GaveUp { reason } => (NextState::Failed, Some(reason), true),
        RetryDecision::DestinationGone => (NextState::Failed, error(), true),
        RetryDecision::NotAnAttempt { .. } if unsent_for.is_some_and(|unsent| unsent >= LONGEST_UNSENT) => {
            let last = outcome.error_message().unwrap_or_default();
            (
                NextState::Failed,
                Some(format!("could not be sent for 24 hours; the last reason: {last}")),
                false,
            )
        }
        RetryDecision::NotAnAttempt { wait } => (NextState::RetryAfter(wait), error(), false),
    };
    let next_if_replayed = match next {
        NextState::Failed => match retry::decide(policy, 1, outcome, jitter) {
            RetryDecision::RetryAfter(wait) | RetryDecision::NotAnAttempt { wait } => {
                NextState::RetryAfter(wait)
            }
            _ => NextState::RetryAfter(Duration::ZERO),
        },
        NextState::Succeeded | NextState::RetryAfter(_) => next,
    };
    AttemptEvaluation { next, next_if_replayed, error_message, counts }
}

#[cfg(test)]
mod tests;
