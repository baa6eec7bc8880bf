//! The outcome of a delivery after each response of a receiver.

use std::time::Duration;

use grapnel_testing::{RawReceiver, Reply, TestReceiver, acme_event, wait_until};

use super::super::harness::{Platform, acme_integration, destination};
use super::{attempts, delivery, destination_with, post_to_held, wait_until_finished};

#[tokio::test]
async fn failure_is_retried_until_no_attempt_is_left() {
    let receiver = TestReceiver::answering(|_, delivery| match delivery.path.as_str() {
        "/error" => Reply::Status(500),
        "/client-error" => Reply::Status(404),
        "/redirect" => Reply::With(302, "location", "/redirected"),
        "/not-modified" => Reply::Status(304),
        "/hang" => Reply::Hang,
        _ => Reply::Status(204),
    })
    .await;
    let platform = Platform::new().await;
    // Nothing listens on the discard port.
    let refused = destination("refused", "http://127.0.0.1:9/");
    let mut destinations = vec![refused];
    for name in ["error", "client-error", "redirect", "not-modified", "hang", "fine"] {
        destinations.push(destination(name, &receiver.url(&format!("/{name}"))));
    }
    let _running = platform.start_api_and_worker(&acme_integration(&destinations)).await;
    let accepted = platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 7).await;

    let check = async |name: &str, http_status: Option<i16>, error: &str| {
        let last = format!("gave up after 3 attempts; the last one: {error}");
        let expected = [error, error, last.as_str()]
            .into_iter()
            .zip(1..)
            .map(|(error, number)| (number, http_status, Some(error.to_owned())));
        assert_eq!(attempts(&platform, name).await, expected.collect::<Vec<_>>());
        assert_eq!(delivery(&platform, name).await, ("failed".to_owned(), Some(last)));
    };
    check("error", Some(500), "the receiver answered 500").await;
    check("client-error", Some(404), "the receiver answered 404").await;
    check("redirect", Some(302), "the receiver answered 302").await;
    check("not-modified", Some(304), "the receiver answered 304").await;
    check("hang", None, "no answer within 2 s").await;
    check("refused", None, "connection refused").await;
    assert_eq!(attempts(&platform, "fine").await, [(1, Some(204), None)]);
    assert_eq!(delivery(&platform, "fine").await, ("succeeded".to_owned(), None));
    assert!(receiver.deliveries_to("/redirected").is_empty());
    assert_eq!(receiver.deliveries_to("/error").len(), 3);

    // Each retry and each end is audited, and nothing twice.
    let audited = async |action: &str| {
        let path = format!("/api/v1/audit-entries?entityId={}&action={action}", accepted.event_id());
        platform.get(&path).await.json()["meta"]["total"].clone()
    };
    assert_eq!(audited("event.retry_scheduled").await, 12);
    assert_eq!(audited("event.failed").await, 6);
    assert_eq!(audited("event.processed").await, 1);
    let event = platform.get(&format!("/api/v1/events/{}", accepted.event_id())).await.json();
    assert_eq!(event["data"]["event"]["status"], "failed");
}

#[tokio::test]
async fn failing_destination_does_not_affect_the_others() {
    let receiver = TestReceiver::answering(|_, delivery| match delivery.path.as_str() {
        "/late" => Reply::Status(503),
        _ => Reply::Status(200),
    })
    .await;
    let platform = Platform::new().await;
    let slow = "{maxAttempts: 2, initialDelaySeconds: 3600, maxDelaySeconds: 3600}";
    let destinations = [
        destination("orders", &receiver.url("/orders")),
        destination_with("late", &receiver.url("/late"), slow, ""),
        destination("billing", &receiver.url("/billing")),
    ];
    let _running = platform.start_api_and_worker(&acme_integration(&destinations)).await;
    let accepted = platform.post_acme(&acme_event("e-1")).await;
    receiver.wait_for(3).await;
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'succeeded'", 2).await;
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'retrying'", 1).await;
    let path = format!("/api/v1/events/{}/status", accepted.event_id());
    assert_eq!(platform.get(&path).await.json()["data"]["status"], "retrying");
    assert_eq!(receiver.deliveries().len(), 3);
}

