//! What one tick means for one Integration: who decides its number of workers, what that comes to, and what is reported
//! about it.

use std::time::Duration;

use grapnel_crds::conditions::{FALSE, TRUE, limit, reason};
use grapnel_crds::{Integration, IntegrationState, ScalingMode};

use super::decide::{Backlog, Decision, Policy, decide, hold};
use crate::context::ScaleMemory;
use crate::status::Active;

/// A reading may fail now and then; only this long without one is worth telling.
const TELL_AFTER: Duration = Duration::from_secs(15);

/// Who decides the number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Nothing is to be delivered.
    Stopped,
    /// The user, or an autoscaler.
    Fixed(i32),
    Backlog,
}

/// Decides, remembers the decision, and answers whether the condition ScalingActive has changed.
pub fn consider(
    integration: &Integration,
    current: i32,
    backlog: Option<Backlog>,
    platform_max: i32,
    memory: &mut ScaleMemory,
    now: Duration,
) -> (Decision, bool) {
    let purpose = purpose(integration);
    let (decision, active) = match purpose {
        Purpose::Stopped => (
            Decision { replicas: 0, limited_by: None, message: STOPPED.to_owned() },
            without_backlog(purpose),
        ),
        Purpose::Fixed(replicas) => {
            let limited_by = (replicas > platform_max).then_some(limit::PLATFORM_LIMIT);
            let replicas = replicas.clamp(0, platform_max);
            (Decision { replicas, limited_by, message: FIXED.to_owned() }, without_backlog(purpose))
        }
        Purpose::Backlog => by_backlog(&policy(integration, platform_max), current, backlog, memory, now),
    };
    memory.decision = Some(decision.clone());
    let changed = active.is_some() && active != memory.active;
    if changed {
        memory.active = active;
    }
    (decision, changed)
}

const STOPPED: &str = "the state stops deliveries";
const FIXED: &str = "spec.workers.replicas decides the number of workers";
const FOLLOWS: &str = "the number of workers follows the backlog";

/// The condition where the spec alone decides.
fn without_backlog(purpose: Purpose) -> Option<Active> {
    match purpose {
        Purpose::Stopped => Some((FALSE, reason::DELIVERY_STOPPED, STOPPED.to_owned())),
        Purpose::Fixed(_) => Some((FALSE, reason::NOT_AUTOMATIC, FIXED.to_owned())),
        Purpose::Backlog => None,
    }
}

/// The condition before the first tick: known where the spec alone decides.
pub fn beforehand(integration: &Integration) -> Option<Active> {
    without_backlog(purpose(integration))
}

/// What the first tick will say of an Integration that is new, while backlogs can be read.
pub fn expected() -> Active {
    (TRUE, reason::AS_DESIRED, FOLLOWS.to_owned())
}

fn purpose(integration: &Integration) -> Purpose {
    let workers = &integration.spec.workers;
    match (integration.spec.state, workers.scaling.mode) {
        (IntegrationState::DeliveryPaused | IntegrationState::Disabled, _) => Purpose::Stopped,
        (IntegrationState::Active, ScalingMode::Auto) => Purpose::Backlog,
        (IntegrationState::Active, ScalingMode::Manual | ScalingMode::External) => {
            Purpose::Fixed(workers.replicas)
        }
    }
}

/// What is being deleted is to be drained, however little it is.
fn policy(integration: &Integration, platform_max: i32) -> Policy {
    let mut policy = Policy::new(&integration.spec.workers.scaling, platform_max);
    if integration.metadata.deletion_timestamp.is_some() {
        policy.activation = 0;
    }
    policy
}

fn by_backlog(
    policy: &Policy,
    current: i32,
    backlog: Option<Backlog>,
    memory: &mut ScaleMemory,
    now: Duration,
) -> (Decision, Option<Active>) {
    let Some(backlog) = backlog else {
        let since = *memory.unknown_since.get_or_insert(now);
        let message = "the backlog cannot be read from RabbitMQ; the number of workers is held".to_owned();
        let unavailable = (FALSE, reason::METRIC_UNAVAILABLE, message);
        let tell = now.saturating_sub(since) >= TELL_AFTER;
        return (hold(policy, current), tell.then_some(unavailable));
    };
    memory.unknown_since = None;
    let decision = decide(policy, current, backlog, &mut memory.history, now);
    let at_max = matches!(decision.limited_by, Some(limit::MAX_REPLICAS | limit::PLATFORM_LIMIT));
    let active = if at_max {
        (TRUE, reason::AT_MAX_REPLICAS, "the backlog asks for more workers than are allowed".to_owned())
    } else {
        expected()
    };
    (decision, Some(active))
}

/// One word for a change of the number.
pub fn reason_of_change(integration: &Integration, from: i32, to: i32) -> &'static str {
    match purpose(integration) {
        Purpose::Stopped => "DeliveryStopped",
        Purpose::Fixed(_) => "ReplicasSet",
        Purpose::Backlog if to == 0 => "ScaledToZero",
        Purpose::Backlog if from == 0 => "Activated",
        Purpose::Backlog if to > from => "ScaledOut",
        Purpose::Backlog => "ScaledIn",
    }
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
        Some(Backlog { ready, unacknowledged: 0 })
    }

    fn word(memory: &ScaleMemory) -> (&'static str, &'static str) {
        memory.active.as_ref().map(|(status, reason, _)| (*status, *reason)).unwrap_or_default()
    }

    #[test]
    fn states_and_modes_decide_before_the_backlog_does() {
        for (state, workers, expected, told) in [
            ("Active", json!({}), 5, reason::AT_MAX_REPLICAS),
            ("DeliveryPaused", json!({}), 0, reason::DELIVERY_STOPPED),
            ("Disabled", json!({"replicas": 3, "scaling": {"mode": "Manual"}}), 0, reason::DELIVERY_STOPPED),
            ("Active", json!({"replicas": 3, "scaling": {"mode": "Manual"}}), 3, reason::NOT_AUTOMATIC),
            ("Active", json!({"replicas": 30, "scaling": {"mode": "External"}}), 10, reason::NOT_AUTOMATIC),
        ] {
            let mut memory = ScaleMemory::default();
            let object = integration(state, workers);
            let (decision, changed) = consider(&object, 1, backlog(10_000), 10, &mut memory, at(0));
            assert_eq!((decision.replicas, word(&memory).1, changed), (expected, told, true), "{state}");
            let (_, changed) = consider(&object, 1, backlog(10_000), 10, &mut memory, at(5));
            assert!(!changed, "told once");
        }
    }

    #[test]
    fn a_reading_that_fails_once_is_not_told_but_a_lasting_failure_is() {
        let (object, mut memory) = (integration("Active", json!({})), ScaleMemory::default());
        let mut tick = |second, backlog| {
            let (decision, _) = consider(&object, 3, backlog, 10, &mut memory, at(second));
            (decision.replicas, word(&memory))
        };
        assert_eq!(tick(0, backlog(300)), (3, (TRUE, reason::AS_DESIRED)));
        assert_eq!(tick(5, None), (3, (TRUE, reason::AS_DESIRED)));
        assert_eq!(tick(20, None), (3, (FALSE, reason::METRIC_UNAVAILABLE)));
        assert_eq!(tick(25, backlog(300)), (3, (TRUE, reason::AS_DESIRED)));
    }
}
