//! What replays select.

use grapnel_testing::{TestReceiver, acme_event};
use serde_json::{Value, json};

use super::{ask, change_rate, counts, failed, insert_failed, orders, post, start, wait_for_state};
use crate::harness::{Platform, acme_integration};

async fn matched(platform: &Platform, members: Value) -> u64 {
    let mut body = failed(&members);
    body["dryRun"] = json!(true);
    let answer = post(platform, "/api/v1/replays", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["data"]["matched"].as_u64().expect("a count")
}

#[tokio::test]
async fn events_of_before_are_delivered_to_a_destination_that_was_added() {
    let receiver = TestReceiver::new().await;
    let platform = Platform::new().await;
    let _processes = platform.start_api_and_worker(&acme_integration(&[orders(&receiver.url("/"), 8)])).await;
    for number in 1..=5 {
        assert_eq!(platform.post_acme(&acme_event(&format!("e-{number}"))).await.status, 202);
    }
    receiver.wait_for(5).await;
    let copies = format!(
        "{{name: copies, url: '{}', filter: \"event.externalId != 'e-2'\"}}",
        receiver.url("/copies")
    );
    platform.apply(&acme_integration(&[orders(&receiver.url("/"), 8), copies])).await;
    let missing = json!({"select": "Missing"});
    assert_eq!(matched(&platform, missing.clone()).await, 4);
    let id = start(&platform, &failed(&missing)).await;
    let replay = wait_for_state(&platform, &id, "Completed").await;
    assert_eq!(counts(&replay), [4, 4, 0, 0]);
    let delivered: Vec<String> = receiver
        .deliveries_to("/copies")
        .iter()
        .map(|delivery| delivery.header("x-external-event-id").to_owned())
        .collect();
    assert_eq!(delivered.len(), 4);
    assert!(!delivered.contains(&"e-2".to_owned()));
    // Nothing is missing any more.
    assert_eq!(matched(&platform, missing).await, 0);
}

#[tokio::test]
async fn what_a_filter_left_out_is_delivered_when_it_is_asked_for() {
    let receiver = TestReceiver::new().await;
    let platform = Platform::new().await;
    let strict = format!("{{name: orders, url: '{}', filter: 'false'}}", receiver.url("/"));
    let _processes = platform.start_api_and_worker(&acme_integration(&[strict])).await;
    for number in 1..=3 {
        assert_eq!(platform.post_acme(&acme_event(&format!("e-{number}"))).await.status, 202);
    }
    assert_eq!(matched(&platform, json!({"select": "All"})).await, 0);
    assert_eq!(matched(&platform, json!({"select": "Filtered"})).await, 3);
    let id = start(&platform, &failed(&json!({"select": "Filtered"}))).await;
    assert_eq!(counts(&wait_for_state(&platform, &id, "Completed").await), [3, 3, 0, 0]);
    assert_eq!(receiver.deliveries().len(), 3);
}

#[tokio::test]
async fn each_condition_selects_by_itself() {
    let platform = Platform::new().await;
    let _api = platform.start_api(&acme_integration(&[orders("http://127.0.0.1:9/", 8)])).await;
    insert_failed(&platform, "e", 10).await;
    for change in [
        "UPDATE events SET event_type = 'order.paid' WHERE external_event_id IN ('e-1', 'e-2', 'e-3')",
        "UPDATE events SET event_type = 'order_test', subject = 'Nr. 50%' WHERE external_event_id = 'e-4'",
        "UPDATE deliveries SET last_error = 'Timed out' WHERE event_id = (SELECT id FROM events WHERE external_event_id = 'e-5')",
        "INSERT INTO delivery_attempts (id, event_id, integration_id, destination, attempt_no, succeeded, http_status, duration_ms,
            triggered_by, scheduled_at, started_at)
        SELECT uuidv7_now(), id, integration_id, 'orders', no, false, status, 1, 'retry', now(), now()
        FROM events, (VALUES (1, 503), (2, 404)) AS attempt (no, status) WHERE external_event_id = 'e-6'",
    ] {
        assert!(platform.database.execute(change).await > 0);
    }
    let first = platform.database.text("SELECT min(id::text) FROM events").await.expect("an event");
    for (members, count) in [
        (json!({}), 10),
        (json!({"eventTypes": ["order.p*"]}), 3),
        (json!({"eventTypes": ["order.*", "!order.paid"]}), 6),
        (json!({"eventTypes": ["order_*"]}), 1),
        (json!({"subject": "nr. 50%"}), 1),
        (json!({"errorContains": "timed OUT"}), 1),
        (json!({"httpStatus": 404}), 1),
        (json!({"httpStatus": 503}), 0),
        (json!({"filter": "event.externalId in ['e-7', 'e-8'] || event.type == 'order.paid'"}), 5),
        (json!({"filter": "payload.missing == 1"}), 0),
        (json!({"receivedBefore": "2021-01-01T00:00:00Z"}), 0),
        (json!({"destinations": ["orders"]}), 10),
    ] {
        assert_eq!(matched(&platform, members.clone()).await, count, "{members}");
    }
    let mut named = failed(&json!({"eventIds": [first], "dryRun": true}));
    named.as_object_mut().expect("an object").remove("receivedAfter");
    let answer = post(&platform, "/api/v1/replays", &named).await;
    assert_eq!(answer.json()["data"]["matched"], 1, "{}", answer.text);
    let mut of_namespace = failed(&json!({"namespace": "test", "dryRun": true}));
    of_namespace.as_object_mut().expect("an object").remove("integration");
    let answer = post(&platform, "/api/v1/replays", &of_namespace).await;
    assert_eq!(answer.json()["data"]["matched"], 10, "{}", answer.text);
}

#[tokio::test]
async fn a_replay_that_meets_more_than_it_may_feed_fails() {
    let receiver = TestReceiver::new().await;
    let platform = Platform::new().await;
    let _processes =
        platform.start_api_and_worker(&acme_integration(&[orders(&receiver.url("/"), 100)])).await;
    insert_failed(&platform, "e", 10).await;
    let id = start(&platform, &failed(&json!({"ratePerSecond": 1, "maxDeliveries": 10}))).await;
    let paused = ask(&platform, &id, "pause").await;
    assert!(counts(&paused)[0] < 4, "{paused}");
    // As when they had not been counted.
    let limit = "UPDATE replay_jobs SET max_deliveries = 4, spec = jsonb_set(spec::jsonb, '{maxDeliveries}', '4')::json";
    assert_eq!(platform.database.execute(limit).await, 1);
    assert_eq!(change_rate(&platform, &id, 5000).await, 200);
    ask(&platform, &id, "resume").await;
    let replay = wait_for_state(&platform, &id, "Failed").await;
    assert_eq!(replay["stateReason"], "LimitReached");
    assert_eq!(counts(&replay), [4, 4, 0, 0]);
}
