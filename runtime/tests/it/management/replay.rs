//! `POST /events/{id}/replay`: what is accepted, and what it does to a delivery in each state.

use grapnel_core::ids::IntegrationId;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures::FutureExt;
use grapnel::http::KEY_HEADER;
use grapnel_core::delivery::state::NextState;
use uuid::Uuid;

use super::harness::{Answer, Api, KEY, NOTHING, event, for_destinations, later, send};

pub(crate) async fn replay(api: &Api, id: Uuid) -> Uuid {
    accepted(&api.post(&format!("/events/{id}/replay"), r#"{"reason":"because"}"#).await)
}

pub(crate) async fn replay_to(api: &Api, id: Uuid, destination: &str) -> Uuid {
    let body = serde_json::json!({"reason": "because", "destination": destination}).to_string();
    accepted(&api.post(&format!("/events/{id}/replay"), &body).await)
}

#[track_caller]
fn accepted(answer: &Answer) -> Uuid {
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    answer.json["data"]["replayRequestId"].as_str().expect("an id").parse().expect("a UUID")
}

/// The delivery's row, as text: what a replay may change.
async fn row(api: &Api, id: Uuid, destination: &str) -> String {
    let sql = format!(
        "SELECT concat_ws(' ', status, 'attempts=' || attempts, 'budget_start=' || budget_start, triggered_by,
            CASE WHEN due_at <= now() THEN 'due' WHEN due_at IS NOT NULL THEN 'later' END,
            CASE WHEN queued_at IS NOT NULL THEN 'queued' END, CASE WHEN lease_id IS NOT NULL THEN 'leased' END,
            CASE WHEN finished_at IS NOT NULL THEN 'finished' END)
        FROM deliveries WHERE event_id = '{id}' AND destination = '{destination}'"
    );
    api.text(&sql).await.expect("a row")
}

/// Takes the due deliveries, as the dispatcher does, and returns how many there are.
pub(crate) async fn dispatch(api: &Api) -> usize {
    let taken = grapnel_store::deliveries::take_due(&api.db, 100).await.expect("a commit");
    let replays: Vec<_> = taken.iter().filter_map(|taken| taken.replay_request_id).collect();
    grapnel_store::replays::mark_dispatched(&api.db, &replays).await.expect("a commit");
    taken.len()
}

#[tokio::test]
async fn a_finished_delivery_is_due_again_with_a_fresh_budget() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    for (end, before) in [(NextState::Succeeded, "succeeded"), (NextState::Failed, "failed")] {
        let id = api.store(event(integration)).await;
        api.attempt(id, "orders", end).await;
        assert!(row(&api, id, "orders").await.starts_with(before));
        let request = replay(&api, id).await;
        assert_eq!(row(&api, id, "orders").await, "pending attempts=1 budget_start=1 replay due");
        let read = api.get(&format!("/replay-requests/{request}")).await;
        assert_eq!(read.json["data"]["status"], "queued");
        assert_eq!(api.actions(request).await, ["replay.requested"]);
        assert_eq!(dispatch(&api).await, 1);
        let read = api.get(&format!("/replay-requests/{request}")).await;
        assert_eq!(read.json["data"]["status"], "dispatched");
        let job = &api.get(&format!("/events/{id}/status")).await.json["data"]["jobs"][1];
        assert_eq!((&job["triggeredBy"], &job["attemptNo"]), (&"replay".into(), &2.into()));
        api.attempt(id, "orders", NextState::Succeeded).await;
        let read = api.get(&format!("/replay-requests/{request}")).await;
        assert_eq!(read.json["data"]["status"], "completed");
        assert!(read.json["data"]["processedAt"].is_string());
        assert_eq!(api.actions(request).await, ["replay.requested", "replay.dispatched", "replay.completed"]);
    }
}

#[tokio::test]
async fn a_delivery_that_waits_for_a_retry_is_due_at_once() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let id = api.store(event(integration)).await;
    api.attempt(id, "orders", later()).await;
    assert_eq!(row(&api, id, "orders").await, "retrying attempts=1 budget_start=0 retry later");
    let request = replay(&api, id).await;
    assert_eq!(row(&api, id, "orders").await, "pending attempts=1 budget_start=1 replay due");
    assert_eq!(api.actions(request).await, ["replay.requested"]);
}

