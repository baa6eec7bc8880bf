use proptest::prelude::*;

use super::*;

const POLICY: Policy = Policy {
    min: 0,
    max: 5,
    platform_max: 100,
    target: 100,
    activation: 0,
    cooldown: Duration::from_secs(300),
    stabilization: Duration::from_secs(300),
};

const TICK: u64 = 5;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ready(ready: u64) -> Backlog {
    Backlog { ready, ..Backlog::default() }
}

/// Runs one tick and carries out its decision.
fn step(policy: &Policy, current: &mut i32, load: u64, history: &mut History, now: u64) -> Decision {
    let decision = decide(policy, *current, ready(load), history, at(now));
    history.record_change(at(now), *current, decision.replicas);
    *current = decision.replicas;
    decision
}

/// Returns the number of workers at each tick, for a load by the second.
fn run(policy: &Policy, start: i32, seconds: u64, load: impl Fn(u64) -> u64) -> Vec<(u64, i32)> {
    let (mut current, mut history) = (start, History::default());
    (0..seconds)
        .step_by(TICK as usize)
        .map(|now| {
            step(policy, &mut current, load(now), &mut history, now);
            (now, current)
        })
        .collect()
}

#[test]
fn a_backlog_of_ten_targets_starts_the_maximum_of_workers() {
    let (mut current, mut history) = (0, History::default());
    let decision = step(&POLICY, &mut current, 1000, &mut history, 0);
    assert_eq!((decision.replicas, decision.limited_by), (5, Some(limit::MAX_REPLICAS)));
    assert_eq!(decision.message, "backlog 1000 (ready 1000, unacknowledged 0), target 100 per worker");
}

#[test]
fn a_drained_backlog_stops_the_last_worker_after_the_cooldown() {
    let numbers = run(&POLICY, 5, 900, |now| if now < 60 { 1000 } else { 0 });
    let number_at = |second| numbers.iter().rev().find(|(now, _)| *now <= second).map(|(_, number)| *number);
    assert_eq!(number_at(355), Some(5), "the window still holds the backlog");
    assert_eq!(number_at(365), Some(0), "300 s of an empty backlog are the cooldown too");
}

#[test]
fn a_cooldown_longer_than_the_window_leaves_one_worker_until_it_ends() {
    let policy = Policy { stabilization: at(0), cooldown: at(100), ..POLICY };
    let numbers = run(&policy, 5, 200, |_| 0);
    assert_eq!(numbers[0].1, 1);
    assert!(numbers.iter().all(|(now, number)| *number == i32::from(*now < 100)), "{numbers:?}");
}

#[test]
fn the_first_worker_needs_more_than_the_activation_backlog() {
    let policy = Policy { activation: 50, ..POLICY };
    for (load, expected) in [(0, 0), (50, 0), (51, 1)] {
        assert_eq!(decide(&policy, 0, ready(load), &mut History::default(), at(0)).replicas, expected);
    }
    let always_on = Policy { min: 1, ..policy };
    assert_eq!(decide(&always_on, 0, ready(0), &mut History::default(), at(0)).replicas, 1);
}

#[test]
fn unacknowledged_messages_keep_their_workers() {
    let policy = Policy { stabilization: at(0), cooldown: at(0), ..POLICY };
    let held = Backlog { unacknowledged: 250, ..Backlog::default() };
    assert_eq!(decide(&policy, 5, held, &mut History::default(), at(0)).replicas, 3);
    let last = Backlog { unacknowledged: 1, ..Backlog::default() };
    assert_eq!(decide(&policy, 1, last, &mut History::default(), at(0)).replicas, 1);
}

#[test]
fn a_tenth_more_or_less_changes_nothing() {
    let policy = Policy { max: 100, stabilization: at(0), ..POLICY };
    for (load, expected) in [(899, 9), (900, 10), (1100, 10), (1101, 12)] {
        assert_eq!(decide(&policy, 10, ready(load), &mut History::default(), at(0)).replicas, expected);
    }
}

#[test]
fn workers_are_added_no_faster_than_doubling_or_four_a_minute() {
    let policy = Policy { max: 100, ..POLICY };
    let numbers = run(&policy, 0, 200, |_| 1_000_000);
    let changes: Vec<_> = numbers
        .iter()
        .scan(0, |last, (now, number)| {
            let changed = (*number != *last).then_some((*now, *number));
            *last = *number;
            Some(changed)
        })
        .flatten()
        .collect();
    assert_eq!(changes, [(0, 5), (60, 10), (120, 20), (180, 40)]);
}

