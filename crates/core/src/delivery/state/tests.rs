use std::time::Duration;

use grapnel_crds::Backoff;

use super::*;

fn policy(max_attempts: u32) -> CompiledRetryPolicy {
    CompiledRetryPolicy {
        max_attempts,
        backoff: Backoff::Exponential,
        initial_delay: Duration::from_secs(10),
        max_delay: Duration::from_secs(600),
        retry_after_max: Duration::ZERO,
        final_statuses: Vec::new(),
    }
}

fn unreachable() -> AttemptOutcome {
    AttemptOutcome::Unreachable { message: "connection refused".to_owned() }
}

#[test]
fn stored_forms_are_read_back() {
    for state in DeliveryState::ALL {
        assert_eq!(DeliveryState::parse(state.as_str()), Some(state));
    }
    for trigger in Trigger::ALL {
        assert_eq!(Trigger::parse(trigger.as_str()), Some(trigger));
    }
    assert_eq!(DeliveryState::parse("queued"), None);
    assert_eq!(Trigger::parse(""), None);
}

#[test]
fn the_last_attempt_of_a_budget_is_the_first_of_a_renewed_one() {
    let evaluation = evaluate(&policy(3), 3, None, &unreachable(), 0.999_999);
    assert_eq!(evaluation.next, NextState::Failed);
    let first_step = evaluation.next_if_replayed.wait().expect("a wait");
    assert_eq!(first_step.as_secs_f64().round(), 10.0);
    assert!(evaluation.counts);
    assert!(evaluation.error_message.is_some_and(|message| message.contains("3 attempts")));
}

#[test]
fn a_receiver_that_is_gone_is_asked_once_more_for_a_replay() {
    let evaluation = evaluate(&policy(3), 1, None, &AttemptOutcome::Gone { body: String::new() }, 0.5);
    assert_eq!(
        (evaluation.next, evaluation.next_if_replayed),
        (NextState::Failed, NextState::RetryAfter(Duration::ZERO))
    );
}

#[test]
fn what_is_not_the_end_is_the_same_with_a_renewed_budget() {
    let succeeded = AttemptOutcome::Succeeded { status: 204, body: String::new() };
    let not_sent = AttemptOutcome::NotSent { message: "no payload".to_owned() };
    for (outcome, counts) in [(succeeded, true), (unreachable(), true), (not_sent, false)] {
        let evaluation = evaluate(&policy(3), 1, None, &outcome, 0.5);
        assert_eq!(evaluation.next, evaluation.next_if_replayed);
        assert_eq!(evaluation.counts, counts);
    }
}

#[test]
fn a_fault_of_ours_ends_the_delivery_after_a_day_of_them() {
    let not_sent = AttemptOutcome::NotSent { message: "no token".to_owned() };
    let minute = Duration::from_secs(60);
    for unsent_for in [None, Some(minute), Some(LONGEST_UNSENT - minute)] {
        let evaluation = evaluate(&policy(3), 1, unsent_for, &not_sent, 0.5);
        assert_eq!(evaluation.next, NextState::RetryAfter(minute), "{unsent_for:?}");
    }
    let evaluation = evaluate(&policy(3), 1, Some(LONGEST_UNSENT), &not_sent, 0.5);
    assert_eq!((evaluation.next, evaluation.counts), (NextState::Failed, false));
    assert_eq!(evaluation.next_if_replayed, NextState::RetryAfter(minute));
    let message = evaluation.error_message.expect("a message");
    assert_eq!(message, "could not be sent for 24 hours; the last reason: no token");
    let late = evaluate(&policy(3), 1, Some(LONGEST_UNSENT), &unreachable(), 0.5);
    assert!(
        matches!(late.next, NextState::RetryAfter(_)) && late.counts,
        "an attempt is judged as any other"
    );
}
