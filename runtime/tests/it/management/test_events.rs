//! `POST /integrations/{id}/test-events`.

use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::{Answer, Api};

impl Api {
    async fn send_test(&self, integration: Uuid, body: &Value) -> Answer {
        self.post(&format!("/integrations/{integration}/test-events"), &body.to_string()).await
    }
}

#[tokio::test]
async fn a_test_event_is_stored_with_deliveries_that_are_due_and_is_audited() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["a", "b"]).await;
    let body =
        json!({"eventType": "order.test", "subject": "s-1", "payload": {"total": 12345678901234567890_u64}});
    let sent = api.send_test(integration, &body).await.expect(StatusCode::ACCEPTED).json["data"].clone();
    assert_eq!(sent["destinations"], json!(["a", "b"]));
    let id = sent["eventId"].as_str().expect("an id").to_owned();
    let record = api.get(&format!("/events/{id}")).await.expect(StatusCode::OK).json["data"].clone();
    let event = &record["event"];
    assert_eq!((&event["status"], &event["subject"]), (&json!("pending"), &json!("s-1")));
    assert_eq!(event["normalizedPayload"]["data"], body["payload"]);
    assert_eq!(record["webhook"]["requestHeaders"]["x-grapnel-test"], "true");
    let due = "SELECT count(*)::text FROM deliveries WHERE due_at <= now() AND queued_at IS NULL";
    assert_eq!(api.text(due).await.as_deref(), Some("2"));
    assert_eq!(api.actions(id.parse().expect("an id")).await, ["event.test_sent"]);
    // Another one with the same content is another event.
    let again = api.send_test(integration, &body).await.expect(StatusCode::ACCEPTED).json["data"].clone();
    assert_ne!(again["eventId"], sent["eventId"]);
}

#[tokio::test]
async fn destinations_can_be_chosen_and_must_be_known() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["a", "b"]).await;
    let to = |names: Value| json!({"eventType": "test", "destinations": names});
    let sent = api.send_test(integration, &to(json!(["b"]))).await.expect(StatusCode::ACCEPTED);
    assert_eq!(sent.json["data"]["destinations"], json!(["b"]));
    for wrong in [json!(["c"]), json!("a"), json!([1]), json!([""])] {
        api.send_test(integration, &to(wrong)).await.invalid("destinations");
    }
    assert_eq!(api.text("SELECT count(*)::text FROM events").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn what_cannot_be_sent_names_the_reason() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["a"]).await;
    for (body, field) in [
        (json!({}), "eventType"),
        (json!({"eventType": ""}), "eventType"),
        (json!({"eventType": "x".repeat(256)}), "eventType"),
        (json!({"eventType": "a\u{0}"}), "eventType"),
        (json!({"eventType": "test", "subject": 7}), "subject"),
        (json!({"eventType": "test", "more": 1}), "more"),
        (json!([]), "body"),
    ] {
        api.send_test(integration, &body).await.invalid(field);
    }
    let body = json!({"eventType": "test"});
    api.send_test(Uuid::now_v7(), &body).await.refused(404, "NOT_FOUND");
    api.write_integration(integration, "acme", "Disabled", &["a"]).await;
    api.send_test(integration, &body).await.refused(409, "CONFLICT");
    api.execute("UPDATE integrations SET deleted_at = now()").await;
    api.send_test(integration, &body).await.refused(404, "NOT_FOUND");
}
