//! The key of an event is the occurrence's: neither that of the object that changed, nor that of an attempt.

use grapnel_testing::WebhookRequest;
use grapnel_testing::signer::Signer;
use serde_json::{Value, json};

use super::SendTo;
use super::handshakes::{scheme, start};
use super::sent::{Senders, webhook};

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

/// Each with a first attempt, a second one, and another event.
#[tokio::test]
async fn a_body_that_counts_its_attempts_is_the_same_event() {
    let hubspot = |attempts: [u8; 2], object: u8| {
        let event = |number: u8, attempt: u8| {
            json!({
                "eventId": 100, "subscriptionType": "contact.creation", "occurredAt": 1_769_850_000_000_u64,
                "objectId": object + number, "attemptNumber": attempt,
            })
        };
        json!([event(0, attempts[0]), event(1, attempts[1])])
    };
    let docusign = |retries: u8, envelope: &str| {
        json!({
            "event": "envelope-sent", "retryCount": retries, "generatedDateTime": "2026-01-31T09:00:00Z",
            "data": {"envelopeId": envelope},
        })
    };
    let requests = [
        ("hubspot", [hubspot([0, 0], 1), hubspot([1, 0], 1), hubspot([0, 1], 3)], 2),
        ("hubspot-v1", [hubspot([0, 0], 1), hubspot([1, 2], 1), hubspot([0, 0], 3)], 2),
        ("docusign", [docusign(0, "e-1"), docusign(1, "e-1"), docusign(0, "e-2")], 1),
    ];
    let providers = requests.each_ref().map(|(provider, ..)| *provider);
    let senders = Senders::start(&providers).await;
    let mut expected = 0;
    for (provider, [first, retry, other], events) in &requests {
        let post = async |body: &Value| {
            let request = webhook(provider, &body.to_string());
            let timed = request.headers.iter().map(|(name, value)| match *provider {
                // This one's time is in milliseconds.
                "hubspot" => (name.clone(), value.replace("@now@", "@nowMs@")),
                _ => (name.clone(), value.clone()),
            });
            senders.post(&WebhookRequest { headers: timed.collect(), ..request }).await.json()["data"].clone()
        };
        let count = async || senders.platform.count("SELECT count(*) FROM events").await;
        let accepted = post(first).await;
        assert_eq!(accepted["duplicate"], false, "{provider}: {accepted}");
        expected += events;
        assert_eq!(count().await, expected, "{provider}");
        let again = post(retry).await;
        assert_eq!(again["duplicate"], true, "{provider}: {again}");
        assert_eq!(again["eventId"], accepted["eventId"], "{provider}");
        assert_eq!(count().await, expected, "{provider}: the retry is no event");
        let another = post(other).await;
        assert_eq!(another["duplicate"], false, "{provider}: {another}");
        expected += events;
        assert_eq!(count().await, expected, "{provider}");
    }
}