#[tokio::test]
async fn a_queued_delivery_stays_queued_and_the_replay_is_dispatched() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let id = api.store(event(integration)).await;
    let request = replay(&api, id).await;
    assert_eq!(row(&api, id, "orders").await, "pending attempts=0 budget_start=0 replay queued");
    assert_eq!(api.actions(request).await, ["replay.requested", "replay.dispatched"]);
    assert_eq!(api.get(&format!("/replay-requests/{request}")).await.json["data"]["status"], "dispatched");
    assert_eq!(dispatch(&api).await, 0);
    api.attempt(id, "orders", NextState::Succeeded).await;
    assert_eq!(api.get(&format!("/replay-requests/{request}")).await.json["data"]["status"], "completed");
}

#[tokio::test]
async fn a_delivery_in_flight_counts_as_the_replays_own() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let id = api.store(event(integration)).await;
    let claimed = api.claim(id, "orders").await;
    let request = replay(&api, id).await;
    assert_eq!(row(&api, id, "orders").await, "processing attempts=0 budget_start=0 replay queued leased");
    assert_eq!(api.actions(request).await, ["replay.requested", "replay.dispatched"]);
    // Nothing is sent a second time, and the result of the attempt is taken.
    assert_eq!(dispatch(&api).await, 0);
    assert!(api.finish(&claimed, "orders", NextState::Succeeded).await);
    assert_eq!(api.get(&format!("/replay-requests/{request}")).await.json["data"]["status"], "completed");
    let jobs = api.get(&format!("/events/{id}/status")).await.json["data"]["jobs"].clone();
    assert_eq!(jobs.as_array().unwrap().len(), 1);
    assert_eq!(jobs[0]["triggeredBy"], "replay");
}

#[tokio::test]
async fn a_claim_that_expired_is_taken_back() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let id = api.store(event(integration)).await;
    let claimed = api.claim(id, "orders").await;
    api.execute("UPDATE deliveries SET lease_until = now() - interval '1 second'").await;
    replay(&api, id).await;
    assert_eq!(row(&api, id, "orders").await, "pending attempts=0 budget_start=0 replay due");
    assert!(!api.finish(&claimed, "orders", NextState::Succeeded).await);
}

#[tokio::test]
async fn all_destinations_are_replayed_unless_one_is_named() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["a", "b"]).await;
    let id = api.store(for_destinations(event(integration), &["a", "b"])).await;
    api.attempt(id, "a", NextState::Failed).await;
    api.attempt(id, "b", NextState::Succeeded).await;
    let request = replay_to(&api, id, "a").await;
    assert!(row(&api, id, "a").await.starts_with("pending"));
    assert!(row(&api, id, "b").await.starts_with("succeeded"));
    assert_eq!(api.get(&format!("/replay-requests/{request}")).await.json["data"]["destination"], "a");
    replay(&api, id).await;
    assert!(row(&api, id, "b").await.starts_with("pending"));
}

#[tokio::test]
async fn the_request_is_audited_with_who_and_why() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["a", "b"]).await;
    let id = api.store(for_destinations(event(integration), &["a", "b"])).await;
    let body = r#"{"reason":"lost in \"the\" fire","requestedBy":"ops","destination":"b"}"#;
    let answer = api.post(&format!("/events/{id}/replay"), body).await;
    let request = accepted(&answer);
    assert_eq!(answer.json["data"]["eventId"], id.to_string());
    let entries = api.get(&format!("/audit-entries?entityId={request}&action=replay.requested")).await;
    let entry = &entries.data()[0];
    assert_eq!((&entry["actor"], &entry["entityType"]), (&"key:current".into(), &"replay_request".into()));
    let details = serde_json::json!({
        "eventId": id, "requestedBy": "ops", "reason": "lost in \"the\" fire", "destination": "b",
        "destinations": ["b"], "sourceAddress": "0.0.0.0",
    });
    assert_eq!(entry["details"], details);
    // The dispatcher is woken.
    assert!(api.replays.notified().now_or_never().is_some());
}

