//! Deliveries that filters left out: how they are shown and listed, and what a replay does with them.

use axum::http::StatusCode;
use grapnel_core::delivery::state::NextState;
use grapnel_core::filter::DestinationSet;
use grapnel_store::events::NewEvent;
use serde_json::json;
use uuid::Uuid;

use super::harness::{Api, NOTHING, event, for_destinations};

/// Stores an event for `a` and `b`, of which those at the positions are filtered.
async fn store(api: &Api, integration: Uuid, positions: &[usize]) -> Uuid {
    let mut filtered = DestinationSet::default();
    positions.iter().for_each(|position| filtered.insert(*position));
    api.store(NewEvent { filtered, ..for_destinations(event(integration), &["a", "b"]) }).await
}

async fn status(api: &Api, id: Uuid) -> String {
    let read = api.get(&format!("/events/{id}/status")).await.expect(StatusCode::OK);
    read.json["data"]["status"].as_str().expect("a status").to_owned()
}

#[tokio::test]
async fn the_status_of_an_event_is_that_of_its_other_deliveries() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["a", "b"]).await;
    let (none, one, both) = (
        store(&api, integration, &[]).await,
        store(&api, integration, &[1]).await,
        store(&api, integration, &[0, 1]).await,
    );
    assert_eq!(status(&api, one).await, "pending");
    assert_eq!(status(&api, both).await, "processed");
    api.attempt(one, "a", NextState::Failed).await;
    assert_eq!(status(&api, one).await, "failed");

    let record = api.get(&format!("/events/{one}")).await.expect(StatusCode::OK);
    let deliveries = &record.json["data"]["deliveries"];
    assert_eq!(deliveries[0]["status"], "failed", "{}", record.body);
    assert_eq!((&deliveries[0]["attempts"], &deliveries[0]["lastError"]), (&json!(1), &json!("HTTP 500")));
    assert_eq!(deliveries[1]["status"], "filtered");
    assert_eq!((&deliveries[1]["attempts"], &deliveries[1]["lastError"]), (&json!(0), &json!(null)));
    assert!(deliveries[1]["finishedAt"].is_string() && deliveries[1]["startedAt"].is_null());
    assert_eq!(record.json["data"]["processingJobs"].as_array().map(Vec::len), Some(1));

    for sort in ["createdAt", "status", "occurredAt"] {
        let path = format!("/events?status=filtered&sortBy={sort}&pageSize=1");
        assert_eq!(api.all_ids(&format!("{path}&sortOrder=asc")).await, [one, both], "{sort}");
        assert_eq!(api.all_ids(&path).await, [both, one], "{sort}");
        assert_eq!(api.get(&path).await.json["meta"]["total"], 2);
    }
    assert_eq!(api.ids("/events?status=filtered&provider=globex").await, NOTHING);
    assert_eq!(api.ids("/events?status=processed").await, [both]);
    assert_eq!(api.ids("/events?status=pending").await, [none]);
}

#[tokio::test]
async fn every_day_has_the_index_of_filtered_deliveries() {
    let api = Api::start().await;
    let count = async |sql: &str| api.database.count(sql).await;
    let days = count("SELECT count(*) FROM pg_inherits WHERE inhparent = 'deliveries'::regclass").await;
    let indexes = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'deliveries_filtered'::regclass";
    assert!(days > 1);
    assert_eq!(count(indexes).await, days);
}

#[tokio::test]
async fn a_replay_leaves_filtered_deliveries_out_unless_it_names_one() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["a", "b"]).await;
    let (one, both) = (store(&api, integration, &[1]).await, store(&api, integration, &[0, 1]).await);
    api.attempt(one, "a", NextState::Succeeded).await;

    let replay = async |id: Uuid, body: serde_json::Value| {
        api.post(&format!("/events/{id}/replay"), &body.to_string()).await
    };
    let answer = replay(one, json!({"reason": "because"})).await.expect(StatusCode::ACCEPTED);
    let expected = json!([
        {"name": "a", "willSend": true, "because": null},
        {"name": "b", "willSend": false, "because": "filtered"},
    ]);
    assert_eq!(answer.json["data"]["destinations"], expected);
    assert_eq!(status(&api, one).await, "pending");

    let refused = replay(both, json!({"reason": "because"})).await.expect(StatusCode::CONFLICT);
    assert!(refused.body.contains("name the destination"), "{}", refused.body);
    let answer =
        replay(both, json!({"reason": "because", "destination": "b"})).await.expect(StatusCode::ACCEPTED);
    assert_eq!(
        answer.json["data"]["destinations"],
        json!([{"name": "b", "willSend": true, "because": null}])
    );
    let record = api.get(&format!("/events/{both}")).await.expect(StatusCode::OK);
    assert_eq!(record.json["data"]["deliveries"][1]["status"], "pending");
    assert_eq!(status(&api, both).await, "pending");
    // It is one like any other from now on.
    api.write_integration(integration, "acme", "Active", &["a"]).await;
    assert_eq!(status(&api, both).await, "failed");
    assert_eq!(api.ids("/events?status=filtered&sortOrder=asc").await, [one, both]);
}
