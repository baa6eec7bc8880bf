//! A status as it is copied: what is shown of it, with texts of bounded length. Pure.

use grapnel_crds::conditions::{self, condition};
use grapnel_crds::{IntegrationStatus, ScalingDecision};
use grapnel_store::integrations::status::{ObjectStatus, ReadyCondition, WorkerNumbers};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Characters of a message.
const MAX_MESSAGE: usize = 1_024;

/// Characters of a word, such as a reason.
const MAX_WORD: usize = 128;

/// The definition of the object allows half as many.
const MAX_CONDITIONS: usize = 32;

/// Returns what is copied of a status.
pub fn bounded(status: &IntegrationStatus) -> ObjectStatus {
    let conditions: Vec<Condition> = status.conditions.iter().take(MAX_CONDITIONS).map(cut).collect();
    let ready = conditions::find(&conditions, condition::READY).map(|ready| ReadyCondition {
        status: ready.status.clone(),
        reason: ready.reason.clone(),
        message: ready.message.clone(),
        since: ready.last_transition_time.0,
    });
    let (workers, scaling) = (status.workers.as_ref(), status.scaling.as_ref());
    let last_scaling =
        scaling.and_then(|scaling| scaling.last_decision.as_ref()).map(|last| ScalingDecision {
            reason: text(&last.reason, MAX_WORD),
            message: text(&last.message, MAX_MESSAGE),
            ..last.clone()
        });
    ObjectStatus {
        observed_generation: status.observed_generation,
        ready,
        workers: WorkerNumbers {
            desired: scaling.map(|scaling| scaling.desired_replicas),
            existing: workers.map(|workers| workers.replicas),
            ready: workers.map(|workers| workers.ready_replicas),
        },
        limited_by: scaling
            .and_then(|scaling| scaling.limited_by.as_deref())
            .map(|limit| text(limit, MAX_WORD)),
        last_scaling: last_scaling.and_then(|last| serde_json::to_string(&last).ok()),
        conditions: serde_json::to_string(&conditions).unwrap_or_else(|_| "[]".to_owned()),
    }
}

fn cut(condition: &Condition) -> Condition {
    Condition {
        type_: text(&condition.type_, MAX_WORD),
        status: text(&condition.status, MAX_WORD),
        reason: text(&condition.reason, MAX_WORD),
        message: text(&condition.message, MAX_MESSAGE),
        ..condition.clone()
    }
}

/// Cuts a text, and leaves out what PostgreSQL cannot store.
fn text(text: &str, max: usize) -> String {
    let mut characters = text.chars().filter(|character| *character != '\0');
    let mut cut: String = characters.by_ref().take(max).collect();
    if characters.next().is_some() {
        cut.pop();
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_cut_and_ready_is_found() {
        let message = format!("{}\0{}", "é".repeat(1_000), "x".repeat(1_000));
        let status: IntegrationStatus = serde_json::from_value(json!({
            "observedGeneration": 3,
            "conditions": [
                {"type": "Accepted", "status": "True", "reason": "AsDesired", "message": "", "lastTransitionTime": "2026-11-24T10:00:00Z"},
                {"type": "Ready", "status": "False", "reason": "WorkersFailing", "message": message, "lastTransitionTime": "2026-11-24T10:00:00Z"},
            ],
            "workers": {"replicas": 2, "readyReplicas": 1},
            "scaling": {"desiredReplicas": 3, "limitedBy": "MaxReplicas"},
        }))
        .unwrap();
        let copied = bounded(&status);
        let ready = copied.ready.expect("a condition");
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "WorkersFailing"));
        assert_eq!(ready.message.chars().count(), MAX_MESSAGE);
        assert!(ready.message.ends_with("x…") && !copied.conditions.contains("\\u0000"), "{}", ready.message);
        let numbers = (copied.workers.desired, copied.workers.existing, copied.workers.ready);
        assert_eq!(numbers, (Some(3), Some(2), Some(1)));
        assert_eq!(copied.limited_by.as_deref(), Some("MaxReplicas"));
        let nothing = bounded(&IntegrationStatus::default());
        assert_eq!((nothing.ready, nothing.conditions.as_str()), (None, "[]"));
    }
}
