//! The states of a delivery, and what moves it from one to the next.
//!
//! | state | event | next state | statement |
//! |---|---|---|---|
//! | – | its event is stored | pending | `events::store` |
//! | pending, retrying | its time has come, or its message was lost | as before, queued | `deliveries::take_due`, `deliveries::take_overdue` |
//! | pending, retrying | its message could not be published | as before, due again | `deliveries::give_back` |
//! | pending, retrying, processing with an expired lease | a worker claims it | processing | `deliveries::claim` |
//! | processing | the receiver accepted it | succeeded | `deliveries::record` |
//! | processing | the attempt failed, and another is allowed | retrying | `deliveries::record` |
//! | processing | the attempt failed, and it was the last | failed | `deliveries::record` |
//! | pending, processing, retrying | its destination or integration is removed | failed | `deliveries::end` |
//! | all but processing under a running lease | an operator replays it | pending | `replays::request_replay` |
//! | processing under a running lease | an operator replays it | processing | `replays::request_replay` |
//!
//! `succeeded` and `failed` are final: only a replay leaves them. A result is written only under the newest claim and while
//! its lease runs; the statements check that, and the constraints of the table hold what this page says.

use jiff::Timestamp;

use super::outcome::Outcome;
use super::retry::{self, Decision, RetryPolicy};

/// The state of a delivery. The order is that of progress, as the type `delivery_status` of the database has it: the
/// status of an event is the most advanced one of its deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeliveryState {
    /// It waits for its first attempt, or for the first one of a replay.
    Pending,
    /// A worker has claimed it.
    Processing,
    /// It waits for another attempt.
    Retrying,
    /// The receiver accepted it.
    Succeeded,
    /// It is given up.
    Failed,
}

impl DeliveryState {
    /// All states, in order.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Processing, Self::Retrying, Self::Succeeded, Self::Failed];

    /// The stored form.
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

    /// Whether only a replay leaves the state.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// The cause of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// The event came in.
    Webhook,
    /// An attempt before it failed.
    Retry,
    /// An operator asked for it.
    Replay,
}

impl Trigger {
    /// All triggers.
    pub const ALL: [Self; 3] = [Self::Webhook, Self::Retry, Self::Replay];

    /// The stored form.
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
    /// To be queued again at this time.
    RetryAt(Timestamp),
}

impl NextState {
    /// The state without its time.
    pub const fn state(self) -> DeliveryState {
        match self {
            Self::Succeeded => DeliveryState::Succeeded,
            Self::Failed => DeliveryState::Failed,
            Self::RetryAt(_) => DeliveryState::Retrying,
        }
    }

    /// When the delivery is due again, if it is.
    pub const fn due_at(self) -> Option<Timestamp> {
        match self {
            Self::RetryAt(at) => Some(at),
            Self::Succeeded | Self::Failed => None,
        }
    }
}

/// The judgement of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What the delivery becomes.
    pub next: NextState,
    /// What it becomes when a replay renewed its budget while the attempt was in flight. The replay counts that attempt as
    /// its own, so what would have been the end is then the first failure of the new budget. Only the statement that
    /// writes the result can see which of the two holds.
    pub next_if_replayed: NextState,
    /// For operators; `None` on success.
    pub error_message: Option<String>,
    /// Whether it was an attempt at all: a failure of ours before the request left is neither numbered nor kept.
    pub counts: bool,
}

/// Judges an attempt. `attempts_in_budget` counts the attempts of this budget with this one; `jitter` is uniform in `[0, 1)`.
pub fn judge(
    policy: &RetryPolicy,
    attempts_in_budget: u32,
    outcome: &Outcome,
    now: Timestamp,
    jitter: f64,
) -> Judgement {
    let error = || outcome.error_message().map(|message| message.into_owned());
    let (next, error_message, counts) = match retry::decide(policy, attempts_in_budget, outcome, now, jitter)
    {
        Decision::Succeeded => (NextState::Succeeded, None, true),
        Decision::RetryAt(at) => (NextState::RetryAt(at), error(), true),
        Decision::GaveUp { reason } => (NextState::Failed, Some(reason), true),
        Decision::DestinationGone => (NextState::Failed, error(), true),
        Decision::NotAnAttempt { again_at } => (NextState::RetryAt(again_at), error(), false),
    };
    let next_if_replayed = match next {
        NextState::Failed => match retry::decide(policy, 1, outcome, now, jitter) {
            Decision::RetryAt(at) => NextState::RetryAt(at),
            _ => NextState::RetryAt(now),
        },
        NextState::Succeeded | NextState::RetryAt(_) => next,
    };
    Judgement { next, next_if_replayed, error_message, counts }
}

#[cfg(test)]
mod tests;
