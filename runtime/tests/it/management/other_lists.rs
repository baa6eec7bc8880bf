//! The lists of integrations, delivery attempts, audit entries and replay requests.

use grapnel_core::ids::IntegrationId;
use std::collections::BTreeSet;

use axum::http::StatusCode;
use grapnel_core::delivery::state::NextState;
use uuid::Uuid;

use super::harness::{Api, NOTHING, event, for_destinations, later};

#[tokio::test]
async fn integrations_are_listed_without_secrets() {
    let api = Api::start().await;
    let first = api.integration("first", &["orders", "mirror"]).await;
    let paused = Uuid::now_v7();
    api.write_integration(paused, "paused", "DeliveryPaused", &["orders"]).await;
    let disabled = Uuid::now_v7();
    api.write_integration(disabled, "disabled", "Disabled", &["orders"]).await;
    let removed = api.integration("removed", &["orders"]).await;
    assert!(grapnel_store::integrations::remove(&api.db, IntegrationId::new(removed), "test").await.unwrap());
    api.execute(&format!("UPDATE integrations SET provider = 'globex' WHERE id = '{paused}'")).await;

    let answer = api.get("/integrations").await.expect(StatusCode::OK);
    assert_eq!(answer.ids(), [disabled, paused, first]);
    let listed = &answer.data()[2];
    let fields: BTreeSet<_> = listed.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        BTreeSet::from([
            "id",
            "namespace",
            "name",
            "displayName",
            "provider",
            "route",
            "state",
            "isActive",
            "destinations",
            "createdAt",
            "updatedAt",
            "ready",
            "readyReason",
            "readyMessage",
            "readySince",
            "workers",
            "queueBacklog",
            "reportedAt",
        ])
    );
    assert_eq!(listed["displayName"], "The first");
    assert_eq!(
        listed["destinations"],
        serde_json::json!([
            {"name": "orders", "url": "https://orders.example.com/hooks"},
            {"name": "mirror", "url": "https://mirror.example.com/hooks"},
        ])
    );
    let active: Vec<_> = answer.data().iter().map(|listed| listed["isActive"].as_bool().unwrap()).collect();
    assert_eq!(active, [false, true, true]);
    assert!(!answer.body.contains("sealed"), "{}", answer.body);

    assert_eq!(api.ids("/integrations?activeOnly=true").await, [paused, first]);
    assert_eq!(api.ids("/integrations?activeOnly=false").await, [disabled, paused, first]);
    assert_eq!(api.ids("/integrations?provider=globex").await, [paused]);
    assert_eq!(api.ids("/integrations?provider=nobody").await, NOTHING);
    assert_eq!(api.all_ids("/integrations?pageSize=1").await, [disabled, paused, first]);
    assert_eq!(api.ids("/integrations?pageSize=2&page=2").await, [first]);
}

