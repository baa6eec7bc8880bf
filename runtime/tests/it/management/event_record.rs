//! `GET /events/{id}` and `GET /events/{id}/status`.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use grapnel_core::delivery::state::NextState;
use grapnel_store::events::{NewEvent, NewHeaders, NewPayload, NewRequest};
use grapnel_store::packed_headers;
use serde_json::Value;

use super::harness::{Api, event, for_destinations, later, whole, with_body};

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[tokio::test]
async fn the_record_has_the_fields_of_the_contract() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let headers = [("x-tag", "1"), ("authorization", "[redacted]"), ("x-tag", "2")];
    let headers = NewHeaders::Packed(packed_headers::pack(headers));
    let request = NewRequest::Whole { headers, raw_body: Bytes::from_static(br#"{"data":{"id":"ord-1"}}"#) };
    let id = api.store(NewEvent { request, ..event(integration) }).await;
    api.attempt(id, "orders", later()).await;
    let answer = api.get(&format!("/events/{id}")).await.expect(StatusCode::OK);
    let data = &answer.json["data"];
    assert_eq!(
        keys(data),
        BTreeSet::from(["event", "webhook", "deliveries", "deliveryAttempts", "processingJobs"])
    );
    assert_eq!(answer.json["meta"], serde_json::json!({}));
    let webhook = &data["webhook"];
    assert_eq!(
        keys(webhook),
        BTreeSet::from([
            "integrationId",
            "provider",
            "externalEventId",
            "idempotencyKey",
            "requestHeaders",
            "rawPayload",
            "rawBody",
            "sourceIp",
            "receivedAt",
        ])
    );
    assert_eq!(webhook["sourceIp"], "192.0.2.7");
    assert_eq!(
        webhook["requestHeaders"],
        serde_json::json!({"x-tag": "1, 2", "authorization": "[redacted]"})
    );
    assert_eq!(webhook["rawPayload"]["data"]["id"], "ord-1");
    assert!(webhook["idempotencyKey"].as_str().unwrap().starts_with(&integration.to_string()));
    let attempt = &data["deliveryAttempts"][0];
    assert_eq!(
        keys(attempt),
        BTreeSet::from([
            "id",
            "eventId",
            "integrationId",
            "destination",
            "attemptNo",
            "status",
            "httpStatus",
            "responseBody",
            "errorMessage",
            "durationMs",
            "createdAt",
        ])
    );
    assert_eq!(attempt["status"], "failed");
    assert_eq!(attempt["httpStatus"], 500);
    let [finished, waiting] = data["processingJobs"].as_array().unwrap().as_slice() else {
        panic!("two jobs: {data}")
    };
    for job in [finished, waiting] {
        assert_eq!(
            keys(job),
            BTreeSet::from([
                "id",
                "eventId",
                "destination",
                "queueName",
                "triggeredBy",
                "status",
                "attemptNo",
                "scheduledAt",
                "startedAt",
                "completedAt",
                "errorMessage",
            ])
        );
        assert_eq!(job["queueName"], format!("test.grapnel.{integration}.orders"));
    }
    assert_eq!(finished["id"], attempt["id"]);
    assert_eq!((&finished["status"], &finished["triggeredBy"]), (&"failed".into(), &"webhook".into()));
    assert_eq!(finished["errorMessage"], "HTTP 500");
    assert_eq!((&waiting["status"], &waiting["triggeredBy"]), (&"queued".into(), &"retry".into()));
    assert_eq!(waiting["attemptNo"], 2);
    assert!(waiting["startedAt"].is_null() && waiting["completedAt"].is_null());
    assert!(waiting["scheduledAt"].as_str() > finished["completedAt"].as_str());
}

#[tokio::test]
async fn payloads_are_shown_as_they_came() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let body = r#"{ "b": 123456789012345678901234567890.10, "a": "\u0000\ud83d", "b": 1e400, "é": [] }"#;
    let id = api.store(with_body(event(integration), body)).await;
    for path in [format!("/events/{id}"), "/events".to_owned()] {
        let answer = api.get(&path).await.expect(StatusCode::OK);
        let normalized = "\"normalizedPayload\":{\"provider\":\"acme\",\"eventType\":\"order.created\",\"externalEventId\":\"evt-";
        assert!(answer.body.contains(normalized), "{}", answer.body);
        assert!(answer.body.contains(&format!("\"data\":{body}}}")), "{}", answer.body);
    }
    let record = api.get(&format!("/events/{id}")).await;
    assert!(record.body.contains(&format!("\"rawPayload\":{body},")), "{}", record.body);
    assert!(record.body.contains(&format!("\"rawBody\":\"{}\"", STANDARD.encode(body))));
}

#[tokio::test]
async fn a_body_that_is_not_json_has_no_payload_but_its_bytes() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let body = Bytes::from_static(b"payload=%7B%7D&x=\xff{\"id\":1}");
    let start = body.len() - 8;
    let id = api
        .store(NewEvent {
            payload: NewPayload::Slice(start..body.len()),
            request: whole(body.clone()),
            ..event(integration)
        })
        .await;
    let answer = api.get(&format!("/events/{id}")).await.expect(StatusCode::OK);
    let webhook = &answer.json["data"]["webhook"];
    assert!(webhook["rawPayload"].is_null());
    assert_eq!(STANDARD.decode(webhook["rawBody"].as_str().unwrap()).unwrap(), body);
    assert_eq!(answer.json["data"]["event"]["normalizedPayload"]["data"]["id"], 1);
}

#[tokio::test]
async fn processing_is_the_same_under_both_paths() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["a", "b", "c"]).await;
    let id = api.store(for_destinations(event(integration), &["a", "b", "c"])).await;
    api.attempt(id, "a", NextState::Succeeded).await;
    api.claim(id, "b").await;
    let answer = api.get(&format!("/events/{id}/status")).await.expect(StatusCode::OK);
    let same = api.get(&format!("/processing-status/{id}")).await.expect(StatusCode::OK);
    assert_eq!(answer.body, same.body);
    let data = &answer.json["data"];
    assert_eq!(
        keys(data),
        BTreeSet::from(["eventId", "status", "processingAttempts", "lastError", "lastProcessedAt", "jobs"])
    );
    let jobs: Vec<_> = data["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| format!("{} {} {}", job["destination"], job["status"], job["attemptNo"]).replace('"', ""))
        .collect();
    assert_eq!(jobs, ["a succeeded 1", "b running 1", "c queued 1"]);
    assert!(data["jobs"][1]["startedAt"].is_string());
    let record = api.get(&format!("/events/{id}")).await.expect(StatusCode::OK);
    assert_eq!(record.json["data"]["processingJobs"], data["jobs"]);
}

#[tokio::test]
async fn jobs_keep_their_ids_until_they_are_finished() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let id = api.store(event(integration)).await;
    let jobs = async || {
        let answer = api.get(&format!("/events/{id}/status")).await.expect(StatusCode::OK);
        answer.json["data"]["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["id"].clone())
            .collect::<Vec<_>>()
    };
    let queued = jobs().await;
    let claimed = api.claim(id, "orders").await;
    assert_eq!(jobs().await, queued);
    assert!(api.finish(&claimed, "orders", later()).await);
    let after = jobs().await;
    assert_eq!(after.len(), 2);
    assert!(!after.contains(&queued[0]));
}
