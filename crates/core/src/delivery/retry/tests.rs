use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

/// The defaults of the Integration object.
const POLICY: CompiledRetryPolicy = CompiledRetryPolicy {
    max_attempts: 5,
    backoff: Backoff::Exponential,
    initial_delay: Duration::from_secs(5),
    max_delay: Duration::from_secs(3600),
    retry_after_max: Duration::from_secs(3600),
    final_statuses: Vec::new(),
};

fn refused(status: u16, retry_after: Option<Duration>) -> AttemptOutcome {
    AttemptOutcome::Refused { status, body: String::new(), retry_after }
}

/// Returns the wait until the retry; fails the test if there is no retry.
fn wait_of(decision: RetryDecision) -> Duration {
    let RetryDecision::RetryAfter(wait) = decision else { panic!("not a retry: {decision:?}") };
    wait
}

fn whole_wait(attempts: u32, outcome: &AttemptOutcome) -> Duration {
    wait_of(decide(&POLICY, attempts, outcome, 1.0))
}

#[test]
fn success_and_gone_end_the_delivery_at_any_attempt() {
    for attempts in [1, 5, 99] {
        let succeeded = AttemptOutcome::Succeeded { status: 204, body: String::new() };
        assert_eq!(decide(&POLICY, attempts, &succeeded, 0.5), RetryDecision::Succeeded);
        let gone = AttemptOutcome::Gone { body: String::new() };
        assert_eq!(decide(&POLICY, attempts, &gone, 0.5), RetryDecision::DestinationGone);
    }
}

#[test]
fn a_final_status_ends_the_delivery_at_its_first_attempt() {
    let policy = CompiledRetryPolicy { final_statuses: vec![404, 503], ..POLICY };
    for (status, is_final) in [(404, true), (503, true), (400, false), (500, false)] {
        let decision = decide(&policy, 1, &refused(status, Some(SECOND)), 0.5);
        let reason = format!("the receiver answered {status}, which is final for this destination");
        assert_eq!(decision == RetryDecision::GaveUp { reason }, is_final, "{status}");
    }
    let succeeded = AttemptOutcome::Succeeded { status: 204, body: String::new() };
    assert_eq!(decide(&policy, 1, &succeeded, 0.5), RetryDecision::Succeeded);
}

#[test]
fn a_failure_of_ours_never_gives_up() {
    let not_sent = AttemptOutcome::NotSent { message: "no free port".to_owned() };
    let wait = SECOND * 60;
    for attempts in [1, 5, u32::MAX] {
        assert_eq!(decide(&POLICY, attempts, &not_sent, 0.5), RetryDecision::NotAnAttempt { wait });
    }
}

#[test]
fn the_last_attempt_gives_up_with_its_reason() {
    fn check(outcome: AttemptOutcome, reason: &str) {
        let expected =
            RetryDecision::GaveUp { reason: format!("gave up after 5 attempts; the last one: {reason}") };
        assert_eq!(decide(&POLICY, 5, &outcome, 0.5), expected);
        assert!(matches!(decide(&POLICY, 4, &outcome, 0.5), RetryDecision::RetryAfter(_)));
    }
    check(refused(500, None), "the receiver answered 500");
    check(refused(503, Some(SECOND)), "the receiver answered 503");
    check(AttemptOutcome::Unreachable { message: "connection refused".to_owned() }, "connection refused");
    check(AttemptOutcome::TimedOut { message: "no answer within 10 s".to_owned() }, "no answer within 10 s");
    check(AttemptOutcome::Denied { message: "a loopback address".to_owned() }, "a loopback address");
}

#[test]
fn steps_grow_by_the_backoff_up_to_the_longest() {
    fn check(backoff: Backoff, max_delay: u64, expected: [u64; 6]) {
        let policy = CompiledRetryPolicy { backoff, max_delay: SECOND * max_delay as u32, ..POLICY };
        for (attempts, seconds) in (1..).zip(expected) {
            assert_eq!(policy.step(attempts), Duration::from_secs(seconds), "{backoff:?} {attempts}");
        }
    }
    check(Backoff::Exponential, 3600, [5, 10, 20, 40, 80, 160]);
    check(Backoff::Exponential, 30, [5, 10, 20, 30, 30, 30]);
    check(Backoff::Linear, 3600, [5, 10, 15, 20, 25, 30]);
    check(Backoff::Linear, 12, [5, 10, 12, 12, 12, 12]);
}

#[test]
fn jitter_spreads_from_a_tenth_of_the_step_to_all_of_it() {
    let wait = |jitter| wait_of(decide(&POLICY, 2, &refused(500, None), jitter));
    assert_eq!(wait(0.0), SECOND);
    assert_eq!(wait(0.5), Duration::from_millis(5500));
    assert_eq!(wait(1.0), SECOND * 10);
    for no_share in [f64::NAN, f64::INFINITY, -7.0] {
        assert_eq!(wait(no_share), SECOND * 10);
    }
}

