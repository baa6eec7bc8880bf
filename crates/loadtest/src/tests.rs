//! The load test against a gateway that misbehaves in known ways: the ledger must record exactly that.

use std::time::Duration;

use http::StatusCode;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use self::gateway::{Fate, Gateway, RELAY, SECRET, SIGNING_SECRET, base64_decode, post};
use crate::*;

mod gateway;

fn verifying_sink() -> Option<SinkConfig> {
    let signing_key = VerificationKey::parse(&SecretString::from(SIGNING_SECRET)).expect("a good key");
    Some(SinkConfig { signing_key: Some(signing_key), ..SinkConfig::default() })
}

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn every_event_of_a_request_is_counted() {
    let gateway =
        Gateway::start(|number, _| Fate { answer: Some(if number == 20 { 400 } else { 202 }), ..RELAY })
            .await;
    let config = Config { elements: 10, ..gateway.config(Amount::Events(500)) };
    let report = gateway.report(config).await;
    assert_eq!((report.sent, report.accepted), (500, 490), "{report}");
    let deliveries = report.deliveries.as_ref().expect("a sink");
    assert_eq!((deliveries.delivered, deliveries.duplicate_deliveries), (500, 0), "{report}");
    assert_eq!((deliveries.altered, report.answers[&202]), (0, 490), "{report}");
}

#[tokio::test]
async fn a_gateway_that_relays_everything_has_no_faults() {
    let gateway = Gateway::start(|_, _| RELAY).await;
    let mut config = gateway.config(Amount::Events(500));
    config.sink = verifying_sink().map(|sink| SinkConfig { fail_percent: 20, ..sink });
    let report = gateway.report(config).await;
    assert!(report.ok, "{report}");
    assert_eq!((report.sent, report.requests, report.accepted, report.unknown), (500, 500, 500, 0));
    assert_eq!((report.stop_reason, report.scheduled_not_sent), (StopReason::Completed, 0));
    assert_eq!((report.answers.get(&202), report.latency_ms.accept.count), (Some(&500), 500));
    let deliveries = report.deliveries.expect("a sink");
    assert_eq!((deliveries.delivered, deliveries.duplicate_deliveries), (500, 0));
    assert_eq!((deliveries.lost, deliveries.phantom, deliveries.bad_signatures), (0, 0, Some(0)));
    assert!((50..150).contains(&deliveries.failed_on_purpose), "{}", deliveries.failed_on_purpose);
    assert_eq!((deliveries.settled, deliveries.altered), (SettleOutcome::Complete, 0));
    assert_eq!(report.latency_ms.end_to_end.map(|percentiles| percentiles.count), Some(500));
}

#[tokio::test]
async fn the_ledger_records_exactly_what_the_gateway_did() {
    let gateway = Gateway::start(|number, _| match number {
        10..15 => Fate { deliveries: 0, ..RELAY },
        20..23 => Fate { deliveries: 3, ..RELAY },
        30..34 => Fate { answer: Some(401), deliveries: 0, ..RELAY },
        40..42 => Fate { answer: Some(401), ..RELAY },
        50..53 => Fate { answer: None, ..RELAY },
        60..64 => Fate { answer: None, deliveries: 0, ..RELAY },
        70 => Fate { answer: Some(503), ..RELAY },
        80..82 => Fate { badly_signed: true, ..RELAY },
        90 => Fate { altered: true, ..RELAY },
        _ => RELAY,
    })
    .await;
    let mut config = gateway.config(Amount::Events(100));
    (config.sink, config.settle) = (verifying_sink(), Duration::from_secs(1));
    let run = gateway.run(config);
    let (sink, run_id) = (run.sink_addr().expect("a sink"), run.run_id().clone());
    let stranger = json!({"provider": "acme", "externalEventId": "another-run-7"}).to_string();
    let key = base64_decode(&SIGNING_SECRET[6..]);
    assert_eq!(post(sink, &stranger, &key).await, StatusCode::OK);
    let beyond = json!({"externalEventId": format!("{}-100", run_id.as_str()), "data": {}}).to_string();
    assert_eq!(post(sink, &beyond, &key).await, StatusCode::OK);
    let report = run.finish().await.expect("a report");

    assert!(!report.ok);
    assert_eq!((report.sent, report.accepted, report.duplicates_answered), (100, 86, 0));
    assert_eq!(report.refused, [(401, 6), (503, 1)].into());
    assert_eq!((report.unknown, report.attempts_without_answer), (7, 7));
    let deliveries = report.deliveries.as_ref().expect("a sink");
    assert_eq!((deliveries.lost, deliveries.lost_numbers.clone()), (5, vec![10, 11, 12, 13, 14]));
    assert_eq!((deliveries.delivered_twice_or_more, deliveries.duplicate_deliveries), (3, 6));
    // Two that were refused and still delivered, and one beyond the run.
    assert_eq!((deliveries.phantom, deliveries.phantom_numbers.clone()), (3, vec![40, 41]));
    assert_eq!(deliveries.unknown_delivered, 4);
    assert_eq!(deliveries.delivered, 86 - 5 + 2 + 4);
    assert_eq!((deliveries.bad_signatures, deliveries.foreign, deliveries.unreadable), (Some(2), 1, 0));
    assert_eq!(deliveries.altered, 1);
    assert_eq!(deliveries.settled, SettleOutcome::TimedOut);
    assert_eq!(report.faults, ["5 lost", "3 phantom", "2 with a bad signature", "1 altered"]);
}