#[tokio::test]
async fn retry_after_is_honored_for_429_and_503_only() {
    let receiver = TestReceiver::answering(|count, delivery| match (count, delivery.path.as_str()) {
        (1, "/seconds") => Reply::With(429, "retry-after", "4"),
        (1, "/unavailable") => Reply::With(503, "retry-after", "4"),
        (1, "/date") => Reply::Headers(503, vec![("retry-after".to_owned(), http_date_in(6))]),
        (1, "/bounded") => Reply::With(429, "retry-after", "86400"),
        (1, "/other") => Reply::With(500, "retry-after", "86400"),
        _ => Reply::Status(200),
    })
    .await;
    let platform = Platform::new().await;
    let quick = "{maxAttempts: 3, initialDelaySeconds: 1, maxDelaySeconds: 1}";
    let bounded = "{maxAttempts: 3, initialDelaySeconds: 1, maxDelaySeconds: 1, retryAfterMaxSeconds: 3}";
    let mut destinations = vec![destination_with("bounded", &receiver.url("/bounded"), bounded, "")];
    for name in ["seconds", "unavailable", "date", "other"] {
        destinations.push(destination_with(name, &receiver.url(&format!("/{name}")), quick, ""));
    }
    let _running = platform.start_api_and_worker(&acme_integration(&destinations)).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 5).await;

    let waited = |path: &str| {
        let deliveries = receiver.deliveries_to(path);
        assert_eq!(deliveries.len(), 2, "{path}");
        (deliveries[1].at - deliveries[0].at).as_secs_f64()
    };
    assert!(waited("/seconds") >= 4.0, "{}", waited("/seconds"));
    assert!(waited("/unavailable") >= 4.0, "{}", waited("/unavailable"));
    // A date has whole seconds.
    assert!(waited("/date") >= 4.9, "{}", waited("/date"));
    assert!(waited("/bounded") >= 2.9, "{}", waited("/bounded"));
    // These two did not wait for a day.
    assert!(waited("/other") < 60.0 && waited("/bounded") < 60.0);
}

fn http_date_in(seconds: u64) -> String {
    httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(seconds))
}

#[tokio::test]
async fn gone_destination_is_not_tried_again() {
    let receiver = TestReceiver::answering(|_, _| Reply::Status(410)).await;
    let platform = Platform::new().await;
    let integration = acme_integration(&[destination("orders", &receiver.url("/"))]);
    let _running = platform.start_api_and_worker(&integration).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 1).await;
    let error = "the receiver answered 410: the destination is gone".to_owned();
    assert_eq!(attempts(&platform, "orders").await, [(1, Some(410), Some(error.clone()))]);
    assert_eq!(delivery(&platform, "orders").await, ("failed".to_owned(), Some(error)));
    assert_eq!(receiver.deliveries().len(), 1);
}

#[tokio::test]
async fn deliveries_to_a_gone_destination_are_held_until_its_integration_changes() {
    let receiver =
        TestReceiver::answering(|_, delivery| Reply::Status(if delivery.path == "/old" { 410 } else { 200 }))
            .await;
    let platform = Platform::new().await;
    let others = destination("others", &receiver.url("/others"));
    let old = acme_integration(&[destination("orders", &receiver.url("/old")), others.clone()]);
    let _running = platform.start_api_and_worker(&old).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 2).await;
    platform.wait_for_count("SELECT count(*) FROM integrations WHERE gone ? 'orders'", 1).await;
    // What was under way when it was marked may still arrive, and fails too.
    let failed = "SELECT count(*) FROM deliveries WHERE destination = 'orders' AND status = 'failed'";
    let mut posted = 1;
    let mut held = 0;
    wait_until("deliveries that are not sent", async || {
        posted += 1;
        platform.post_acme(&acme_event(&format!("e-{posted}"))).await;
        platform
            .wait_for_count(
                "SELECT count(*) FROM deliveries WHERE destination = 'others' AND status = 'succeeded'",
                posted,
            )
            .await;
        held = posted - platform.count(failed).await;
        held >= 3
    })
    .await;
    let new = acme_integration(&[destination("orders", &receiver.url("/new")), others]);
    platform.apply(&new).await;
    wait_until("what was held", async || receiver.deliveries_to("/new").len() as i64 >= held).await;
    wait_until_finished(&platform, 2 * posted).await;
    assert_eq!(receiver.deliveries_to("/new").len() as i64, posted - platform.count(failed).await);
}

#[tokio::test]
async fn nothing_is_queued_for_a_gone_destination_beside_living_ones() {
    let receiver = TestReceiver::answering(|_, delivery| {
        Reply::Status(if delivery.path == "/orders" { 410 } else { 200 })
    })
    .await;
    let platform = Platform::new().await;
    let names = ["orders", "others"];
    let destinations = names.map(|name| destination(name, &receiver.url(&format!("/{name}"))));
    let _running = platform.start_api_and_worker(&acme_integration(&destinations)).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 2).await;
    assert_eq!(post_to_held(&platform, "orders").await, 0);
    let others = "SELECT count(*) FROM deliveries WHERE destination = 'others' AND finished_at IS NULL";
    platform.wait_for_count(others, 0).await;
    let held = "SELECT count(*) FROM deliveries WHERE destination = 'orders' AND queued_at IS NULL AND finished_at IS NULL";
    assert!(platform.count(held).await >= 20, "they stay so while others are delivered");
}

