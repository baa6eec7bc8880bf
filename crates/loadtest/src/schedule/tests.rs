use super::*;

const OPEN: Pace = Pace::Open { rate_per_second: 10_000, max_in_flight: 4 };

#[test]
fn a_duration_becomes_a_number_of_events_in_an_open_loop() {
    let amount = Amount::Time(Duration::from_secs(3));
    assert_eq!(DueTimes::new(200, amount).total(), 600);
    assert_eq!(Schedule::limit(amount, OPEN), 30_000);
    assert_eq!(Schedule::limit(amount, Pace::Closed { clients: 1 }), MAX_NUMBERS);
}

#[tokio::test]
async fn a_closed_loop_hands_out_each_number_once_and_then_is_over() {
    let schedule = Schedule::start(Amount::Events(3), Pace::Closed { clients: 2 }, 1);
    let wake = Arc::new(Notify::new());
    for number in 0..3 {
        assert_eq!(schedule.next(&wake).await.map(|event| event.number), Some(number));
    }
    assert_eq!(schedule.next(&wake).await, None);
    schedule.over().await;
    assert_eq!((schedule.stop_reason(), schedule.scheduled()), (StopReason::Completed, 3));
}

#[tokio::test]
async fn a_stopped_loop_hands_out_nothing() {
    for pace in [OPEN, Pace::Closed { clients: 2 }] {
        let schedule = Schedule::start(Amount::Time(Duration::from_secs(60)), pace, 1);
        schedule.stop(StopReason::Interrupted);
        schedule.stop(StopReason::Unreachable);
        assert_eq!(schedule.next(&Arc::new(Notify::new())).await, None);
        assert_eq!(schedule.stop_reason(), StopReason::Interrupted);
        schedule.pace();
    }
}

#[tokio::test]
async fn an_open_loop_hands_out_in_order_and_never_early() {
    let schedule = Arc::new(Schedule::start(Amount::Events(50), OPEN, 1));
    let pacer = std::thread::spawn({
        let schedule = Arc::clone(&schedule);
        move || schedule.pace()
    });
    let wake = Arc::new(Notify::new());
    let mut numbers = 0..50;
    while let Some(event) = schedule.next(&wake).await {
        assert_eq!(Some(event.number), numbers.next());
        assert!(event.scheduled <= Instant::now());
    }
    assert_eq!(numbers.next(), None);
    assert_eq!(schedule.scheduled(), 50);
    pacer.join().expect("the pacer ends with the schedule");
}

#[tokio::test]
async fn due_numbers_without_a_lane_are_reported_and_dropped_at_the_end() {
    let schedule = Arc::new(Schedule::start(Amount::Time(Duration::from_secs(1)), OPEN, 1));
    let pacer = std::thread::spawn({
        let schedule = Arc::clone(&schedule);
        move || schedule.pace()
    });
    assert!(schedule.missing_lanes().await > 0);
    pacer.join().expect("the pacer ends after the grace");
    assert_eq!(schedule.next(&Arc::new(Notify::new())).await, None);
    assert_eq!((schedule.scheduled(), schedule.stop_reason()), (10_000, StopReason::Completed));
}
