//! The number of workers that an Integration should have, and the condition that reports it: pure functions.
//!
//! The state and the mode of the spec come first; the backlog decides only where they leave it to the backlog.

use std::time::Duration;

use grapnel_crds::conditions::{FALSE, TRUE, limit, reason};
use grapnel_crds::{Integration, IntegrationState, ScalingDecision, ScalingMode};

pub mod decide;
pub mod history;

use self::decide::{Backlog, Decision, Policy, decide, hold};
use self::history::History;

/// A reading may fail now and then; a failure is reported only after this long without one.
const REPORT_UNREADABLE_AFTER: Duration = Duration::from_secs(15);

const STOPPED: &str = "the state stops deliveries";
const FIXED: &str = "spec.workers.replicas sets the number of workers";
const FOLLOWS: &str = "the number of workers follows the backlog";

/// The scaler's memory of one Integration between two ticks.
#[derive(Debug, Clone, Default)]
pub struct ScalingState {
    pub history: History,
    /// Absent before the first tick.
    pub decision: Option<Decision>,
    pub last_change: Option<ScalingDecision>,
    /// Since when the backlog could not be read, by the clock of the process.
    pub unreadable_since: Option<Duration>,
    pub condition: Option<ScalingCondition>,
}

/// The condition ScalingActive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalingCondition {
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl ScalingCondition {
    pub fn new(status: &'static str, reason: &'static str, message: &str) -> Self {
        Self { status, reason, message: message.to_owned() }
    }
}

/// The result of one tick for one Integration.
#[derive(Debug)]
pub struct ScalingEvaluation {
    pub decision: Decision,
    /// Whether the condition ScalingActive has to be reported again.
    pub condition_changed: bool,
    /// The state for the next tick.
    pub state: ScalingState,
}

/// The source of the number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplicaSource {
    /// Nothing is to be delivered.
    Stopped,
    /// The user, or an autoscaler.
    Fixed(i32),
    Backlog,
}

/// Decides the number of workers from the state of the last tick.
pub fn evaluate(
    integration: &Integration,
    current: i32,
    backlog: Option<Backlog>,
    platform_max: i32,
    mut state: ScalingState,
    now: Duration,
) -> ScalingEvaluation {
    let source = replica_source(integration);
    let (decision, condition) = match source {
        ReplicaSource::Stopped => {
            let decision = Decision { replicas: 0, limited_by: None, message: STOPPED.to_owned() };
            (decision, condition_without_backlog(source))
        }
        ReplicaSource::Fixed(replicas) => {
            let limited_by = (replicas > platform_max).then_some(limit::PLATFORM_LIMIT);
            let replicas = replicas.clamp(0, platform_max);
            let decision = Decision { replicas, limited_by, message: FIXED.to_owned() };
            (decision, condition_without_backlog(source))
        }
        ReplicaSource::Backlog => {
            decide_by_backlog(&policy(integration, platform_max), current, backlog, &mut state, now)
        }
    };
    state.decision = Some(decision.clone());
    let condition_changed = condition.is_some() && condition != state.condition;
    if condition_changed {
        state.condition = condition;
    }
    ScalingEvaluation { decision, condition_changed, state }
}

/// Returns the condition before the first tick, if the spec alone decides.
pub fn initial_condition(integration: &Integration) -> Option<ScalingCondition> {
    condition_without_backlog(replica_source(integration))
}

/// Returns the condition that the first tick will report for a new Integration, as long as backlogs can be read.
pub fn expected_condition() -> ScalingCondition {
    ScalingCondition::new(TRUE, reason::AS_DESIRED, FOLLOWS)
}

/// Returns the number of workers without any reading of the backlog.
pub fn least_replicas(integration: &Integration, platform_max: i32) -> i32 {
    let workers = &integration.spec.workers;
    match (integration.spec.state, workers.scaling.mode) {
        (IntegrationState::DeliveryPaused | IntegrationState::Disabled, _) => 0,
        (_, ScalingMode::Auto) => workers.scaling.min_replicas.min(platform_max),
        (_, ScalingMode::Manual | ScalingMode::External) => workers.replicas.min(platform_max),
    }
}

/// Returns the reason for a change of the number.
pub fn reason_of_change(integration: &Integration, from: i32, to: i32) -> &'static str {
    match replica_source(integration) {
        ReplicaSource::Stopped => "DeliveryStopped",
        ReplicaSource::Fixed(_) => "ReplicasSet",
        ReplicaSource::Backlog if to == 0 => "ScaledToZero",
        ReplicaSource::Backlog if from == 0 => "Activated",
        ReplicaSource::Backlog if to > from => "ScaledOut",
        ReplicaSource::Backlog => "ScaledIn",
    }
}

fn condition_without_backlog(source: ReplicaSource) -> Option<ScalingCondition> {
    match source {
        ReplicaSource::Stopped => Some(ScalingCondition::new(FALSE, reason::DELIVERY_STOPPED, STOPPED)),
        ReplicaSource::Fixed(_) => Some(ScalingCondition::new(FALSE, reason::NOT_AUTOMATIC, FIXED)),
        ReplicaSource::Backlog => None,
    }
}

