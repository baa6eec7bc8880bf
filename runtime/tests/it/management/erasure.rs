//! `DELETE /events/{id}`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use grapnel::http::KEY_HEADER;
use grapnel_core::delivery::state::NextState;
use grapnel_core::ids::{EventId, RequestId};
use grapnel_store::events::{NewEvent, NewPayload, NewRequest, SharedRequest};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::{
    Answer, Api, KEY, event, first_of_millisecond, for_destinations, id_at, later, received_at, send,
};

impl Api {
    async fn delete(&self, path: &str) -> Answer {
        let request = Request::delete(path).header(KEY_HEADER, KEY).body(Body::empty());
        send(&self.router, request.expect("a request")).await
    }

    async fn erase(&self, id: Uuid) -> Value {
        self.delete(&format!("/events/{id}")).await.expect(StatusCode::OK).json["data"].clone()
    }

    async fn record_of(&self, id: Uuid) -> Value {
        self.get(&format!("/events/{id}")).await.expect(StatusCode::OK).json["data"].clone()
    }
}

#[tokio::test]
async fn an_erased_event_stays_without_its_content() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["a", "b", "c"]).await;
    let id = api.store(for_destinations(event(integration), &["a", "b", "c"])).await;
    api.attempt(id, "a", NextState::Succeeded).await;
    api.attempt(id, "b", later()).await;
    let under_way = api.claim(id, "c").await;

    let erased = api.erase(id).await;
    assert_eq!(erased["id"], id.to_string());
    assert!(!api.finish(&under_way, "c", NextState::Succeeded).await, "a late result was accepted");
    let record = api.record_of(id).await;
    let event = &record["event"];
    assert_eq!((&event["erasedAt"], &event["erasedBy"]), (&erased["erasedAt"], &json!("key:current")));
    assert_eq!((&event["status"], &event["subject"]), (&json!("failed"), &json!(null)));
    assert!(event["normalizedPayload"].is_null() && event["externalEventId"].is_string(), "{event}");
    let webhook = &record["webhook"];
    assert_eq!((&webhook["rawBody"], &webhook["requestHeaders"]), (&json!(""), &json!({})));
    assert!(webhook["sourceIp"].is_null() && webhook["rawPayload"].is_null(), "{webhook}");
    let attempts = record["deliveryAttempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2);
    assert!(attempts.iter().all(|attempt| attempt["responseBody"].is_null()), "{record}");
    let states: Vec<_> = record["deliveries"].as_array().unwrap().iter().map(|it| &it["status"]).collect();
    assert_eq!(states, ["succeeded", "failed", "failed"]);
    let listed = api.get("/events").await.expect(StatusCode::OK);
    assert_eq!(listed.data()[0]["erasedAt"], erased["erasedAt"]);
    assert!(listed.data()[0]["normalizedPayload"].is_null());
    assert!(api.actions(id).await.contains(&"event.erased".to_owned()));

    // Once for all.
    assert_eq!(api.erase(id).await, erased);
    assert_eq!(api.actions(id).await.iter().filter(|action| *action == "event.erased").count(), 1);
    let replay = api.post(&format!("/events/{id}/replay"), r#"{"reason":"because"}"#).await;
    replay.refused(409, "CONFLICT");
    api.delete(&format!("/events/{}", Uuid::now_v7())).await.refused(404, "NOT_FOUND");
    api.delete(&format!("/events/{id}?force=1")).await.invalid("force");
}

#[tokio::test]
async fn a_shared_request_goes_with_the_last_of_its_events() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let received = Timestamp::now();
    let request = Arc::new(SharedRequest {
        id: RequestId::new(first_of_millisecond(id_at(received))),
        headers: r#"[["x-tag","1"]]"#.to_owned(),
        raw_body: Bytes::from_static(br#"[{"n":1},{"n":2}]"#),
        count: 2,
    });
    let part = |position: usize, range| NewEvent {
        id: EventId::new(Uuid::from_u128(request.id.uuid().as_u128() + 1 + position as u128)),
        request: NewRequest::Shared { request: Arc::clone(&request), position },
        payload: NewPayload::Slice(range),
        ..received_at(integration, received)
    };
    let stored = api.store_together(vec![part(0, 1..8), part(1, 9..16)]).await;
    let [one, two] = stored[..] else { panic!("two events") };
    let bytes = "SELECT convert_from(raw_body, 'UTF8') || headers::text FROM event_requests";

    api.erase(one).await;
    assert_eq!(api.text(bytes).await.as_deref(), Some(r#"[       ,{"n":2}][["x-tag","1"]]"#));
    let record = api.record_of(two).await;
    assert_eq!(record["event"]["normalizedPayload"]["data"], json!({"n": 2}), "{record}");
    assert!(record["event"].get("erasedAt").is_none());
    api.erase(two).await;
    assert_eq!(api.text(bytes).await.as_deref(), Some("[]"));
}
