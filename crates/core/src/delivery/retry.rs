//! Decides what an attempt's outcome means for its delivery: done, again at some time, or given up. Pure: values, the
//! time and a random number go in.
//!
//! What always holds: a delivery is given up exactly at its policy's last attempt; a wait is never longer than the
//! policy's longest, or than its bound for `Retry-After`; what was not an attempt spends nothing.
//!
//! Waits have full jitter, so that deliveries which failed together do not return together: a random share of the
//! step that the backoff gives. The share is at least a tenth, because a wait of almost nothing would spend an attempt
//! on a receiver that has just failed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::delivery::outcome::Outcome;

/// The least share of a step that is waited.
const LEAST_SHARE: f64 = 0.1;
/// No wait is longer, whatever a policy says; keeps the arithmetic of times within its range.
const LONGEST_WAIT: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// How long a delivery rests that we failed to send. Not the policy's: it describes the receiver, and this may need
/// an operator.
const REST_AFTER_OWN_FAULT: Duration = Duration::from_secs(60);

/// How a destination wants to be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts of one budget, the first one included. A replay starts a new budget.
    pub max_attempts: u32,
    /// How the steps grow.
    pub backoff: Backoff,
    /// The step after the first attempt.
    pub initial_delay: Duration,
    /// The longest step.
    pub max_delay: Duration,
    /// The longest wait that a receiver may ask for; zero ignores what it asks.
    pub retry_after_max: Duration,
}

/// How the step before the next attempt grows with the attempts made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backoff {
    /// Doubles.
    Exponential,
    /// Grows by the initial delay.
    Linear,
}

/// What is to be done with a delivery after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is done.
    Succeeded,
    /// It is due again at this time.
    RetryAt(Timestamp),
    /// It failed, and its attempts are spent.
    GaveUp {
        /// For an operator: how many attempts, and what the last one met.
        reason: String,
    },
    /// It failed, and its destination asks to be sent nothing any more.
    DestinationGone,
    /// Nothing was sent, for a reason of ours. The attempt is not to be counted; the delivery is due again then.
    NotAnAttempt {
        /// When to try again.
        again_at: Timestamp,
    },
}

impl RetryPolicy {
    /// The longest wait after the given number of attempts, before jitter and without `Retry-After`. Never shrinks as
    /// attempts grow.
    pub fn step(&self, attempts: u32) -> Duration {
        let made = attempts.max(1);
        let factor = match self.backoff {
            Backoff::Exponential => 2_u32.checked_pow(made - 1),
            Backoff::Linear => Some(made),
        };
        let step = factor.and_then(|factor| self.initial_delay.checked_mul(factor)).unwrap_or(Duration::MAX);
        step.min(self.max_delay).min(LONGEST_WAIT)
    }
}

/// Decides after an attempt. `attempts_in_budget` counts the attempts of this budget with this one; `jitter` is uniform
/// in `[0, 1)`.
pub fn decide(
    policy: &RetryPolicy,
    attempts_in_budget: u32,
    outcome: &Outcome,
    now: Timestamp,
    jitter: f64,
) -> Decision {
    match outcome {
        Outcome::Succeeded { .. } => Decision::Succeeded,
        Outcome::Gone { .. } => Decision::DestinationGone,
        Outcome::NotSent { .. } => Decision::NotAnAttempt { again_at: after(now, REST_AFTER_OWN_FAULT) },
        Outcome::Refused { .. }
        | Outcome::Unreachable { .. }
        | Outcome::TimedOut { .. }
        | Outcome::Denied { .. } => {
            if attempts_in_budget >= policy.max_attempts {
                let last = outcome.error_message().unwrap_or_default();
                let reason = format!("gave up after {attempts_in_budget} attempts; the last one: {last}");
                return Decision::GaveUp { reason };
            }
            let drawn = with_jitter(policy.step(attempts_in_budget), jitter);
            Decision::RetryAt(after(now, wait(policy, drawn, asked_for(outcome))))
        }
    }
}

/// What `Retry-After` asks for, with the statuses that mean "later". With others it is not about this event.
fn asked_for(outcome: &Outcome) -> Option<Duration> {
    match outcome {
        Outcome::Refused { status: 429 | 503, retry_after, .. } => *retry_after,
        _ => None,
    }
}

/// `Retry-After` is the least wait. What was drawn comes on top as far as the bound allows, because the deliveries
/// that were told the same time should not all return at it.
fn wait(policy: &RetryPolicy, drawn: Duration, asked_for: Option<Duration>) -> Duration {
    let Some(asked_for) = asked_for else { return drawn };
    let bound = policy.retry_after_max.min(LONGEST_WAIT);
    drawn.max(asked_for.saturating_add(drawn).min(bound))
}

fn with_jitter(step: Duration, jitter: f64) -> Duration {
    let share = LEAST_SHARE + (1.0 - LEAST_SHARE) * jitter;
    // Whatever is no share at all waits the whole step.
    Duration::try_from_secs_f64(step.as_secs_f64() * share).unwrap_or(step).min(step)
}

fn after(now: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| now.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