fn replica_source(integration: &Integration) -> ReplicaSource {
    let workers = &integration.spec.workers;
    match (integration.spec.state, workers.scaling.mode) {
        (IntegrationState::DeliveryPaused | IntegrationState::Disabled, _) => ReplicaSource::Stopped,
        (IntegrationState::Active, ScalingMode::Auto) => ReplicaSource::Backlog,
        (IntegrationState::Active, ScalingMode::Manual | ScalingMode::External) => {
            ReplicaSource::Fixed(workers.replicas)
        }
    }
}

/// A deleted Integration still needs a worker to drain it, however small its backlog is.
fn policy(integration: &Integration, platform_max: i32) -> Policy {
    let mut policy = Policy::new(&integration.spec.workers.scaling, platform_max);
    if integration.metadata.deletion_timestamp.is_some() {
        policy.activation = 0;
    }
    policy
}

fn decide_by_backlog(
    policy: &Policy,
    current: i32,
    backlog: Option<Backlog>,
    state: &mut ScalingState,
    now: Duration,
) -> (Decision, Option<ScalingCondition>) {
    let Some(backlog) = backlog else {
        let since = *state.unreadable_since.get_or_insert(now);
        let message = "the backlog cannot be read from RabbitMQ; the number of workers is held";
        let unavailable = ScalingCondition::new(FALSE, reason::METRIC_UNAVAILABLE, message);
        let is_lasting = now.saturating_sub(since) >= REPORT_UNREADABLE_AFTER;
        return (hold(policy, current), is_lasting.then_some(unavailable));
    };
    state.unreadable_since = None;
    let decision = decide(policy, current, backlog, &mut state.history, now);
    let at_max = matches!(decision.limited_by, Some(limit::MAX_REPLICAS | limit::PLATFORM_LIMIT));
    let condition = if at_max {
        let message = "the backlog needs more workers than are allowed";
        ScalingCondition::new(TRUE, reason::AT_MAX_REPLICAS, message)
    } else {
        expected_condition()
    };
    (decision, Some(condition))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn integration(state: &str, workers: serde_json::Value) -> Integration {
        serde_json::from_value(json!({
            "apiVersion": "grapnel.dev/v1alpha1", "kind": "Integration", "metadata": {"name": "acme"},
            "spec": {
                "provider": "acme", "state": state, "verification": {"secretRef": {"name": "acme"}},
                "destinations": [{"name": "orders", "url": "https://orders.example.com"}], "workers": workers,
            },
        }))
        .unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn backlog(ready: u64) -> Option<Backlog> {
        Some(Backlog { ready, ..Backlog::default() })
    }

    fn reported(state: &ScalingState) -> (&'static str, &'static str) {
        state.condition.as_ref().map(|condition| (condition.status, condition.reason)).unwrap_or_default()
    }

    #[test]
    fn states_and_modes_decide_before_the_backlog_does() {
        for (state, workers, expected, reason) in [
            ("Active", json!({}), 5, reason::AT_MAX_REPLICAS),
            ("DeliveryPaused", json!({}), 0, reason::DELIVERY_STOPPED),
            ("Disabled", json!({"replicas": 3, "scaling": {"mode": "Manual"}}), 0, reason::DELIVERY_STOPPED),
            ("Active", json!({"replicas": 3, "scaling": {"mode": "Manual"}}), 3, reason::NOT_AUTOMATIC),
            ("Active", json!({"replicas": 30, "scaling": {"mode": "External"}}), 10, reason::NOT_AUTOMATIC),
        ] {
            let object = integration(state, workers);
            let first = evaluate(&object, 1, backlog(10_000), 10, ScalingState::default(), at(0));
            assert_eq!(
                (first.decision.replicas, reported(&first.state).1, first.condition_changed),
                (expected, reason, true),
                "{state}"
            );
            let second = evaluate(&object, 1, backlog(10_000), 10, first.state, at(5));
            assert!(!second.condition_changed, "reported once");
        }
    }

    #[test]
    fn a_reading_that_fails_once_is_not_reported_but_a_lasting_failure_is() {
        let (object, mut state) = (integration("Active", json!({})), ScalingState::default());
        let mut tick = |second, backlog| {
            let evaluation = evaluate(&object, 3, backlog, 10, std::mem::take(&mut state), at(second));
            state = evaluation.state;
            (evaluation.decision.replicas, reported(&state))
        };
        assert_eq!(tick(0, backlog(300)), (3, (TRUE, reason::AS_DESIRED)));
        assert_eq!(tick(5, None), (3, (TRUE, reason::AS_DESIRED)));
        assert_eq!(tick(20, None), (3, (FALSE, reason::METRIC_UNAVAILABLE)));
        assert_eq!(tick(25, backlog(300)), (3, (TRUE, reason::AS_DESIRED)));
    }
}
