use grapnel_core::ids::ReplayJobId;
use grapnel_core::replay::{DesiredState, ReplayDocument, ReplaySelect};
use grapnel_store::replay_jobs::ReplaySkips;
use serde_json::json;

use super::*;

const CREATED: &str = "2026-11-23T10:00:00Z";

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn replay(status: Option<ReplayStatus>) -> Replay {
    let object = json!({
        "apiVersion": "grapnel.dev/v1alpha1", "kind": "Replay",
        "metadata": {"name": "outage", "namespace": "shop", "generation": 3, "creationTimestamp": CREATED},
        "spec": {"integrationRef": {"name": "orders"}, "select": "Failed", "receivedAfter": "2026-11-23T08:00:00Z",
                 "reason": "the receiver was down", "maxDeliveries": 100},
    });
    let mut replay: Replay = serde_json::from_value(object).expect("a Replay");
    replay.status = status;
    replay
}

fn job(state: ReplayState, reason: Option<(&str, &str)>) -> ReplayJob {
    let document = ReplayDocument {
        select: Some(ReplaySelect::Failed),
        received_after: Some(time("2026-11-23T08:00:00Z")),
        reason: Some("the receiver was down".to_owned()),
        ..ReplayDocument::default()
    };
    ReplayJob {
        id: ReplayJobId::generate(),
        namespace: "shop".to_owned(),
        integration_ids: Vec::new(),
        is_of_namespace: false,
        spec: document.check(time(CREATED)).expect("a valid spec"),
        rate_per_second: 70,
        desired_state: DesiredState::Running,
        state,
        state_reason: reason.map(|(word, _)| word.to_owned()),
        state_message: reason.map(|(_, sentence)| sentence.to_owned()),
        counters: ReplayCounters {
            matched: 20,
            matched_is_exact: true,
            fed: 9,
            skipped: ReplaySkips { unfinished: 1, succeeded: 2, gone: 3 },
            succeeded: 4,
            failed: 1,
        },
        requested_by: None,
        actor: "manager:kubectl".to_owned(),
        created_at: time(CREATED),
        started_at: Some(time("2026-11-23T10:00:01.5Z")),
        finished_at: state.is_final().then(|| time("2026-11-23T11:00:00Z")),
        updated_at: time(CREATED),
        object_name: Some("outage".to_owned()),
    }
}

fn of_job_in(state: ReplayState, reason: Option<(&str, &str)>) -> ReplayStatus {
    status(&replay(None), &Standing::Job(Box::new(job(state, reason))), time("2026-11-23T10:05:00Z"))
}

/// Returns each condition as `Type=Status/Reason`.
fn words(status: &ReplayStatus) -> Vec<String> {
    let word = |one: &Condition| format!("{}={}/{}", one.type_, one.status, one.reason);
    status.conditions.iter().map(word).collect()
}

#[test]
fn the_state_of_the_job_decides_phase_and_conditions() {
    for (state, reason, phase, holds, word) in [
        (ReplayState::Pending, None, ReplayPhase::Pending, None, "Pending"),
        (ReplayState::Running, None, ReplayPhase::Running, Some(RUNNING), "Running"),
        (ReplayState::Paused, None, ReplayPhase::Paused, None, "Paused"),
        (
            ReplayState::Paused,
            Some(("TooManyFailures", "30 of the last 50 attempts failed")),
            ReplayPhase::Paused,
            None,
            "TooManyFailures",
        ),
        (ReplayState::Cancelling, None, ReplayPhase::Cancelling, Some(RUNNING), "Cancelling"),
        (ReplayState::Cancelled, None, ReplayPhase::Cancelled, None, "Cancelled"),
        (ReplayState::Completed, None, ReplayPhase::Completed, Some(COMPLETE), "Completed"),
        (
            ReplayState::Failed,
            Some(("LimitReached", "more than 100 deliveries match")),
            ReplayPhase::Failed,
            Some(FAILED),
            "LimitReached",
        ),
    ] {
        let status = of_job_in(state, reason);
        assert_eq!(status.phase, Some(phase));
        let expected = ALL.map(|type_| match type_ {
            ACCEPTED => "Accepted=True/JobCreated".to_owned(),
            _ => format!("{type_}={}/{word}", if Some(type_) == holds { TRUE } else { FALSE }),
        });
        assert_eq!(words(&status), expected, "{state:?}");
        let message = &conditions::find(&status.conditions, RUNNING).expect("a condition").message;
        assert_eq!(message, reason.map_or("", |(_, sentence)| sentence));
        assert_eq!(status.completion_time.is_some(), state.is_final());
        assert!(status.conditions.iter().all(|one| one.observed_generation == Some(3)));
    }
}