#[tokio::test]
async fn answer_is_kept_up_to_16_kib_as_text() {
    const KEPT: usize = 16 * 1024;
    let receiver = TestReceiver::answering(|_, delivery| {
        Reply::Body(
            200,
            match delivery.path.as_str() {
                "/short" => "grüße".into(),
                "/exact" => vec![b'x'; KEPT],
                "/long" => vec![b'x'; KEPT + 1],
                "/endless" => vec![b'x'; 50 * 1024 * 1024],
                "/binary" => b"a\0b\xff\xfec".to_vec(),
                "/empty" => Vec::new(),
                // The limit falls into the middle of a character.
                _ => [vec![b'x'; KEPT - 1], "ü".repeat(10).into_bytes()].concat(),
            },
        )
    })
    .await;
    let platform = Platform::new().await;
    let names = ["short", "exact", "long", "endless", "binary", "empty", "cut"];
    let destinations = names.map(|name| destination(name, &receiver.url(&format!("/{name}"))));
    let _running = platform.start_api_and_worker(&acme_integration(&destinations)).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 7).await;
    let kept = async |name: &str| {
        let sql = format!(
            "SELECT response_body FROM delivery_attempts WHERE destination = '{name}' AND attempt_no = 1"
        );
        platform.database.text(&sql).await.expect("an attempt with a body")
    };
    assert_eq!(kept("short").await, "grüße");
    assert_eq!(kept("exact").await, "x".repeat(KEPT));
    assert_eq!(kept("long").await, "x".repeat(KEPT));
    assert_eq!(kept("endless").await, "x".repeat(KEPT));
    assert_eq!(kept("binary").await, "a\u{fffd}b\u{fffd}\u{fffd}c");
    assert_eq!(kept("empty").await, "");
    assert_eq!(kept("cut").await, "x".repeat(KEPT - 1));
    assert_eq!(platform.count("SELECT count(*) FROM deliveries WHERE status = 'succeeded'").await, 7);
}

#[tokio::test]
async fn invalid_responses_are_failures_and_recorded_with_their_error() {
    let receiver = RawReceiver::new(|path| match path {
        "/closes" => Some(Vec::new()),
        "/garbage" => Some(b"\x00\x01 nonsense \r\n\r\n".to_vec()),
        "/huge-headers" => {
            Some(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(1_000_000)).into_bytes())
        }
        // The status arrives, and the body never does.
        "/no-body" => Some(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345".to_vec()),
        _ => None,
    })
    .await;
    let platform = Platform::new().await;
    let names = ["closes", "garbage", "huge-headers", "no-body"];
    let once = "{maxAttempts: 1}";
    let destinations = names
        .map(|name| destination_with(name, &receiver.url(&format!("/{name}")), once, "timeoutSeconds: 2,"));
    let (_api, mut worker) = platform.start_api_and_worker(&acme_integration(&destinations)).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 4).await;
    for name in &names[..3] {
        let (status, error) = delivery(&platform, name).await;
        let error = error.expect("an error");
        assert_eq!(status, "failed", "{name}");
        assert!(error.starts_with("gave up after 1 attempts; the last one: "), "{name}: {error}");
    }
    // A receiver that has responded with 2xx has accepted the event.
    assert_eq!(delivery(&platform, "no-body").await.0, "succeeded");
    assert!(worker.is_running());
}

#[tokio::test]
async fn no_more_requests_are_in_flight_than_the_destination_allows() {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let held = std::sync::Arc::clone(&gate);
    let receiver = TestReceiver::answering(move |_, delivery| match delivery.path.as_str() {
        "/narrow" => Reply::WhenReleased(200, std::sync::Arc::clone(&held)),
        _ => Reply::Status(200),
    })
    .await;
    let platform = Platform::new().await;
    let retry = "{maxAttempts: 1}";
    let destinations = [
        destination_with("narrow", &receiver.url("/narrow"), retry, "timeoutSeconds: 60, maxConcurrency: 3,"),
        destination_with("wide", &receiver.url("/wide"), retry, ""),
    ];
    let _running = platform.start_api_and_worker(&acme_integration(&destinations)).await;
    for number in 0..20 {
        assert_eq!(platform.post_acme(&acme_event(&format!("e-{number}"))).await.status, 202);
    }
    // By the time the other destination has everything, this one could have received too much.
    wait_until("20 deliveries to the other destination", || async {
        receiver.deliveries_to("/wide").len() == 20
    })
    .await;
    wait_until("3 in flight", || async { receiver.deliveries_to("/narrow").len() == 3 }).await;
    let processing = "SELECT count(*) FROM deliveries WHERE destination = 'narrow' AND status = 'processing'";
    assert_eq!(platform.count(processing).await, 3);
    for released in 1..=17 {
        gate.add_permits(1);
        let in_flight = 3 + released;
        wait_until("the next one", || async { receiver.deliveries_to("/narrow").len() >= in_flight }).await;
        assert_eq!(receiver.deliveries_to("/narrow").len(), in_flight);
    }
    gate.add_permits(3);
    wait_until_finished(&platform, 40).await;
    assert_eq!(receiver.deliveries_to("/narrow").len(), 20);
}