#[tokio::test]
async fn nothing_is_stored_or_woken_by_a_refusal() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let id = api.store(event(integration)).await;
    let path = format!("/events/{id}/replay");
    for (body, field) in [
        ("", "body"),
        ("nonsense", "body"),
        ("[]", "body"),
        ("{}", "reason"),
        (r#"{"reason":"four"}"#, "reason"),
        (r#"{"reason":null}"#, "reason"),
        (r#"{"reason":"a \u0000 b"}"#, "reason"),
        (r#"{"reason":"because","requestedBy":"x"}"#, "requestedBy"),
        (r#"{"reason":"because","requestedBy":"\u0000\u0000"}"#, "requestedBy"),
        (r#"{"reason":"because","requestedBy":"grapnel-controller"}"#, "requestedBy"),
        (r#"{"reason":"because","requestedBy":"System"}"#, "requestedBy"),
        (r#"{"reason":"because","destination":7}"#, "destination"),
        (r#"{"reason":"because","destination":"elsewhere"}"#, "destination"),
        (r#"{"reason":"because","force":true}"#, "force"),
    ] {
        api.post(&path, body).await.invalid(field);
    }
    let long = format!(r#"{{"reason":"because","requestedBy":"{}"}}"#, "x".repeat(121));
    api.post(&path, &long).await.invalid("requestedBy");
    assert_eq!(api.ids("/replay-requests").await, NOTHING);
    assert_eq!(row(&api, id, "orders").await, "pending attempts=0 budget_start=0 webhook queued");
    assert!(api.replays.notified().now_or_never().is_none());
}

#[tokio::test]
async fn the_body_is_small_json() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let id = api.store(event(integration)).await;
    let post = async |content_type: Option<&str>, body: Body| {
        let mut request = Request::post(format!("/events/{id}/replay")).header(KEY_HEADER, KEY);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        send(&api.router, request.body(body).unwrap()).await
    };
    let body = || Body::from(r#"{"reason":"because"}"#);
    for fine in [None, Some(""), Some("application/json; charset=utf-8"), Some("application/vnd.x+JSON")] {
        post(fine, body()).await.expect(StatusCode::ACCEPTED);
    }
    for other in ["text/plain", "application/x-www-form-urlencoded", "json", "application/jsonx"] {
        post(Some(other), body()).await.refused(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    let padded = |length: usize| format!("{:length$}", r#"{"reason":"because"}"#);
    post(None, Body::from(padded(16 * 1024))).await.expect(StatusCode::ACCEPTED);
    post(None, Body::from(padded(16 * 1024 + 1))).await.refused(413, "PAYLOAD_TOO_LARGE");
    // Without an announced length.
    let chunks = futures::stream::iter(
        padded(16 * 1024 + 1)
            .into_bytes()
            .chunks(1000)
            .map(|chunk| Ok::<_, std::io::Error>(bytes::Bytes::copy_from_slice(chunk)))
            .collect::<Vec<_>>(),
    );
    post(None, Body::from_stream(chunks)).await.refused(413, "PAYLOAD_TOO_LARGE");
    let broken = futures::stream::iter([Err::<bytes::Bytes, _>(std::io::Error::other("gone"))]);
    post(None, Body::from_stream(broken)).await.invalid("body");
}

#[tokio::test]
async fn what_no_worker_would_take_is_a_conflict() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["a", "b"]).await;
    let id = api.store(for_destinations(event(integration), &["a", "b"])).await;
    let path = format!("/events/{id}/replay");
    let all = r#"{"reason":"because"}"#;
    let only_a = r#"{"reason":"because","destination":"a"}"#;

    // The removal of a destination ends its delivery; the other is still replayed.
    api.write_integration(integration, "acme", "Active", &["b"]).await;
    api.post(&path, only_a).await.refused(409, "CONFLICT");
    let request = accepted(&api.post(&path, all).await);
    assert!(row(&api, id, "a").await.starts_with("failed"));
    assert!(row(&api, id, "b").await.starts_with("pending attempts=0 budget_start=0 replay"));
    api.attempt(id, "b", NextState::Succeeded).await;
    // What was left out does not make it fail.
    assert_eq!(api.get(&format!("/replay-requests/{request}")).await.json["data"]["status"], "completed");

    api.write_integration(integration, "acme", "Active", &["c"]).await;
    api.post(&path, all).await.refused(409, "CONFLICT");
    api.write_integration(integration, "acme", "Disabled", &["a", "b"]).await;
    api.post(&path, all).await.refused(409, "CONFLICT");
    api.post(&path, r#"{"reason":"because","destination":"x"}"#).await.invalid("destination");
    api.write_integration(integration, "acme", "DeliveryPaused", &["a", "b"]).await;
    accepted(&api.post(&path, all).await);
    assert!(
        grapnel_store::integrations::remove(&api.db, IntegrationId::new(integration), "test").await.unwrap()
    );
    api.post(&path, all).await.refused(409, "CONFLICT");
    assert_eq!(row(&api, id, "b").await, "failed attempts=1 budget_start=1 replay finished");
}

#[tokio::test]
async fn a_destination_that_was_added_later_gets_what_waited_for_its_old_name() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["old"]).await;
    let id = api.store(for_destinations(event(integration), &["old"])).await;
    // The rename ends what waited.
    api.write_integration(integration, "acme", "Active", &["new"]).await;
    assert!(row(&api, id, "old").await.starts_with("failed"));
    api.post(&format!("/events/{id}/replay"), r#"{"reason":"because"}"#).await.refused(409, "CONFLICT");

    let request = replay_to(&api, id, "new").await;
    assert_eq!(row(&api, id, "new").await, "pending attempts=0 budget_start=0 replay due");
    assert!(row(&api, id, "old").await.starts_with("failed"));
    assert_eq!(api.actions(request).await, ["replay.requested"]);
    let entries = api.get(&format!("/audit-entries?entityId={id}&action=event.delivery_added")).await;
    // The one who was authenticated, beside what was said.
    assert_eq!(entries.data()[0]["actor"], "key:current");
    let details =
        serde_json::json!({"destination": "new", "requestedBy": "api-user", "sourceAddress": "0.0.0.0"});
    assert_eq!(entries.data()[0]["details"], details);
    assert_eq!(dispatch(&api).await, 1);
    api.attempt(id, "new", NextState::Succeeded).await;
    assert_eq!(api.get(&format!("/replay-requests/{request}")).await.json["data"]["status"], "completed");

    // From then on it is one of the event's deliveries.
    replay_to(&api, id, "new").await;
    assert_eq!(row(&api, id, "new").await, "pending attempts=1 budget_start=1 replay due");
    assert_eq!(api.text("SELECT count(*)::text FROM deliveries").await.as_deref(), Some("2"));
    api.post(&format!("/events/{id}/replay"), r#"{"reason":"because","destination":"other"}"#)
        .await
        .invalid("destination");
}

#[tokio::test]
async fn a_replay_and_a_removal_at_the_same_time_leave_nothing_waiting() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let id = api.store(event(integration)).await;
    api.attempt(id, "orders", NextState::Failed).await;
    // The removal has written its row and not yet committed: the replay waits for it.
    let mut removal = api.database.begin().await;
    removal.execute("UPDATE integrations SET deleted_at = now()").await;
    let path = format!("/events/{id}/replay");
    let mut replay = std::pin::pin!(api.post(&path, r#"{"reason":"because"}"#));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut replay).await.is_err());
    removal.commit().await;
    replay.await.refused(409, "CONFLICT");
    assert!(row(&api, id, "orders").await.starts_with("failed"));
}

#[tokio::test]
async fn a_replay_that_met_a_deadlock_is_run_again() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["a", "b"]).await;
    let id = api.store(for_destinations(event(integration), &["a", "b"])).await;
    let lock =
        |destination: &str| format!("SELECT FROM deliveries WHERE destination = '{destination}' FOR UPDATE");
    // The other has b and wants a, which the replay has while it waits for b.
    let mut other = api.database.begin().await;
    other.execute(&lock("b")).await;
    let path = format!("/events/{id}/replay");
    let (answer, ()) = tokio::join!(api.post(&path, r#"{"reason":"because"}"#), async {
        let waits = "SELECT count(*)::text FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%deliveries::lock_for_replay%'";
        let waiting = async {
            while api.text(waits).await.as_deref() != Some("1") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("the replay waits for the lock");
        // Whichever of the two is chosen to fail.
        if other.try_execute(&lock("a")).await {
            other.commit().await;
        } else {
            other.rollback().await;
        }
    });
    accepted(&answer);
}