#[test]
fn the_counters_of_the_job_are_reported() {
    let status = of_job_in(ReplayState::Running, None);
    let skipped = SkippedDeliveries { succeeded: 2, unfinished: 1, gone: 3 };
    assert_eq!((status.matched, status.fed, status.skipped), (Some(20), Some(9), Some(skipped)));
    assert_eq!((status.succeeded, status.failed, status.remaining), (Some(4), Some(1), Some(5)));
    assert_eq!((status.progress.as_deref(), status.rate_per_second), (Some("11/20"), Some(70)));
    assert_eq!(status.start_time.map(|time| time.0), Some(time("2026-11-23T10:00:01Z")), "whole seconds");

    let mut one = job(ReplayState::Running, None);
    one.counters.matched_is_exact = false;
    let status = super::status(&replay(None), &Standing::Job(Box::new(one)), time(CREATED));
    assert_eq!(status.progress.as_deref(), Some("11/20+"));
}

#[test]
fn without_a_job_all_conditions_have_the_reason() {
    let of = |standing| status(&replay(None), &standing, time(CREATED));
    let waits = of(Standing::waiting(reason::INTEGRATION_NOT_FOUND, "no orders".to_owned()));
    assert_eq!(waits.phase, Some(ReplayPhase::Pending));
    assert_eq!(words(&waits), ALL.map(|type_| format!("{type_}=False/IntegrationNotFound")));
    let unknown = of(Standing::unknown());
    assert_eq!(words(&unknown)[0], "Accepted=Unknown/DatabaseUnavailable");
    assert_eq!(words(&unknown)[1], "Running=False/DatabaseUnavailable");
    let rejected = of(Standing::Rejected { reason: reason::ALREADY_RAN, message: "it ran".to_owned() });
    assert_eq!(rejected.phase, Some(ReplayPhase::Rejected));
    assert_eq!(words(&rejected), ALL.map(|type_| format!("{type_}=False/AlreadyRan")));
    assert_eq!((rejected.matched, rejected.replay_id), (None, None));
}

#[test]
fn a_dry_run_says_what_matches_and_counts_once_for_a_generation() {
    let counts =
        |matched, is_exact| status(&replay(None), &Standing::Counted { matched, is_exact }, time(CREATED));
    let counted = counts(7, true);
    assert_eq!((counted.phase, counted.matched), (Some(ReplayPhase::Pending), Some(7)));
    assert_eq!((counted.progress.as_deref(), counted.fed), (Some("0/7"), None));
    assert_eq!(words(&counted)[..2], ["Accepted=True/DryRun", "Running=False/DryRun"]);
    let many = counts(101, false);
    let message = &many.conditions[0].message;
    assert_eq!(many.progress.as_deref(), Some("0/101+"));
    assert!(
        message.starts_with("at least 101 deliveries match, more than spec.maxDeliveries (100)"),
        "{message}"
    );

    let mut dry_run = replay(Some(counted));
    assert!(!has_counted(&dry_run), "it is to run by now");
    dry_run.spec.dry_run = true;
    assert!(has_counted(&dry_run));
    dry_run.metadata.generation = Some(4);
    assert!(!has_counted(&dry_run));
}

#[test]
fn a_job_whose_record_is_gone_has_failed_and_keeps_its_counts() {
    let before = of_job_in(ReplayState::Running, None);
    let lost = status(&replay(Some(before.clone())), &Standing::Lost, time(CREATED));
    assert_eq!((lost.phase, lost.fed), (Some(ReplayPhase::Failed), before.fed));
    assert_eq!(lost.replay_id, before.replay_id);
    assert_eq!(words(&lost)[3], "Failed=True/RecordExpired");
}

#[test]
fn the_time_of_a_condition_is_that_of_its_last_turn() {
    let at = |before: Option<ReplayStatus>, state, now: &str| {
        status(&replay(before), &Standing::Job(Box::new(job(state, None))), time(now))
    };
    let turned = |status: &ReplayStatus, type_| {
        conditions::find(&status.conditions, type_).expect("a condition").last_transition_time.0
    };
    let first = at(None, ReplayState::Running, "2026-11-23T10:00:00Z");
    let second = at(Some(first), ReplayState::Running, "2026-11-23T10:01:00Z");
    let last = at(Some(second.clone()), ReplayState::Completed, "2026-11-23T10:02:00Z");
    assert_eq!(turned(&second, RUNNING), time("2026-11-23T10:00:00Z"));
    assert_eq!(turned(&last, RUNNING), time("2026-11-23T10:02:00Z"));
    assert_eq!(turned(&last, COMPLETE), time("2026-11-23T10:02:00Z"));
    assert_eq!(turned(&last, ACCEPTED), time("2026-11-23T10:00:00Z"));
}

#[test]
fn what_differs_by_counts_alone_is_known() {
    let before = of_job_in(ReplayState::Running, None);
    let mut after = before.clone();
    (after.fed, after.remaining, after.progress) = (Some(10), Some(4), Some("12/20".to_owned()));
    assert_eq!(with_counts_of(&before, &after), after);
    after.phase = Some(ReplayPhase::Paused);
    assert_ne!(with_counts_of(&before, &after), after);
    let next = at_generation(&before, Some(4));
    assert_eq!(next.observed_generation, Some(4));
    assert!(next.conditions.iter().all(|one| one.observed_generation == Some(4)));
    assert_eq!((next.phase, next.fed), (before.phase, before.fed));
}
