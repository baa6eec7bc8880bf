use grapnel_crds::{ScalingDecision, UnusedSecret};
use serde_json::json;

use super::*;
use crate::report::observation::StepProblem;

fn integration(spec: serde_json::Value) -> Integration {
    let mut object = json!({
        "apiVersion": "grapnel.dev/v1alpha1", "kind": "Integration",
        "metadata": {
            "name": "acme", "namespace": "shop", "generation": 3, "uid": "3d2c8a52-3f0e-4a54-9f0a-2f5d6e1f7c10",
        },
        "spec": {
            "provider": "acme", "verification": {"secretRef": {"name": "acme"}},
            "destinations": [{"name": "orders", "url": "https://orders.example.com"}],
        },
    });
    if let (Some(target), Some(extra)) = (object["spec"].as_object_mut(), spec.as_object()) {
        target.extend(extra.clone());
    }
    serde_json::from_value(object).unwrap()
}

fn all_done(wanted: i32, ready: i32) -> Observation {
    Observation {
        accepted: StepStatus::Done,
        secrets: StepStatus::Done,
        registered: StepStatus::Done,
        queues: StepStatus::Done,
        workers: ObservedWorkers {
            deployment: StepStatus::Done,
            wanted,
            replicas: wanted,
            ready,
            failing: None,
        },
        scaling: ObservedScaling {
            condition: Some(ScalingCondition::new(TRUE, reason::AS_DESIRED, "")),
            desired: Some(wanted),
            ..ObservedScaling::default()
        },
        ..Observation::default()
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn reported(status: &IntegrationStatus, type_: &str) -> (String, String) {
    let found = conditions::find(&status.conditions, type_);
    found.map(|condition| (condition.status.clone(), condition.reason.clone())).unwrap_or_default()
}

fn summary(integration: &Integration, observed: &Observation) -> [(String, String); 3] {
    let status = status(integration, observed, None, at(0));
    [condition::READY, condition::RECONCILING, condition::STALLED].map(|type_| reported(&status, type_))
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

fn absent() -> (String, String) {
    pair("", "")
}

#[test]
fn every_condition_is_present_from_the_first_pass() {
    let status = status(&integration(json!({})), &Observation::default(), None, at(0));
    for type_ in condition::ALWAYS_PRESENT {
        assert!(!reported(&status, type_).1.is_empty(), "{type_}");
    }
    assert_eq!(reported(&status, condition::READY), pair(FALSE, reason::PROGRESSING));
    assert_eq!(reported(&status, condition::ACCEPTED), pair(UNKNOWN, reason::NOT_YET_TRIED));
}

#[test]
fn an_integration_without_workers_on_purpose_is_ready() {
    let ready = pair(TRUE, reason::AS_DESIRED);
    assert_eq!(summary(&integration(json!({})), &all_done(0, 0)), [ready, absent(), absent()]);
    for (state, expected) in [("DeliveryPaused", reason::DELIVERY_PAUSED), ("Disabled", reason::DISABLED)] {
        let [ready, ..] = summary(&integration(json!({"state": state})), &all_done(0, 0));
        assert_eq!(ready, pair(TRUE, expected));
    }
}

#[test]
fn workers_that_start_as_part_of_scaling_leave_it_ready() {
    let scales_to_zero = integration(json!({}));
    let always_on = integration(json!({"workers": {"scaling": {"minReplicas": 1}}}));
    assert_eq!(summary(&scales_to_zero, &all_done(1, 0))[0], pair(TRUE, reason::AS_DESIRED));
    assert_eq!(summary(&always_on, &all_done(3, 1))[0], pair(TRUE, reason::AS_DESIRED));
    let starting = pair(FALSE, reason::WORKERS_STARTING);
    let reconciling = pair(TRUE, reason::WORKERS_STARTING);
    assert_eq!(summary(&always_on, &all_done(1, 0)), [starting, reconciling, absent()]);
    let mut failing = all_done(1, 0);
    failing.workers.failing = Some("pods are not created: quota".to_owned());
    assert_eq!(summary(&scales_to_zero, &failing)[0], pair(FALSE, reason::WORKERS_FAILING));
}

#[test]
fn the_first_failed_step_is_the_summary() {
    let mut observed = all_done(0, 0);
    observed.secrets =
        StepStatus::Failed(StepProblem::stalled(reason::SECRET_NOT_FOUND, "the Secret does not exist"));
    observed.registered = StepStatus::NotTried;
    let failed = pair(FALSE, reason::SECRET_NOT_FOUND);
    let stalled = pair(TRUE, reason::SECRET_NOT_FOUND);
    assert_eq!(summary(&integration(json!({})), &observed), [failed, absent(), stalled]);
    observed.secrets = StepStatus::Done;
    observed.registered = StepStatus::Failed(StepProblem::transient(reason::DATABASE_UNAVAILABLE, "away"));
    let failed = pair(FALSE, reason::DATABASE_UNAVAILABLE);
    let reconciling = pair(TRUE, reason::DATABASE_UNAVAILABLE);
    assert_eq!(summary(&integration(json!({})), &observed), [failed, reconciling, absent()]);
}

#[test]
fn the_same_observation_gives_the_same_status_at_any_time() {
    let mut integration = integration(json!({}));
    let first = status(&integration, &all_done(0, 0), None, at(100));
    integration.status = Some(first.clone());
    assert_eq!(status(&integration, &all_done(0, 0), None, at(200)), first);
    let paused =
        Observation { deletion: Some(DeletionPhase::Draining("3 deliveries".to_owned())), ..all_done(0, 0) };
    let next = status(&integration, &paused, None, at(300));
    let ready = conditions::find(&next.conditions, condition::READY).unwrap();
    assert_eq!((ready.reason.as_str(), ready.last_transition_time.0), (reason::DRAINING, at(300)));
    let accepted = conditions::find(&next.conditions, condition::ACCEPTED).unwrap();
    assert_eq!(accepted.last_transition_time.0, at(100), "it did not change");
}

#[test]
fn a_restarted_controller_keeps_what_was_decided_before() {
    let mut integration = integration(json!({}));
    let decision = ScalingDecision {
        time: Time(at(50)),
        from: 0,
        to: 2,
        reason: "ScaledOut".to_owned(),
        message: "backlog 200".to_owned(),
    };
    let mut observed = all_done(2, 2);
    observed.scaling.last_decision = Some(decision.clone());
    integration.status = Some(status(&integration, &observed, None, at(60)));
    let restarted = Observation { scaling: ObservedScaling::default(), ..all_done(2, 2) };
    let scaling = status(&integration, &restarted, None, at(70)).scaling.unwrap();
    assert_eq!((scaling.desired_replicas, scaling.last_decision), (2, Some(decision)));
}

#[test]
fn the_url_to_configure_at_the_provider_is_shown() {
    let public_url = Url::parse("https://hooks.example.com/").unwrap();
    let status = status(&integration(json!({})), &all_done(0, 0), Some(&public_url), at(0));
    let route = status.route.unwrap();
    assert_eq!(route.url.as_deref(), Some("https://hooks.example.com/api/v1/webhooks/acme"));
}

#[test]
fn the_scaling_condition_stays_until_the_backlog_is_known_again() {
    let mut object = integration(json!({}));
    let scaling_active = |status: &IntegrationStatus| reported(status, condition::SCALING_ACTIVE);
    let with = |scaling: ObservedScaling| Observation { scaling, ..all_done(0, 0) };
    let as_desired = ScalingCondition::new(TRUE, reason::AS_DESIRED, "");
    let expected = ObservedScaling { expected: Some(as_desired), ..ObservedScaling::default() };
    let first = status(&object, &with(expected.clone()), None, at(0));
    assert_eq!(scaling_active(&first), pair(TRUE, reason::AS_DESIRED));
    let unread = status(&object, &with(ObservedScaling::default()), None, at(0));
    assert_eq!(scaling_active(&unread), pair(UNKNOWN, reason::NOT_YET_TRIED));

    let at_max = ObservedScaling {
        condition: Some(ScalingCondition::new(TRUE, reason::AT_MAX_REPLICAS, "m")),
        ..ObservedScaling::default()
    };
    let before = status(&object, &with(at_max), None, at(0));
    object.status = Some(before.clone());
    for restarted in [ObservedScaling::default(), expected] {
        assert_eq!(status(&object, &with(restarted), None, at(9)), before, "nothing to write");
    }
}

#[test]
fn a_pending_capture_is_reported_alongside_ready() {
    let mut object = integration(json!({}));
    let problem = StepProblem::stalled(reason::CONSENT_MISSING, "it waits");
    let pending = Observation { capture: CaptureStatus::Pending(problem), ..all_done(0, 0) };
    let before = status(&object, &pending, None, at(0));
    assert_eq!(reported(&before, condition::CAPTURE_WAITING), pair(TRUE, reason::CONSENT_MISSING));
    assert_eq!(reported(&before, condition::READY), pair(TRUE, reason::AS_DESIRED));
    object.status = Some(before.clone());
    assert_eq!(
        status(&object, &all_done(0, 0), None, at(9)),
        before,
        "a restarted controller does not know yet"
    );
    let settled = Observation { capture: CaptureStatus::NonePending, ..all_done(0, 0) };
    assert_eq!(reported(&status(&object, &settled, None, at(9)), condition::CAPTURE_WAITING), absent());
}

#[test]
fn an_unused_secret_is_reported_until_it_is_used_or_not_listed() {
    let verification = |refs: serde_json::Value| json!({"verification": {"secretRef": {"name": "acme"}, "previousSecretRefs": refs}});
    let mut object = integration(verification(json!([{"name": "old"}, {"name": "older"}])));
    let unused = UnusedSecret {
        name: "old".to_owned(),
        key: "secret".to_owned(),
        unused_since: Time(at(0)),
        last_used_time: None,
    };
    let polled = Observation { unused_secrets: Some(vec![unused.clone()]), ..all_done(0, 0) };
    let before = status(&object, &polled, None, at(99));
    let verification_status = before.verification.clone().unwrap();
    assert_eq!(verification_status.unused_previous_secrets, [unused]);
    let message = "old (key secret) has not verified any webhook since 1970-01-01T00:00:00Z, but the current secret has: \
                   remove it from spec.verification.previousSecretRefs";
    assert_eq!(verification_status.message.as_deref(), Some(message));

    object.status = Some(before.clone());
    assert_eq!(
        status(&object, &all_done(0, 0), None, at(100)),
        before,
        "a restarted controller does not know yet"
    );
    let used = Observation { unused_secrets: Some(Vec::new()), ..all_done(0, 0) };
    assert_eq!(status(&object, &used, None, at(100)).verification, None);
    let mut removed = integration(verification(json!([{"name": "older"}])));
    removed.status = Some(before);
    assert_eq!(status(&removed, &all_done(0, 0), None, at(100)).verification, None);
}

#[test]
fn a_doubtful_secret_is_reported_and_used() {
    let warned =
        Observation { secret_warning: Some("it ends with white space".to_owned()), ..all_done(0, 0) };
    let with_warning = status(&integration(json!({})), &warned, None, at(0));
    assert_eq!(reported(&with_warning, condition::SECRETS_RESOLVED), pair(TRUE, reason::DOUBTFUL_SECRET));
    assert_eq!(reported(&with_warning, condition::READY), pair(TRUE, reason::AS_DESIRED));
}

#[test]
fn a_warning_is_reported_only_for_an_accepted_object() {
    let warned = Observation { warning: Some("it verifies nothing"), ..all_done(0, 0) };
    let with_warning = status(&integration(json!({})), &warned, None, at(0));
    assert_eq!(reported(&with_warning, condition::ACCEPTED), pair(TRUE, reason::DOUBTFUL_SCHEME));
    assert_eq!(reported(&with_warning, condition::READY), pair(TRUE, reason::AS_DESIRED));
    let accepted = StepStatus::Failed(StepProblem::stalled(reason::INVALID_SPEC, "wrong"));
    let refused = status(&integration(json!({})), &Observation { accepted, ..warned }, None, at(0));
    assert_eq!(reported(&refused, condition::ACCEPTED), pair(FALSE, reason::INVALID_SPEC));
}

#[test]
fn a_destination_that_is_gone_is_reported_until_a_poll_finds_none() {
    let object = integration(json!({}));
    let seen = |observed: &Observation, before: IntegrationStatus| {
        let object = Integration { status: Some(before), ..object.clone() };
        status(&object, observed, None, at(0))
    };
    let polled = |gone: &[&str]| Observation {
        gone: Some(gone.iter().map(ToString::to_string).collect()),
        ..all_done(0, 0)
    };
    let gone = seen(&polled(&["orders", "stock"]), IntegrationStatus::default());
    let condition = conditions::find(&gone.conditions, condition::DESTINATION_GONE).expect("it is reported");
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), (TRUE, reason::GONE));
    assert!(condition.message.contains("orders, stock"), "{}", condition.message);
    let before_a_poll = seen(&all_done(0, 0), gone.clone());
    assert!(conditions::find(&before_a_poll.conditions, condition::DESTINATION_GONE).is_some());
    let over = seen(&polled(&[]), gone);
    assert!(conditions::find(&over.conditions, condition::DESTINATION_GONE).is_none());
}

#[test]
fn a_service_that_cannot_be_delivered_to_is_reported_and_only_a_mistake_needs_someone() {
    let destinations =
        json!({"destinations": [{"name": "orders", "service": {"name": "orders", "port": 80}}]});
    let delivers = integration(destinations);
    let with = |services| Observation { services, ..all_done(1, 1) };
    let problem = |reason| with(StepStatus::Failed(StepProblem::stalled(reason, "why")));
    let ready = pair(TRUE, reason::AS_DESIRED);
    assert_eq!(summary(&delivers, &with(StepStatus::Done)), [ready, absent(), absent()]);
    let waiting = reason::NO_READY_ENDPOINTS;
    assert_eq!(summary(&delivers, &problem(waiting)), [pair(FALSE, waiting), pair(TRUE, waiting), absent()]);
    let missing = reason::SERVICE_NOT_FOUND;
    assert_eq!(summary(&delivers, &problem(missing)), [pair(FALSE, missing), absent(), pair(TRUE, missing)]);

    let found = status(&delivers, &problem(missing), None, at(0));
    assert_eq!(reported(&found, condition::SERVICES_RESOLVED), pair(FALSE, missing));
    let without = status(&integration(json!({})), &problem(missing), None, at(0));
    assert_eq!(reported(&without, condition::SERVICES_RESOLVED), absent());
    assert_eq!(reported(&without, condition::READY), pair(TRUE, reason::AS_DESIRED));
}

#[test]
fn filters_are_reported_if_there_are_any() {
    let plain = integration(json!({}));
    let healthy = Observation { filter_problems: Some(Vec::new()), ..all_done(0, 0) };
    let of = |integration: &Integration, observed: &Observation| {
        reported(&status(integration, observed, None, at(0)), condition::FILTERS_HEALTHY)
    };
    assert_eq!(of(&plain, &healthy), pair("", ""));
    let filtering = integration(json!({"destinations": [
        {"name": "orders", "url": "https://orders.example.com", "filter": "payload.total > 1"},
    ]}));
    assert_eq!(of(&filtering, &all_done(0, 0)), pair("", ""), "not polled yet");
    assert_eq!(of(&filtering, &healthy), pair(TRUE, reason::AS_DESIRED));
    let problem = FilterProblem {
        destination: "orders".to_owned(),
        error: "a field is absent".to_owned(),
        sample_event_id: grapnel_core::ids::EventId::new(uuid::Uuid::nil()),
    };
    let failing = Observation { filter_problems: Some(vec![problem]), ..all_done(0, 0) };
    assert_eq!(of(&filtering, &failing), pair(FALSE, reason::FILTER_FAILED));
    let status = status(&filtering, &failing, None, at(0));
    assert_eq!(
        reported(&status, condition::READY).0,
        TRUE,
        "webhooks are accepted and delivered all the same"
    );
}
