//! The key of an event is the occurrence's: neither that of the object that changed, nor that of an attempt.

use grapnel_testing::WebhookRequest;
use grapnel_testing::signer::Signer;
use serde_json::json;

use super::SendTo;
use super::handshakes::{scheme, start};

#[tokio::test]
async fn two_changes_of_one_object_are_two_events() {
    let (platform, _api) = start(&["recurly", "brevo", "clickup"]).await;
    let changes = [
        (
            "recurly",
            [
                json!({"id": "qr4hxmk", "object_type": "account", "event_type": "updated", "event_time": "2026-01-31T09:00:00Z"}),
                json!({"id": "qr4hxmk", "object_type": "account", "event_type": "updated", "event_time": "2026-01-31T09:05:00Z"}),
            ],
        ),
        (
            "brevo",
            [
                json!({"event": "delivered", "id": 42, "message-id": "<m-1@relay>", "ts_event": 1_769_850_000}),
                json!({"event": "opened", "id": 42, "message-id": "<m-1@relay>", "ts_event": 1_769_850_060}),
            ],
        ),
        (
            "clickup",
            [
                json!({"webhook_id": "7689a169", "event": "taskUpdated", "task_id": "c0j", "history_items": [{"id": "1"}]}),
                json!({"webhook_id": "7689a169", "event": "taskUpdated", "task_id": "c0j", "history_items": [{"id": "2"}]}),
            ],
        ),
    ];
    for (provider, bodies) in &changes {
        let signer = Signer::new(&scheme(provider));
        for (body, statuses) in bodies.iter().flat_map(|body| [(body, 202), (body, 200)]) {
            let request = WebhookRequest::new("POST", provider)
                .header("content-type", "application/json")
                .body(&body.to_string());
            let answer = signer.sign(&request, |signature| signature).send(&platform).await;
            assert_eq!(answer.status, statuses, "{provider}: {body}: {answer:?}");
        }
    }
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 6);
}

#[tokio::test]
async fn an_attempt_with_an_id_of_its_own_is_the_same_event() {
    let (platform, _api) = start(&["box"]).await;
    let signer = Signer::new(&scheme("box"));
    for (attempt, status) in [("f96bb54b", 202), ("673a081b", 200)] {
        let request = WebhookRequest::new("POST", "box")
            .header("content-type", "application/json")
            .header("box-delivery-id", attempt)
            .header("box-delivery-timestamp", "@nowIso@")
            .body(r#"{"type":"webhook_event","id":"0f2b","trigger":"FILE.UPLOADED","source":{"id":"f-1"}}"#);
        let answer = signer.sign(&request, |signature| signature).send(&platform).await;
        assert_eq!(answer.status, status, "{attempt}: {answer:?}");
    }
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 1);
}
