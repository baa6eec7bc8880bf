//! How deliveries are fed: each once, in order, and beside what happens to them meanwhile.

use std::collections::BTreeSet;

use grapnel_testing::{Reply, TestReceiver};
use serde_json::json;

use super::{counts, failed, insert_failed, integration, orders, post, start, wait_for_state};
use crate::harness::{Platform, acme_integration};

#[tokio::test]
async fn deliveries_come_in_the_order_that_was_asked_for_and_say_whose_they_are() {
    let receiver = TestReceiver::new().await;
    let platform = Platform::new().await;
    let _processes = platform.start_api_and_worker(&integration(&receiver.url("/"), 1)).await;
    insert_failed(&platform, "e", 12).await;
    for order in ["OldestFirst", "NewestFirst"] {
        let before = receiver.deliveries().len();
        let id = start(&platform, &failed(&json!({"select": "All", "order": order}))).await;
        wait_for_state(&platform, &id, "Completed").await;
        let deliveries = receiver.deliveries().split_off(before);
        assert!(deliveries.iter().all(|delivery| delivery.header("grapnel-replay-id") == id));
        let ids: Vec<String> = deliveries.iter().map(|one| one.header("webhook-id").to_owned()).collect();
        let mut expected = platform.database.texts("SELECT id::text FROM events ORDER BY id").await;
        if order == "NewestFirst" {
            expected.reverse();
        }
        assert_eq!(ids, expected, "{order}");
    }
    // A replay of one event is none of a job.
    let event = platform.database.text("SELECT max(id::text) FROM events").await.expect("an event");
    let replayed =
        post(&platform, &format!("/api/v1/events/{event}/replay"), &json!({"reason": "again"})).await;
    assert_eq!(replayed.status, 202, "{}", replayed.text);
    let last = receiver.wait_for(25).await.pop().expect("a delivery");
    assert_eq!((last.header("webhook-id"), last.header("grapnel-replay-id")), (&*event, ""));
}

#[tokio::test]
async fn two_replays_of_the_same_events_end_and_feed_each_delivery_once() {
    let receiver = TestReceiver::new().await;
    let platform = Platform::new().await;
    let _processes = platform.start_api_and_worker(&integration(&receiver.url("/"), 100)).await;
    insert_failed(&platform, "e", 40).await;
    let body = failed(&json!({"ratePerSecond": 100}));
    let (one, other) = (start(&platform, &body).await, start(&platform, &body).await);
    let one = wait_for_state(&platform, &one, "Completed").await;
    let other = wait_for_state(&platform, &other, "Completed").await;
    let ([fed, succeeded, _, skipped], [other_fed, other_succeeded, _, other_skipped]) =
        (counts(&one), counts(&other));
    assert_eq!(fed + other_fed, 40, "{one} {other}");
    assert_eq!((succeeded, other_succeeded), (fed, other_fed));
    assert_eq!(one["counters"]["matched"], json!(fed + skipped), "{one}");
    assert_eq!(other["counters"]["matched"], json!(other_fed + other_skipped), "{other}");
    assert_eq!(receiver.deliveries().len(), 40);
    assert_eq!(platform.count("SELECT count(*) FROM deliveries WHERE attempts = 4").await, 40);
}

#[tokio::test]
async fn what_is_left_is_skipped_when_the_destination_is_removed() {
    let receiver = TestReceiver::new().await;
    let platform = Platform::new().await;
    let others = format!("{{name: others, url: '{}'}}", receiver.url("/others"));
    let both = acme_integration(&[orders(&receiver.url("/"), 100), others.clone()]);
    let _processes = platform.start_api_and_worker(&both).await;
    insert_failed(&platform, "e", 50).await;
    let id = start(&platform, &failed(&json!({"ratePerSecond": 5}))).await;
    receiver.wait_for(2).await;
    platform.apply(&acme_integration(&[others])).await;
    let replay = wait_for_state(&platform, &id, "Completed").await;
    let [fed, ..] = counts(&replay);
    assert!((2..50).contains(&fed), "{replay}");
    assert_eq!(replay["counters"]["skipped"]["gone"], json!(50 - fed), "{replay}");
}

#[tokio::test]
async fn events_of_a_day_that_expires_and_erased_ones_are_skipped() {
    let receiver = TestReceiver::new().await;
    let platform = Platform::new().await;
    let _processes = platform.start_api_and_worker(&integration(&receiver.url("/"), 100)).await;
    insert_failed(&platform, "e", 6).await;
    platform
        .database
        .execute("UPDATE events SET erased_at = now(), erased_by = 'test' WHERE external_event_id = 'e-1'")
        .await;
    let id = start(&platform, &failed(&json!({}))).await;
    assert_eq!(counts(&wait_for_state(&platform, &id, "Completed").await), [5, 5, 0, 0]);

    insert_failed(&platform, "f", 4).await;
    platform
        .database
        .execute("INSERT INTO expired_days (day) VALUES ((now() AT TIME ZONE 'UTC')::date)")
        .await;
    let id = start(&platform, &failed(&json!({}))).await;
    let replay = wait_for_state(&platform, &id, "Completed").await;
    assert_eq!(counts(&replay), [0, 0, 0, 4]);
    assert_eq!(replay["counters"]["skipped"]["gone"], 4);
    assert_eq!(receiver.deliveries().len(), 5);
}

#[tokio::test]
async fn a_destination_that_takes_nothing_does_not_hold_up_another() {
    let receiver = TestReceiver::answering(|_, delivery| match delivery.path.as_str() {
        "/slow" => Reply::Hang,
        _ => Reply::Status(200),
    })
    .await;
    let platform = Platform::new().await;
    let slow =
        format!("{{name: slow, url: '{}', timeoutSeconds: 30, maxConcurrency: 4}}", receiver.url("/slow"));
    let both = acme_integration(&[orders(&receiver.url("/"), 100), slow]);
    let _processes = platform.start_api_and_worker(&both).await;
    insert_failed(&platform, "e", 30).await;
    platform
        .database
        .execute(
            "INSERT INTO deliveries (event_id, destination, integration_id, status, attempts, finished_at, last_error, updated_at)
            SELECT event_id, 'slow', integration_id, 'failed', 3, now(), 'HTTP 500', now() FROM deliveries",
        )
        .await;
    let id = start(&platform, &failed(&json!({}))).await;
    platform
        .wait_for_count(
            "SELECT count(*) FROM deliveries WHERE destination = 'orders' AND status = 'succeeded'",
            30,
        )
        .await;
    // A quarter of 4.
    assert_eq!(receiver.deliveries_to("/slow").len(), 1);
    let replay = super::read(&platform, &id).await;
    let fed: BTreeSet<(&str, u64)> = replay["destinations"]
        .as_array()
        .expect("destinations")
        .iter()
        .filter_map(|one| Some((one["name"].as_str()?, one["fed"].as_u64()?)))
        .collect();
    assert_eq!(fed, BTreeSet::from([("orders", 30), ("slow", 1)]));
}
