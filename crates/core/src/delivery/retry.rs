//! Decides what follows from an attempt's outcome: the delivery is done, retried after some wait, or given up. Pure: values and
//! a random number go in.
//!
//! Invariants: a delivery is given up exactly at its policy's last attempt or after a final status; a wait is never longer than the policy's
//! longest delay or its bound for `Retry-After`; a failure that is not an attempt uses up nothing.
//!
//! Waits have full jitter, so that deliveries that failed together are not retried together: a wait is a random share of
//! the step that the backoff gives. The share is at least a tenth, because a very short wait would waste an attempt on a
//! receiver that has just failed.

use std::time::Duration;

use grapnel_crds::Backoff;

use crate::delivery::outcome::AttemptOutcome;

/// The smallest share of a step.
const LEAST_SHARE: f64 = 0.1;
/// The longest wait under any policy; keeps the times in the database within their range.
const LONGEST_WAIT: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// The wait after a failure of ours. It is not part of the policy: that describes the receiver, and this may need an
/// operator.
const WAIT_AFTER_OWN_FAILURE: Duration = Duration::from_secs(60);

/// The retry policy of a destination, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledRetryPolicy {
    /// Attempts in one budget, including the first. A replay starts a new budget.
    pub max_attempts: u32,
    /// How the steps grow with the attempts made.
    pub backoff: Backoff,
    /// The step after the first attempt.
    pub initial_delay: Duration,
    /// The longest step.
    pub max_delay: Duration,
    /// The longest wait that a receiver may request; zero ignores its requests.
    pub retry_after_max: Duration,
    /// The statuses after which no further attempt is made. 410 is one in any case.
    pub final_statuses: Vec<u16>,
}

/// The decision about a delivery after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryDecision {
    /// It is done.
    Succeeded,
    /// It is due again after this wait.
    RetryAfter(Duration),
    /// It failed, and its attempts are used up or further ones would change nothing.
    GaveUp {
        /// For an operator: the number of attempts and the last failure, or the final status.
        reason: String,
    },
    /// It failed, and its destination asks for no further deliveries.
    DestinationGone,
    /// Nothing was sent because of a failure of ours. The attempt does not count, and the delivery becomes due again.
    NotAnAttempt {
        /// How long to wait before another try.
        wait: Duration,
    },
}

impl CompiledRetryPolicy {
    /// Returns the longest wait after this number of attempts, before jitter and without `Retry-After`. It never decreases
    /// as attempts increase.
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

/// Decides after an attempt. `attempts_in_budget` counts the attempts of this budget, including this one; `jitter` is uniform
/// in `[0, 1)`.
pub fn decide(
    policy: &CompiledRetryPolicy,
    attempts_in_budget: u32,
    outcome: &AttemptOutcome,
    jitter: f64,
) -> RetryDecision {
    match outcome {
        AttemptOutcome::Succeeded { .. } => RetryDecision::Succeeded,
        AttemptOutcome::Gone { .. } => RetryDecision::DestinationGone,
        AttemptOutcome::NotSent { .. } => RetryDecision::NotAnAttempt { wait: WAIT_AFTER_OWN_FAILURE },
        AttemptOutcome::Refused { status, .. } if policy.final_statuses.contains(status) => {
            let reason = format!("the receiver answered {status}, which is final for this destination");
            RetryDecision::GaveUp { reason }
        }
        AttemptOutcome::Refused { .. }
        | AttemptOutcome::Unreachable { .. }
        | AttemptOutcome::TimedOut { .. }
        | AttemptOutcome::Denied { .. } => {
            if attempts_in_budget >= policy.max_attempts {
                let last = outcome.error_message().unwrap_or_default();
                let reason = format!("gave up after {attempts_in_budget} attempts; the last one: {last}");
                return RetryDecision::GaveUp { reason };
            }
            let drawn = with_jitter(policy.step(attempts_in_budget), jitter);
            RetryDecision::RetryAfter(wait(policy, drawn, requested_wait(outcome)))
        }
    }
}

/// Returns the wait that `Retry-After` requests, for the statuses that mean "later". With others it does not concern this
/// event.
fn requested_wait(outcome: &AttemptOutcome) -> Option<Duration> {
    match outcome {
        AttemptOutcome::Refused { status: 429 | 503, retry_after, .. } => *retry_after,
        _ => None,
    }
}

/// `Retry-After` is the shortest wait. The drawn wait is added as far as the bound allows, because deliveries that were
/// given the same time should not all be retried at it.
fn wait(policy: &CompiledRetryPolicy, drawn: Duration, requested: Option<Duration>) -> Duration {
    let Some(requested) = requested else { return drawn };
    let bound = policy.retry_after_max.min(LONGEST_WAIT);
    drawn.max(requested.saturating_add(drawn).min(bound))
}

fn with_jitter(step: Duration, jitter: f64) -> Duration {
    let share = LEAST_SHARE + (1.0 - LEAST_SHARE) * jitter;
    // If jitter is out of range, wait the full step.
    Duration::try_from_secs_f64(step.as_secs_f64() * share).unwrap_or(step).min(step)
}

#[cfg(test)]
mod tests;
