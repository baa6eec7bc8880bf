//! What status an event has, and lists by status.

use axum::http::StatusCode;
use grapnel_core::delivery::state::NextState;
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::harness::{Api, NOTHING, event, for_destinations, later};

/// Brings a delivery of a new event into a state.
async fn bring(api: &Api, id: Uuid, destination: &str, state: &str) {
    match state {
        "pending" => {}
        "processing" => {
            api.claim(id, destination).await;
        }
        "retrying" => api.attempt(id, destination, later()).await,
        "succeeded" => api.attempt(id, destination, NextState::Succeeded).await,
        "failed" => api.attempt(id, destination, NextState::Failed).await,
        other => panic!("no such state: {other}"),
    }
}

#[tokio::test]
async fn status_is_that_of_the_deliveries_together() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["a", "b", "c"]).await;
    let mut by_status: Vec<(&str, Vec<Uuid>)> = Vec::new();
    for (states, status) in [
        (&["pending"][..], "pending"),
        (&["processing"], "processing"),
        (&["retrying"], "retrying"),
        (&["succeeded"], "processed"),
        (&["failed"], "failed"),
        (&["succeeded", "succeeded"], "processed"),
        (&["succeeded", "failed"], "failed"),
        (&["failed", "failed"], "failed"),
        (&["failed", "pending"], "pending"),
        (&["succeeded", "pending", "pending"], "pending"),
        (&["pending", "processing", "failed"], "processing"),
        (&["processing", "pending", "processing"], "processing"),
        (&["processing", "retrying", "pending"], "retrying"),
        (&["retrying", "retrying", "failed"], "retrying"),
    ] {
        let names = &["a", "b", "c"][..states.len()];
        let id = api.store(for_destinations(event(integration), names)).await;
        for (state, name) in states.iter().zip(names) {
            bring(&api, id, name, state).await;
        }
        let read = api.get(&format!("/events/{id}/status")).await.expect(StatusCode::OK);
        assert_eq!(read.json["data"]["status"], status, "{states:?}");
        match by_status.iter_mut().find(|(known, _)| *known == status) {
            Some((_, ids)) => ids.push(id),
            None => by_status.push((status, vec![id])),
        }
    }
    assert_eq!(by_status.len(), 5);
    for (status, ids) in &by_status {
        for sort in ["createdAt", "status", "occurredAt"] {
            let path = format!("/events?status={status}&sortBy={sort}&pageSize=2");
            let ascending = format!("{path}&sortOrder=asc");
            assert_eq!(&api.all_ids(&ascending).await, ids, "{ascending}");
            let mut descending = api.all_ids(&path).await;
            descending.reverse();
            assert_eq!(&descending, ids, "{path}");
            assert_eq!(api.get(&path).await.json["meta"]["total"], ids.len(), "{path}");
        }
        // Filters of the event apply in every status.
        assert_eq!(api.ids(&format!("/events?status={status}&provider=globex")).await, NOTHING);
        assert_eq!(
            api.ids(&format!("/events?status={status}&provider=acme&subject=ORD&sortOrder=asc")).await,
            *ids
        );
    }
    let order = ["pending", "processing", "retrying", "processed", "failed"];
    by_status.sort_by_key(|(status, _)| order.iter().position(|known| known == status));
    let expected: Vec<_> = by_status.into_iter().flat_map(|(_, ids)| ids).collect();
    assert_eq!(api.all_ids("/events?sortBy=status&sortOrder=asc&pageSize=3").await, expected);
}

#[tokio::test]
async fn an_expired_lease_leaves_the_event_processing() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let id = api.store(event(integration)).await;
    api.claim(id, "orders").await;
    api.execute("UPDATE deliveries SET lease_until = now() - interval '1 second'").await;
    let answer = api.get(&format!("/events/{id}/status")).await.expect(StatusCode::OK);
    assert_eq!(answer.json["data"]["status"], "processing");
    assert_eq!(answer.json["data"]["jobs"][0]["status"], "running");
    assert_eq!(api.ids("/events?status=processing").await, [id]);
    assert_eq!(api.ids("/events?status=pending").await, NOTHING);
}

#[tokio::test]
async fn attempts_and_errors_are_summed_up() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["a", "b"]).await;
    let id = api.store(for_destinations(event(integration), &["a", "b"])).await;
    api.attempt(id, "a", later()).await;
    api.attempt(id, "b", NextState::Succeeded).await;
    let read = async || api.get("/events").await.expect(StatusCode::OK).data()[0].clone();
    let before = read().await;
    assert_eq!(before["status"], "retrying");
    assert_eq!(before["processingAttempts"], 2);
    assert_eq!(before["lastError"], "HTTP 500");
    assert!(before["lastProcessedAt"].as_str() >= before["createdAt"].as_str());
    api.execute("UPDATE deliveries SET queued_at = now(), due_at = NULL WHERE finished_at IS NULL").await;
    api.attempt(id, "a", NextState::Succeeded).await;
    let after = read().await;
    assert_eq!(after["status"], "processed");
    assert_eq!(after["processingAttempts"], 3);
    assert!(after["lastError"].is_null());
    assert!(after["updatedAt"].as_str() >= before["updatedAt"].as_str());
}

#[tokio::test]
async fn a_claim_is_a_change_of_the_event_and_of_the_delivery() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let id = api.store(event(integration)).await;
    api.execute("UPDATE deliveries SET updated_at = now() - interval '1 minute'").await;
    let claimed = api.claim(id, "orders").await;
    let is_of_claim = |time: &Value| {
        let time: Timestamp = time.as_str().expect("a time").parse().expect("a time");
        assert_eq!(time.as_millisecond(), claimed.started_at.as_millisecond());
    };
    is_of_claim(&api.get("/events").await.expect(StatusCode::OK).data()[0]["updatedAt"]);
    let record = api.get(&format!("/events/{id}")).await.expect(StatusCode::OK).json;
    is_of_claim(&record["data"]["event"]["updatedAt"]);
    is_of_claim(&record["data"]["deliveries"][0]["updatedAt"]);
}