#[test]
fn retry_after_is_the_least_wait_with_429_and_503_only() {
    let asked = Some(SECOND * 60);
    assert_eq!(whole_wait(1, &refused(429, asked)), SECOND * 65);
    assert_eq!(whole_wait(1, &refused(503, asked)), SECOND * 65);
    for status in [301, 404, 413, 500, 502, 504] {
        assert_eq!(whole_wait(1, &refused(status, asked)), SECOND * 5, "{status}");
    }
    assert_eq!(whole_wait(1, &refused(429, None)), SECOND * 5);
    assert_eq!(whole_wait(1, &refused(429, Some(Duration::ZERO))), SECOND * 5);
}

#[test]
fn retry_after_is_bounded() {
    assert_eq!(whole_wait(1, &refused(429, Some(SECOND * 3598))), SECOND * 3600);
    assert_eq!(whole_wait(1, &refused(429, Some(SECOND * 86_400))), SECOND * 3600);
    assert_eq!(whole_wait(1, &refused(503, Some(Duration::MAX))), SECOND * 3600);
}

#[test]
fn a_bound_below_the_backoff_does_not_shorten_it() {
    for retry_after_max in [Duration::ZERO, SECOND] {
        let policy = CompiledRetryPolicy { retry_after_max, ..POLICY };
        let decision = decide(&policy, 4, &refused(429, Some(SECOND * 60)), 1.0);
        assert_eq!(wait_of(decision), SECOND * 40);
    }
}

fn any_policy() -> impl Strategy<Value = CompiledRetryPolicy> {
    let backoff = prop_oneof![Just(Backoff::Exponential), Just(Backoff::Linear)];
    (any::<u32>(), backoff, any::<Duration>(), any::<Duration>(), any::<Duration>()).prop_map(
        |(max_attempts, backoff, initial_delay, max_delay, retry_after_max)| CompiledRetryPolicy {
            max_attempts,
            backoff,
            initial_delay,
            max_delay,
            retry_after_max,
            final_statuses: Vec::new(),
        },
    )
}

fn any_failure() -> impl Strategy<Value = AttemptOutcome> {
    prop_oneof![
        (prop_oneof![Just(429_u16), Just(503), 300..600_u16], any::<Option<Duration>>())
            .prop_map(|(status, retry_after)| refused(status, retry_after)),
        Just(AttemptOutcome::Unreachable { message: "connection refused".to_owned() }),
        Just(AttemptOutcome::TimedOut { message: "no answer".to_owned() }),
        Just(AttemptOutcome::Denied { message: "loopback".to_owned() }),
    ]
}

proptest! {
    #[test]
    fn it_gives_up_exactly_at_the_last_attempt(
        policy in any_policy(), attempts: u32, outcome in any_failure(), jitter: f64,
    ) {
        let gave_up = matches!(decide(&policy, attempts, &outcome, jitter), RetryDecision::GaveUp { .. });
        prop_assert_eq!(gave_up, attempts >= policy.max_attempts);
    }

    #[test]
    fn a_retry_is_not_beyond_its_bound(
        policy in any_policy(), attempts: u32, outcome in any_failure(), jitter: f64,
    ) {
        if let decision @ RetryDecision::RetryAfter(_) = decide(&policy, attempts, &outcome, jitter) {
            let wait = wait_of(decision);
            let step = policy.step(attempts);
            match requested_wait(&outcome) {
                None => prop_assert!(wait <= step),
                Some(_) => prop_assert!(wait <= step.max(policy.retry_after_max)),
            }
        }
    }

    #[test]
    fn the_wait_that_a_receiver_requests_is_kept_within_the_bound(
        attempts in 1..5_u32, asked in 0..=3600_u64, jitter in 0.0..1.0_f64,
    ) {
        let asked = Duration::from_secs(asked);
        let decision = decide(&POLICY, attempts, &refused(503, Some(asked)), jitter);
        prop_assert!(wait_of(decision) >= asked);
    }

    #[test]
    fn steps_never_decrease_and_never_exceed_the_longest(policy in any_policy(), attempts in 0..u32::MAX) {
        prop_assert!(policy.step(attempts) <= policy.step(attempts + 1));
        prop_assert!(policy.step(attempts) <= policy.max_delay);
    }

    #[test]
    fn jitter_never_waits_less_than_a_tenth(step in 0..=3600_u64, jitter in 0.0..1.0_f64) {
        let step = Duration::from_secs(step);
        prop_assert!(with_jitter(step, jitter) >= step / 10);
    }
}