#[test]
fn nothing_is_lowered_on_an_unknown_backlog() {
    assert_eq!(hold(&POLICY, 4).replicas, 4);
    assert_eq!(hold(&POLICY, 0).replicas, 0);
    let lowered = Policy { max: 2, ..POLICY };
    assert_eq!(hold(&lowered, 4).replicas, 2, "a bound is configured, not read");
}

#[test]
fn a_restarted_scaler_lowers_nothing_until_its_history_spans_the_window() {
    let numbers = run(&POLICY, 5, 600, |_| 100);
    assert!(numbers.iter().all(|(now, number)| *number == if *now < 300 { 5 } else { 1 }), "{numbers:?}");
}

#[test]
fn the_platform_limit_takes_precedence() {
    let policy = Policy { max: 50, platform_max: 3, ..POLICY };
    let decision = decide(&policy, 3, ready(10_000), &mut History::default(), at(0));
    assert_eq!((decision.replicas, decision.limited_by), (3, Some(limit::PLATFORM_LIMIT)));
}

prop_compose! {
    fn policies()(
        (min, max) in (0..20_i32).prop_flat_map(|min| (Just(min), min.max(1)..40)),
        platform_max in 1..60_i32,
        target in 1..500_i32,
        activation in prop_oneof![Just(0), 0..200_i32],
        cooldown in 0..600_u64,
        stabilization in 0..600_u64,
    ) -> Policy {
        Policy { min, max, platform_max, target, activation, cooldown: at(cooldown), stabilization: at(stabilization) }
    }
}

proptest! {
    #[test]
    fn the_number_stays_within_the_bounds(
        policy in policies(), start in 0..60_i32, loads in prop::collection::vec(0..20_000_u64, 1..200),
    ) {
        let numbers = run(&policy, start, loads.len() as u64 * TICK, |now| loads[(now / TICK) as usize]);
        for (_, number) in numbers {
            prop_assert!(number <= policy.max.min(policy.platform_max));
            prop_assert!(number >= policy.min.min(policy.platform_max));
        }
    }

    #[test]
    fn an_unknown_backlog_lowers_nothing(policy in policies(), current in 0..60_i32) {
        let within = current.clamp(policy.min.min(policy.platform_max), policy.max.min(policy.platform_max));
        prop_assert_eq!(hold(&policy, within).replicas, within);
    }

    #[test]
    fn more_load_never_asks_for_fewer_workers(
        policy in policies(), current in 0..40_i32, loads in prop::collection::vec(0..5_000_u64, 0..100),
        (less, more) in (0..10_000_u64).prop_flat_map(|less| (Just(less), less..20_000)),
    ) {
        let (mut past, mut running) = (History::default(), current);
        for (tick, load) in loads.iter().enumerate() {
            step(&policy, &mut running, *load, &mut past, tick as u64 * TICK);
        }
        let now = at(loads.len() as u64 * TICK);
        let with_less = decide(&policy, running, ready(less), &mut past.clone(), now);
        let with_more = decide(&policy, running, ready(more), &mut past, now);
        prop_assert!(with_less.replicas <= with_more.replicas, "{:?} {:?}", with_less, with_more);
    }

    #[test]
    fn work_is_never_left_without_a_worker(policy in policies(), loads in prop::collection::vec(0..50_u64, 1..200)) {
        let policy = Policy { activation: 0, ..policy };
        let numbers = run(&policy, 0, loads.len() as u64 * TICK, |now| loads[(now / TICK) as usize]);
        for ((_, number), load) in numbers.iter().zip(&loads) {
            prop_assert!(*load == 0 || *number > 0);
        }
    }

    /// A steady load with noise of a fifth, over an hour: after the first minutes the number settles, and once lowered
    /// it is not raised again.
    #[test]
    fn an_hour_of_noisy_load_does_not_flap(
        base in 0..8_000_u64, noise in prop::collection::vec(0..400_u64, 720), start in 0..50_i32,
    ) {
        let policy = Policy { max: 100, ..POLICY };
        let load = |now: u64| base * (800 + noise[(now / TICK) as usize]) / 1000;
        let numbers = run(&policy, start, 3600, load);
        let settled: Vec<i32> = numbers.iter().filter(|(now, _)| *now >= 900).map(|(_, number)| *number).collect();
        let raised_after_lowered = settled.windows(2).skip_while(|pair| pair[1] >= pair[0]).any(|pair| pair[1] > pair[0]);
        prop_assert!(!raised_after_lowered, "{:?}", settled);
        let changes = settled.windows(2).filter(|pair| pair[0] != pair[1]).count();
        prop_assert!(changes <= 3, "{} changes: {:?}", changes, settled);
    }
}
