//! Events: what happened to an Integration, once for each transition.
//!
//! They follow from the difference between two statuses, so a controller that reconciles again says nothing again. An
//! Event that cannot be published is dropped: the status says the same.

use std::time::Duration;

use grapnel_crds::conditions::{self, TRUE, condition, reason};
use grapnel_crds::{Integration, IntegrationStatus};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder};
use tokio::time::timeout;

/// An Event is worth this much waiting.
const DEADLINE: Duration = Duration::from_secs(5);

/// The API server refuses longer notes.
const MAX_NOTE_BYTES: usize = 1024;

/// A `kubectl scale` in the mode Auto.
pub const SCALE_IGNORED: &str = "ScaleIgnored";
/// Deliveries that were not finished when the object was deleted.
pub const DELIVERIES_GIVEN_UP: &str = "DeliveriesGivenUp";
/// A deletion that left things behind on request.
pub const ABANDONED: &str = "Abandoned";
/// A secret that the provider gave is in its Secret.
pub const SECRET_CAPTURED: &str = "SecretCaptured";
/// A secret that the provider gave was forgotten on request.
pub const CAPTURE_DISCARDED: &str = "CaptureDiscarded";
/// A previous secret is not needed any more.
pub const PREVIOUS_SECRET_UNUSED: &str = "PreviousSecretUnused";

/// An Event of ours.
pub fn event(type_: EventType, action: &str, reason: &str, note: &str) -> Event {
    let mut end = note.len().min(MAX_NOTE_BYTES);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note[..end].to_owned()),
        action: action.to_owned(),
        secondary: None,
    }
}

/// What is worth telling about the change of a status.
pub fn transitions(before: Option<&IntegrationStatus>, after: &IntegrationStatus) -> Vec<Event> {
    let mut events = Vec::new();
    let find = |status: Option<&IntegrationStatus>, type_: &str| -> Option<Condition> {
        status.and_then(|status| conditions::find(&status.conditions, type_).cloned())
    };
    let changed = |type_: &str| {
        let (old, new) = (find(before, type_), find(Some(after), type_)?);
        let same = old.as_ref().is_some_and(|old| old.status == new.status && old.reason == new.reason);
        (!same).then_some((old, new))
    };
    if let Some((_, ready)) = changed(condition::READY) {
        // Progress is no news before anything has failed or succeeded.
        if ready.status == TRUE {
            let word = if ready.reason == reason::AS_DESIRED { condition::READY } else { &ready.reason };
            events.push(event(EventType::Normal, "Reconcile", word, &ready.message));
        } else if ready.reason == reason::DRAINING || ready.reason == reason::DELETING {
            events.push(event(EventType::Normal, "Delete", &ready.reason, &ready.message));
        } else if ready.reason != reason::PROGRESSING && ready.reason != reason::WORKERS_STARTING {
            events.push(event(EventType::Warning, "Reconcile", &ready.reason, &ready.message));
        }
    }
    if let Some((old, scaling)) = changed(condition::SCALING_ACTIVE) {
        if scaling.reason == reason::METRIC_UNAVAILABLE {
            events.push(event(EventType::Warning, "ReadBacklog", &scaling.reason, &scaling.message));
        } else if old.is_some_and(|old| old.reason == reason::METRIC_UNAVAILABLE) {
            events.push(event(
                EventType::Normal,
                "ReadBacklog",
                "MetricAvailable",
                "the backlog can be read again",
            ));
        }
    }
    if let Some((_, waiting)) = changed(condition::CAPTURE_WAITING) {
        events.push(event(EventType::Warning, "Capture", &waiting.reason, &waiting.message));
    }
    if let Some((_, accepted)) = changed(condition::ACCEPTED)
        && accepted.reason == reason::DOUBTFUL_SCHEME
    {
        events.push(event(EventType::Warning, "Reconcile", &accepted.reason, &accepted.message));
    }
    let unused = |status: Option<&IntegrationStatus>| {
        status.and_then(|status| status.verification.clone()).unwrap_or_default()
    };
    let (old, new) = (unused(before), unused(Some(after)));
    if new.unused_previous_secrets.iter().any(|secret| !old.unused_previous_secrets.contains(secret)) {
        let note = new.message.unwrap_or_default();
        events.push(event(EventType::Normal, "Verify", PREVIOUS_SECRET_UNUSED, &note));
    }
    let decision = |status: Option<&IntegrationStatus>| {
        status.and_then(|status| status.scaling.as_ref()?.last_decision.clone())
    };
    if let Some(new) = decision(Some(after)).filter(|new| decision(before).as_ref() != Some(new)) {
        let note = format!("{}→{}: {}", new.from, new.to, new.message);
        events.push(event(EventType::Normal, "Scale", &new.reason, &note));
    }
    events
}

/// Publishes them about the object.
pub async fn publish(recorder: &Recorder, integration: &Integration, events: &[Event]) {
    publish_about(recorder, &integration.object_ref(&()), events).await;
}

