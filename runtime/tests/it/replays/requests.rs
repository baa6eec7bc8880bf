//! What is asked of replays: to begin, to pause, to go on, to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use grapnel_testing::{Reply, TestReceiver, acme_event, wait_until};
use serde_json::json;
use tokio::sync::Semaphore;

use super::{
    ask, audited, change_rate, counts, failed, insert_failed, integration, post, read, start, wait_for_state,
};
use crate::harness::Platform;

#[tokio::test]
async fn a_dry_run_counts_what_is_fed_then() {
    let receiver = TestReceiver::new().await;
    let platform = Platform::new().await;
    let _processes = platform.start_api_and_worker(&integration(&receiver.url("/"), 100)).await;
    insert_failed(&platform, "e", 25).await;

    let answer = post(&platform, "/api/v1/replays", &failed(&json!({"dryRun": true}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let estimate = answer.json()["data"].clone();
    assert_eq!((&estimate["matched"], &estimate["isExact"]), (&json!(25), &json!(true)));
    assert_eq!(estimate["destinations"][0]["name"], "orders");
    assert_eq!(estimate["samples"].as_array().expect("samples").len(), 10);
    assert!(estimate["oldest"].as_str() <= estimate["newest"].as_str());
    assert_eq!(platform.count("SELECT count(*) FROM replay_jobs").await, 0);

    let id = start(&platform, &failed(&json!({"expectedCount": 25}))).await;
    let replay = wait_for_state(&platform, &id, "Completed").await;
    assert_eq!(counts(&replay), [25, 25, 0, 0]);
    assert_eq!((&replay["counters"]["matched"], &replay["counters"]["remaining"]), (&json!(25), &json!(0)));
    assert_eq!(replay["destinations"][0]["isDone"], true);
    assert_eq!(audited(&platform, &id).await, ["replay.created key:current", "replay.finished system"]);
    let listed = platform.get("/api/v1/replays?state=Completed").await.json();
    assert_eq!(listed["data"][0]["id"], json!(id));
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let platform = Platform::new().await;
    let _api = platform.start_api(&integration("http://127.0.0.1:9/", 4)).await;
    insert_failed(&platform, "e", 20).await;
    let refused = async |members| post(&platform, "/api/v1/replays", &failed(&members)).await;

    for (members, field) in [
        (json!({"select": "Everything"}), "select"),
        (json!({"ratePerSecond": 5001}), "ratePerSecond"),
        (json!({"receivedAfter": "yesterday"}), "receivedAfter"),
        (json!({"filter": "payload.total >"}), "filter"),
        (json!({"destinations": ["orders", "invoices"]}), "destinations"),
        (json!({"namespace": "test"}), "namespace"),
        (json!({"unknown": 1}), "unknown"),
    ] {
        let answer = refused(members).await;
        assert_eq!((answer.status, answer.field().as_str()), (400, field), "{}", answer.text);
    }
    assert_eq!(refused(json!({"integration": "test/other"})).await.status, 404);
    for members in [json!({"maxDeliveries": 19}), json!({"expectedCount": 30}), json!({"expectedCount": 17})]
    {
        let answer = refused(members).await;
        assert_eq!((answer.status, answer.code().as_str()), (409, "CONFLICT"), "{}", answer.text);
    }
    assert_eq!(platform.count("SELECT count(*) FROM replay_jobs").await, 0);
    let unknown = "/api/v1/replays/01935b6e-7a00-8000-8000-000000000001";
    assert_eq!(platform.get(unknown).await.status, 404);
}

#[tokio::test]
async fn a_paused_replay_feeds_nothing_until_it_is_resumed() {
    let receiver = TestReceiver::new().await;
    let platform = Platform::new().await;
    let _processes = platform.start_api_and_worker(&integration(&receiver.url("/"), 100)).await;
    insert_failed(&platform, "e", 100).await;
    let id = start(&platform, &failed(&json!({"ratePerSecond": 20}))).await;
    receiver.wait_for(5).await;

    let paused = ask(&platform, &id, "pause").await;
    assert_eq!(paused["state"], "Paused");
    let fed = counts(&paused)[0];
    assert!((5..90).contains(&fed), "{paused}");
    // A webhook that comes afterwards is delivered, and still nothing is fed.
    assert_eq!(platform.post_acme(&acme_event("live")).await.status, 202);
    wait_until("all that was fed to end", async || {
        let replay = read(&platform, &id).await;
        counts(&replay)[1] == fed
    })
    .await;
    receiver.wait_for(usize::try_from(fed).expect("few") + 1).await;
    assert_eq!(counts(&read(&platform, &id).await)[0], fed);

    assert_eq!(change_rate(&platform, &id, 0).await, 400);
    assert_eq!(change_rate(&platform, &id, 5000).await, 200);
    assert_eq!(ask(&platform, &id, "resume").await["state"], "Running");
    let replay = wait_for_state(&platform, &id, "Completed").await;
    assert_eq!(counts(&replay), [100, 100, 0, 0]);
    assert_eq!(receiver.deliveries().len(), 101);
    let late = post(&platform, &format!("/api/v1/replays/{id}/pause"), &json!({})).await;
    assert_eq!(late.status, 409, "{}", late.text);
    let actions = audited(&platform, &id).await;
    let expected =
        ["created", "paused", "rate_changed", "resumed"].map(|action| format!("replay.{action} key:current"));
    assert_eq!(actions[..4], expected);
}

#[tokio::test]
async fn a_cancelled_replay_leaves_at_most_its_window() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let receiver = TestReceiver::answering(move |_, _| Reply::WhenReleased(200, Arc::clone(&held))).await;
    let platform = Platform::new().await;
    let _processes = platform.start_api_and_worker(&integration(&receiver.url("/"), 40)).await;
    insert_failed(&platform, "e", 60).await;
    let id = start(&platform, &failed(&json!({}))).await;
    // A quarter of 40, with one worker.
    receiver.wait_for(10).await;
    assert_eq!(ask(&platform, &id, "cancel").await["state"], "Cancelling");
    gate.add_permits(60);
    let replay = wait_for_state(&platform, &id, "Cancelled").await;
    assert_eq!(counts(&replay), [10, 10, 0, 0]);
    assert_eq!(receiver.deliveries().len(), 10);
    assert_eq!(platform.count("SELECT count(*) FROM deliveries WHERE status = 'failed'").await, 50);
    assert_eq!(
        audited(&platform, &id).await,
        ["replay.created key:current", "replay.cancelled key:current", "replay.finished system"]
    );
}

#[tokio::test]
async fn a_delivery_that_waits_for_a_retry_ends_when_its_replay_is_cancelled() {
    let receiver = TestReceiver::answering(|_, _| Reply::Status(500)).await;
    let platform = Platform::new().await;
    let destination = format!(
        "{{name: orders, url: '{}', retry: {{maxAttempts: 3, initialDelaySeconds: 600}}}}",
        receiver.url("/")
    );
    let _processes = platform.start_api_and_worker(&crate::harness::acme_integration(&[destination])).await;
    insert_failed(&platform, "e", 3).await;
    let id = start(&platform, &failed(&json!({}))).await;
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'retrying'", 3).await;
    ask(&platform, &id, "cancel").await;
    let replay = wait_for_state(&platform, &id, "Cancelled").await;
    assert_eq!(counts(&replay), [3, 0, 3, 0]);
    let ended =
        "SELECT count(*) FROM deliveries WHERE status = 'failed' AND last_error = 'the replay was cancelled'";
    assert_eq!(platform.count(ended).await, 3);
}

#[tokio::test]
async fn a_replay_whose_attempts_mostly_fail_pauses_itself() {
    let status = Arc::new(AtomicU16::new(500));
    let answered = Arc::clone(&status);
    let receiver = TestReceiver::answering(move |_, _| Reply::Status(answered.load(Ordering::Relaxed))).await;
    let platform = Platform::new().await;
    let _processes = platform.start_api_and_worker(&integration(&receiver.url("/"), 8)).await;
    insert_failed(&platform, "e", 80).await;
    let id = start(&platform, &failed(&json!({}))).await;
    let replay = wait_for_state(&platform, &id, "Paused").await;
    assert_eq!(replay["stateReason"], "TooManyFailures");
    assert!(replay["stateMessage"].as_str().expect("a message").contains("of the last 50 attempts failed"));
    let fed = counts(&replay)[0];
    assert!((26..=32).contains(&fed), "{replay}");
    assert_eq!(audited(&platform, &id).await, ["replay.created key:current", "replay.paused system"]);

    status.store(200, Ordering::Relaxed);
    ask(&platform, &id, "resume").await;
    let replay = wait_for_state(&platform, &id, "Completed").await;
    let [all_fed, succeeded, failed, skipped] = counts(&replay);
    assert_eq!((all_fed, succeeded + failed, skipped), (80, 80, 0));
    assert_eq!(
        platform.count("SELECT count(*) FROM deliveries WHERE status = 'failed'").await,
        failed.cast_signed()
    );
}
