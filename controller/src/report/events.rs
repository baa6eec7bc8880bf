//! Kubernetes Events about an Integration, one for each transition.
//!
//! They follow from the difference between two statuses, so repeated passes do not repeat them. An Event that cannot be
//! published is dropped: the status contains the same information.

use std::time::Duration;

use grapnel_crds::conditions::{self, TRUE, condition, reason};
use grapnel_crds::{Integration, IntegrationStatus};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder};
use tokio::time::timeout;

/// How long publishing one Event may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// The API server rejects longer notes.
const MAX_NOTE_BYTES: usize = 1024;

/// Reason: someone used `kubectl scale` in the mode Auto.
pub const SCALE_IGNORED: &str = "ScaleIgnored";
/// Reason: some deliveries were not finished when the object was deleted.
pub const DELIVERIES_GIVEN_UP: &str = "DeliveriesGivenUp";
/// Reason: a destination is removed while deliveries wait for it.
pub const DESTINATION_REMOVED: &str = "DestinationRemoved";
/// Reason: a deletion left things behind on request.
pub const ABANDONED: &str = "Abandoned";
/// Reason: a captured secret is now in its Secret.
pub const SECRET_CAPTURED: &str = "SecretCaptured";
/// Reason: a captured secret was discarded on request.
pub const CAPTURE_DISCARDED: &str = "CaptureDiscarded";
/// Reason: a previous secret is no longer needed.
pub const PREVIOUS_SECRET_UNUSED: &str = "PreviousSecretUnused";

/// Builds an Event, with its note cut to the length that the API server accepts.
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

/// Returns the Events for the change from one status to another.
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
        // Progress alone is not reported until something has failed or succeeded.
        if ready.status == TRUE {
            let is_plain = ready.reason == reason::AS_DESIRED;
            let reason = if is_plain { condition::READY } else { &ready.reason };
            events.push(event(EventType::Normal, "Reconcile", reason, &ready.message));
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
    if let Some((_, pending)) = changed(condition::CAPTURE_WAITING) {
        events.push(event(EventType::Warning, "Capture", &pending.reason, &pending.message));
    }
    if let Some((_, accepted)) = changed(condition::ACCEPTED)
        && accepted.reason == reason::DOUBTFUL_SCHEME
    {
        events.push(event(EventType::Warning, "Reconcile", &accepted.reason, &accepted.message));
    }
    if let Some((_, secrets)) = changed(condition::SECRETS_RESOLVED)
        && secrets.reason == reason::DOUBTFUL_SECRET
    {
        events.push(event(EventType::Warning, "Reconcile", &secrets.reason, &secrets.message));
    }
    if let Some((_, restricted)) = changed(condition::RESTRICTED) {
        events.push(event(EventType::Warning, "Reconcile", &restricted.reason, &restricted.message));
    }
    if let Some((_, gone)) = changed(condition::DESTINATION_GONE) {
        events.push(event(EventType::Warning, "Deliver", &gone.reason, &gone.message));
    }
    let verification = |status: Option<&IntegrationStatus>| {
        status.and_then(|status| status.verification.clone()).unwrap_or_default()
    };
    let (old, new) = (verification(before), verification(Some(after)));
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

/// Publishes Events about an Integration.
pub async fn publish(recorder: &Recorder, integration: &Integration, events: &[Event]) {
    publish_about(recorder, &integration.object_ref(&()), events).await;
}

/// Publishes Events about an object that may not be decodable.
pub async fn publish_about(recorder: &Recorder, reference: &ObjectReference, events: &[Event]) {
    for event in events {
        match timeout(DEADLINE, recorder.publish(event, reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, reason = event.reason, "cannot publish an Event"),
            Err(_) => tracing::warn!(reason = event.reason, "publishing an Event timed out"),
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

    fn reasons(before: Option<&IntegrationStatus>, after: &IntegrationStatus) -> Vec<String> {
        transitions(before, after).into_iter().map(|event| event.reason).collect()
    }

    #[test]
    fn each_transition_is_reported_once() {
        let progressing = status(&[("Ready", "False", "Progressing")], None);
        let missing = status(&[("Ready", "False", "SecretNotFound")], None);
        let ready = status(&[("Ready", "True", "AsDesired")], None);
        assert!(reasons(None, &progressing).is_empty());
        assert_eq!(reasons(Some(&progressing), &missing), ["SecretNotFound"]);
        assert!(reasons(Some(&missing), &missing).is_empty());
        assert_eq!(reasons(Some(&missing), &ready), ["Ready"]);
    }

    #[test]
    fn a_change_of_the_number_of_workers_is_reported_with_its_numbers() {
        let (before, after) = (status(&[], Some(1)), status(&[], Some(2)));
        let events = transitions(Some(&before), &after);
        assert_eq!(events[0].note.as_deref(), Some("1→4: backlog 180"));
        assert!(reasons(Some(&after), &after).is_empty());
    }

    #[test]
    fn an_unreadable_backlog_is_reported_when_it_begins_and_when_it_ends() {
        let known = status(&[("ScalingActive", "True", "AsDesired")], None);
        let unknown = status(&[("ScalingActive", "False", "MetricUnavailable")], None);
        assert_eq!(reasons(Some(&known), &unknown), ["MetricUnavailable"]);
        assert_eq!(reasons(Some(&unknown), &known), ["MetricAvailable"]);
        assert!(reasons(None, &known).is_empty());
    }

    #[test]
    fn a_pending_capture_and_a_warning_are_reported_once_and_again_for_another_reason() {
        let ready = status(&[("Accepted", "True", "AsDesired")], None);
        let doubtful = status(&[("Accepted", "True", "DoubtfulScheme")], None);
        assert_eq!(reasons(Some(&ready), &doubtful), ["DoubtfulScheme"]);
        assert!(
            reasons(Some(&doubtful), &doubtful).is_empty() && reasons(Some(&doubtful), &ready).is_empty()
        );
        let asks = status(&[("CaptureWaiting", "True", "ConsentMissing")], None);
        let forbidden = status(&[("CaptureWaiting", "True", "SecretForbidden")], None);
        assert_eq!(reasons(None, &asks), ["ConsentMissing"]);
        assert!(reasons(Some(&asks), &asks).is_empty());
        assert_eq!(reasons(Some(&asks), &forbidden), ["SecretForbidden"]);
        assert!(reasons(Some(&forbidden), &ready).is_empty());
    }

    #[test]
    fn each_unused_secret_is_reported_once() {
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
        assert_eq!(reasons(Some(&none), &unused(&["a"])), [PREVIOUS_SECRET_UNUSED]);
        assert!(reasons(Some(&unused(&["a"])), &unused(&["a"])).is_empty());
        assert_eq!(reasons(Some(&unused(&["a"])), &unused(&["a", "b"])), [PREVIOUS_SECRET_UNUSED]);
        assert!(reasons(Some(&unused(&["a", "b"])), &unused(&["b"])).is_empty());
    }

    #[test]
    fn a_note_is_cut_between_characters() {
        let note = "→".repeat(1000);
        let event = event(EventType::Normal, "a", "b", &note);
        assert!(event.note.is_some_and(|note| note.len() <= MAX_NOTE_BYTES && note.len() > 1000));
    }
}