/// Publishes them about an object that may not be readable otherwise.
pub async fn publish_about(recorder: &Recorder, reference: &ObjectReference, events: &[Event]) {
    for event in events {
        match timeout(DEADLINE, recorder.publish(event, reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, reason = event.reason, "an Event was not published"),
            Err(_) => tracing::warn!(reason = event.reason, "an Event was not published in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use grapnel_crds::{ScalingDecision, ScalingStatus, UnusedSecret, VerificationStatus};
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn status(conditions: &[(&str, &str, &str)], decided: Option<i64>) -> IntegrationStatus {
        let time = |second| Time(Timestamp::from_second(second).unwrap());
        let conditions = conditions.iter().map(|(type_, status, reason)| Condition {
            type_: (*type_).to_owned(),
            status: (*status).to_owned(),
            reason: (*reason).to_owned(),
            message: "why".to_owned(),
            observed_generation: None,
            last_transition_time: time(0),
        });
        let last_decision = decided.map(|second| ScalingDecision {
            time: time(second),
            from: 1,
            to: 4,
            reason: "ScaledOut".to_owned(),
            message: "backlog 180".to_owned(),
        });
        IntegrationStatus {
            conditions: conditions.collect(),
            scaling: Some(ScalingStatus { last_decision, ..ScalingStatus::default() }),
            ..IntegrationStatus::default()
        }
    }

    fn told(before: Option<&IntegrationStatus>, after: &IntegrationStatus) -> Vec<String> {
        transitions(before, after).into_iter().map(|event| event.reason).collect()
    }

    #[test]
    fn each_transition_is_told_once() {
        let progressing = status(&[("Ready", "False", "Progressing")], None);
        let missing = status(&[("Ready", "False", "SecretNotFound")], None);
        let ready = status(&[("Ready", "True", "AsDesired")], None);
        assert!(told(None, &progressing).is_empty());
        assert_eq!(told(Some(&progressing), &missing), ["SecretNotFound"]);
        assert!(told(Some(&missing), &missing).is_empty());
        assert_eq!(told(Some(&missing), &ready), ["Ready"]);
    }

    #[test]
    fn a_change_of_the_number_of_workers_is_told_with_its_numbers() {
        let (before, after) = (status(&[], Some(1)), status(&[], Some(2)));
        let events = transitions(Some(&before), &after);
        assert_eq!(events[0].note.as_deref(), Some("1→4: backlog 180"));
        assert!(told(Some(&after), &after).is_empty());
    }

    #[test]
    fn an_unreadable_backlog_is_told_when_it_begins_and_when_it_ends() {
        let known = status(&[("ScalingActive", "True", "AsDesired")], None);
        let unknown = status(&[("ScalingActive", "False", "MetricUnavailable")], None);
        assert_eq!(told(Some(&known), &unknown), ["MetricUnavailable"]);
        assert_eq!(told(Some(&unknown), &known), ["MetricAvailable"]);
        assert!(told(None, &known).is_empty());
    }

    #[test]
    fn a_waiting_capture_and_a_doubt_are_told_once_and_again_for_another_reason() {
        let ready = status(&[("Accepted", "True", "AsDesired")], None);
        let doubtful = status(&[("Accepted", "True", "DoubtfulScheme")], None);
        assert_eq!(told(Some(&ready), &doubtful), ["DoubtfulScheme"]);
        assert!(told(Some(&doubtful), &doubtful).is_empty() && told(Some(&doubtful), &ready).is_empty());
        let asks = status(&[("CaptureWaiting", "True", "ConsentMissing")], None);
        let forbidden = status(&[("CaptureWaiting", "True", "SecretForbidden")], None);
        assert_eq!(told(None, &asks), ["ConsentMissing"]);
        assert!(told(Some(&asks), &asks).is_empty());
        assert_eq!(told(Some(&asks), &forbidden), ["SecretForbidden"]);
        assert!(told(Some(&forbidden), &ready).is_empty());
    }

    #[test]
    fn each_unused_secret_is_told_once() {
        let secret = |name: &str| UnusedSecret {
            name: name.to_owned(),
            key: "secret".to_owned(),
            unused_since: Time(Timestamp::UNIX_EPOCH),
            last_used_time: None,
        };
        let unused = |names: &[&str]| IntegrationStatus {
            verification: Some(VerificationStatus {
                unused_previous_secrets: names.iter().copied().map(secret).collect(),
                message: Some("why".to_owned()),
            }),
            ..IntegrationStatus::default()
        };
        let none = IntegrationStatus::default();
        assert_eq!(told(Some(&none), &unused(&["a"])), [PREVIOUS_SECRET_UNUSED]);
        assert!(told(Some(&unused(&["a"])), &unused(&["a"])).is_empty());
        assert_eq!(told(Some(&unused(&["a"])), &unused(&["a", "b"])), [PREVIOUS_SECRET_UNUSED]);
        assert!(told(Some(&unused(&["a", "b"])), &unused(&["b"])).is_empty());
    }

    #[test]
    fn a_note_is_cut_between_characters() {
        let note = "→".repeat(1000);
        let event = event(EventType::Normal, "a", "b", &note);
        assert!(event.note.is_some_and(|note| note.len() <= MAX_NOTE_BYTES && note.len() > 1000));
    }
}