#[tokio::test]
async fn attempts_are_listed_by_outcome_and_event() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["a", "b"]).await;
    let one = api.store(for_destinations(event(integration), &["a", "b"])).await;
    let two = api.store(for_destinations(event(integration), &["a"])).await;
    api.attempt(one, "a", later()).await;
    api.attempt(two, "a", NextState::Succeeded).await;
    api.attempt(one, "b", NextState::Succeeded).await;
    let of = async |query: &str| {
        let answer = api.get(&format!("/deliveries?{query}")).await.expect(StatusCode::OK);
        assert_eq!(answer.json["meta"]["total"], answer.data().len());
        answer
            .data()
            .iter()
            .map(|attempt| {
                let event = if attempt["eventId"] == one.to_string() { "one" } else { "two" };
                format!("{event} {} {}", attempt["destination"], attempt["status"]).replace('"', "")
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(of("").await, ["one b success", "two a success", "one a failed"]);
    assert_eq!(of("status=success").await, ["one b success", "two a success"]);
    assert_eq!(of("status=failed").await, ["one a failed"]);
    assert_eq!(of(&format!("eventId={one}")).await, ["one b success", "one a failed"]);
    assert_eq!(of(&format!("eventId={two}&status=failed")).await, Vec::<String>::new());
    assert_eq!(of(&format!("eventId={}", Uuid::now_v7())).await, Vec::<String>::new());
    assert_eq!(api.all_ids("/deliveries?pageSize=1").await, api.ids("/deliveries").await);
}

#[tokio::test]
async fn audit_entries_are_listed_by_entity_and_action() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let id = api.store(event(integration)).await;
    api.attempt(id, "orders", later()).await;
    let of = async |query: &str| {
        let answer = api.get(&format!("/audit-entries?{query}")).await.expect(StatusCode::OK);
        assert_eq!(answer.json["meta"]["total"], answer.data().len());
        answer.data().iter().map(|entry| entry["action"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("").await, ["event.retry_scheduled", "webhook.received", "integration.applied"]);
    assert_eq!(of("entityType=integration").await, ["integration.applied"]);
    assert_eq!(of("entityType=event").await, ["event.retry_scheduled", "webhook.received"]);
    assert_eq!(of("entityType=replay_request").await, Vec::<String>::new());
    assert_eq!(of(&format!("entityId={integration}")).await, ["integration.applied"]);
    assert_eq!(of(&format!("entityId={id}&action=webhook.received")).await, ["webhook.received"]);
    assert_eq!(of("action=event.retry_scheduled").await, ["event.retry_scheduled"]);
    assert_eq!(of("action=webhook.received&entityType=integration").await, Vec::<String>::new());
    assert_eq!(of("action=none").await, Vec::<String>::new());
    assert_eq!(api.all_ids("/audit-entries?pageSize=1").await, api.ids("/audit-entries").await);

    let answer = api.get("/audit-entries").await;
    let received = &answer.data()[1];
    let fields: BTreeSet<_> = received.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        BTreeSet::from(["id", "entityType", "entityId", "action", "actor", "details", "createdAt"])
    );
    assert_eq!(received["details"], serde_json::json!({}));
    assert_eq!(received["entityId"], id.to_string());
    assert_eq!(answer.data()[0]["details"]["attemptNo"], 1);
    let created: jiff::Timestamp = received["createdAt"].as_str().unwrap().parse().unwrap();
    let in_id = received["id"].as_str().unwrap().replace('-', "");
    assert_eq!(created.as_millisecond(), i64::from_str_radix(&in_id[..12], 16).unwrap());
}

#[tokio::test]
async fn entries_about_ids_without_a_time_are_found() {
    let api = Api::start().await;
    // What the API server calls an object is a random UUID.
    let integration: Uuid = "6f2ab1d4-2f3b-4c1e-9f55-0c3f8d1a7e21".parse().unwrap();
    api.write_integration(integration, "acme", "Active", &["orders"]).await;
    let answer = api.get(&format!("/audit-entries?entityId={integration}")).await.expect(StatusCode::OK);
    assert_eq!(answer.data()[0]["action"], "integration.applied");
}

#[tokio::test]
async fn replay_requests_are_listed_by_event_and_status() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let mut requests = Vec::new();
    let mut events = Vec::new();
    for _ in 0..3 {
        let id = api.store(event(integration)).await;
        api.attempt(id, "orders", NextState::Failed).await;
        let answer = api.post(&format!("/events/{id}/replay"), r#"{"reason":"try again"}"#).await;
        let answer = answer.expect(StatusCode::ACCEPTED);
        requests.push(answer.json["data"]["replayRequestId"].as_str().unwrap().parse::<Uuid>().unwrap());
        events.push(id);
    }
    api.execute(&format!(
        "UPDATE replay_requests SET status = 'completed', processed_at = now() WHERE id = '{}'",
        requests[0]
    ))
    .await;
    let newest_first: Vec<_> = requests.iter().rev().copied().collect();
    assert_eq!(api.ids("/replay-requests").await, newest_first);
    assert_eq!(api.all_ids("/replay-requests?pageSize=1").await, newest_first);
    assert_eq!(api.ids("/replay-requests?status=queued").await, newest_first[..2]);
    assert_eq!(api.ids("/replay-requests?status=completed").await, requests[..1]);
    assert_eq!(api.ids("/replay-requests?status=failed").await, NOTHING);
    assert_eq!(api.ids(&format!("/replay-requests?eventId={}", events[1])).await, requests[1..2]);
    assert_eq!(api.ids(&format!("/replay-requests?eventId={}&status=queued", events[0])).await, NOTHING);

    let read = api.get(&format!("/replay-requests/{}", requests[0])).await.expect(StatusCode::OK);
    let data = read.json["data"].as_object().unwrap();
    let fields: BTreeSet<_> = data.keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        BTreeSet::from([
            "id",
            "eventId",
            "destination",
            "requestedBy",
            "reason",
            "status",
            "createdAt",
            "processedAt",
        ])
    );
    assert_eq!(data["requestedBy"], "api-user");
    assert_eq!(data["reason"], "try again");
    assert!(data["processedAt"].is_string());
}