#[tokio::test]
async fn an_unknown_event_is_sent_again_until_it_is_accepted() {
    let gateway = Gateway::start(|number, attempt| match (number % 4, attempt) {
        // Committed, but the answer was lost: the next attempt is a duplicate.
        (1, 0) => Fate { answer: None, ..RELAY },
        (1, _) => Fate { answer: Some(200), deliveries: 0, ..RELAY },
        (2, 0) => Fate { answer: Some(429), deliveries: 0, ..RELAY },
        (3, 0 | 1) => Fate { answer: Some(503), deliveries: 0, ..RELAY },
        _ => RELAY,
    })
    .await;
    let mut config = gateway.config(Amount::Events(40));
    config.retry_unknown = true;
    let report = gateway.report(config).await;
    assert!(report.ok, "{report}");
    assert_eq!((report.sent, report.requests), (40, 40 + 10 + 10 + 20));
    assert_eq!((report.accepted, report.duplicates_answered, report.duplicates_unexplained), (30, 10, 0));
    assert_eq!((report.unknown, report.refused.len()), (0, 0));
    assert_eq!(report.answers, [(200, 10), (202, 30), (429, 10), (503, 20)].into());
    assert_eq!(report.deliveries.map(|deliveries| deliveries.delivered), Some(40));
}

#[tokio::test]
async fn a_stall_of_an_open_loop_delays_every_event_that_was_due_in_it() {
    let stall = Duration::from_millis(400);
    let gateway = Gateway::start(move |number, _| Fate {
        delay: if number == 0 { stall } else { Duration::ZERO },
        ..RELAY
    })
    .await;
    let mut config = gateway.config(Amount::Events(200));
    config.pace = Pace::Open { rate_per_second: 1_000, max_in_flight: 1 };
    let report = gateway.report(config).await;
    assert!(report.ok, "{report}");
    assert_eq!((report.sent, report.accepted, report.scheduled_not_sent), (200, 200, 0));
    // A closed loop would have one slow answer. Here number 199, due 199 ms after the stall began, waited for the rest
    // of it, as did all others.
    assert!(report.latency_ms.accept.p50 >= 200.0, "{report}");
    assert!(report.latency_ms.accept.max >= 400.0, "{report}");
}

#[tokio::test]
async fn an_open_loop_that_is_behind_schedule_reports_what_it_did_not_send() {
    let gateway = Gateway::start(|_, _| Fate { delay: Duration::from_millis(100), ..RELAY }).await;
    let mut config = gateway.config(Amount::Time(Duration::from_secs(1)));
    config.pace = Pace::Open { rate_per_second: 1_000, max_in_flight: 2 };
    let report = gateway.report(config).await;
    assert!(report.ok, "{report}");
    assert_eq!(report.sent + report.scheduled_not_sent, 1_000);
    assert!((2..=30).contains(&report.sent), "{report}");
    assert_eq!(report.accepted, report.sent);
}

#[tokio::test]
async fn a_stopped_run_settles_and_reports() {
    let gateway = Gateway::start(|_, _| RELAY).await;
    let run = gateway.run(gateway.config(Amount::Time(Duration::from_secs(600))));
    let handle = run.handle();
    let stop = async {
        assert!(handle.reaches(DEADLINE, |progress| progress.accepted >= 50).await);
        handle.stop();
    };
    let (report, ()) = tokio::join!(run.finish(), stop);
    let report = report.expect("a report");
    assert!(report.ok, "{report}");
    assert_eq!((report.stop_reason, report.unknown), (StopReason::Interrupted, 0));
    assert!(report.accepted >= 50);
    assert_eq!(report.deliveries.map(|deliveries| deliveries.delivered), Some(report.accepted));
}

#[tokio::test]
async fn events_in_flight_are_unknown_when_a_run_is_cut_while_the_gateway_hangs() {
    let gateway =
        Gateway::start(|_, _| Fate { delay: Duration::from_secs(3600), deliveries: 0, ..RELAY }).await;
    let mut config = gateway.config(Amount::Events(100));
    config.request_timeout = Duration::from_secs(600);
    let run = gateway.run(config);
    let handle = run.handle();
    let cut = async {
        assert!(handle.reaches(DEADLINE, |progress| progress.sent == 8).await);
        handle.cut();
    };
    let (report, ()) = tokio::join!(run.finish(), cut);
    let report = report.expect("a report");
    assert_eq!((report.sent, report.unknown, report.accepted), (8, 8, 0));
    assert_eq!(report.faults, ["nothing was accepted"]);
}

#[tokio::test]
async fn a_target_that_disappears_uses_up_no_numbers_and_ends_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let target = Target::parse(&format!("http://{addr}/")).expect("a good URL");
    let mut config =
        Config::new(target, Provider::Globex, SecretString::from("token"), Amount::Events(1_000));
    (config.unreachable_limit, config.sink) = (Duration::from_millis(200), None);
    // Accepts the first connection, which only checks that the target is reachable, and disappears.
    let vanish = async {
        listener.accept().await.expect("a connection");
        drop(listener);
    };
    let run = Run::start(config).expect("a usable configuration");
    let (report, ()) = tokio::join!(run.finish(), vanish);
    let report = report.expect("a report");
    assert_eq!((report.stop_reason, report.accepted), (StopReason::Unreachable, 0));
    // Connections that were waiting to be accepted may have carried a request.
    assert!(report.sent <= 64 && report.connect_failures > 0, "{report}");
    assert!(report.deliveries.is_none());
}

#[tokio::test]
async fn a_retrying_run_ends_when_its_target_never_accepts() {
    let refuse = |_, _| Fate { answer: Some(503), deliveries: 0, ..RELAY };
    let gateway = Gateway::start(refuse).await;
    let mut config = gateway.config(Amount::Events(100));
    (config.retry_unknown, config.unreachable_limit) = (true, Duration::from_millis(300));
    let report = gateway.report(config).await;
    assert_eq!(
        (report.stop_reason, report.sent, report.refused),
        (StopReason::Unreachable, 8, [(503, 8)].into())
    );

    let gateway = Gateway::start(refuse).await;
    let mut config = gateway.config(Amount::Time(Duration::from_secs(1)));
    (config.retry_unknown, config.settle, config.request_timeout) =
        (true, Duration::ZERO, Duration::from_secs(1));
    let report = gateway.report(config).await;
    assert_eq!((report.stop_reason, report.sent), (StopReason::Completed, 8));
    assert_eq!(report.faults, ["nothing was accepted"]);
}

#[tokio::test]
async fn a_run_of_fixed_duration_ends_in_time_when_its_target_hangs() {
    let hang = |_, _| Fate { delay: Duration::from_secs(3600), deliveries: 0, ..RELAY };
    for pace in [Pace::Closed { clients: 2 }, Pace::Open { rate_per_second: 100, max_in_flight: 2 }] {
        let gateway = Gateway::start(hang).await;
        let mut config = gateway.config(Amount::Time(Duration::from_secs(1)));
        (config.pace, config.request_timeout) = (pace, Duration::from_secs(600));
        let run = gateway.run(config);
        let handle = run.handle();
        let cut = async {
            while !handle.is_sending_over() {
                tokio::task::yield_now().await;
            }
            handle.cut();
        };
        let (report, ()) = tokio::time::timeout(DEADLINE, async { tokio::join!(run.finish(), cut) })
            .await
            .expect("sending is over in time");
        let report = report.expect("a report");
        assert_eq!((report.sent, report.unknown), (2, 2), "{report}");
    }
}

#[tokio::test]
async fn without_a_sink_only_acceptance_is_reported() {
    let gateway = Gateway::start(|_, _| Fate { deliveries: 0, ..RELAY }).await;
    let mut config = gateway.config(Amount::Events(20));
    config.sink = None;
    let report = Run::start(config).expect("a usable configuration").finish().await.expect("a report");
    assert!(report.ok, "{report}");
    assert_eq!((report.accepted, report.latency_ms.end_to_end), (20, None));
    gateway.deliveries.close();
    gateway.deliveries.wait().await;
}

#[tokio::test]
async fn the_json_is_camel_case_and_without_secrets() {
    let gateway = Gateway::start(|_, _| RELAY).await;
    let mut config = gateway.config(Amount::Events(20));
    config.sink = verifying_sink();
    let report = gateway.report(config).await;
    let text = serde_json::to_string(&report).expect("it is JSON");
    assert!(!text.contains(SECRET) && !text.contains("whsec_"));
    let json: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(json["deliveries"]["lost"], 0);
    assert_eq!(json["stopReason"], "completed");
    assert_eq!(json["config"]["concurrency"], 8);
    assert_eq!(json["config"]["signaturesVerified"], true);
    assert_eq!(json["answers"]["202"], 20);
    assert!(json["latencyMs"]["endToEnd"]["p99.9"].is_number());
}
