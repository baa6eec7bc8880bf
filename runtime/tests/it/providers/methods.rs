//! Webhooks with the methods that an Integration accepts.

use grapnel_testing::{ACME_SECRET, TestReceiver, WebhookRequest};
use serde_json::{Value, json};

use super::super::harness::Platform;
use super::{SendTo, documents};

const KEY: &str = "key-of-the-provider";

/// Returns a custom provider whose token is in the query.
fn custom(receiver: &TestReceiver, methods: Value, mapping: Value) -> Value {
    json!({
        "provider": "custom", "ingress": {"methods": methods},
        "verification": {"scheme": {"type": "token", "signature": {"from": "query:key"}}},
        "mapping": mapping,
        "destinations": [{"name": "orders", "url": receiver.url("/")}],
    })
}

fn request(method: &str, route: &str, query: &str) -> WebhookRequest {
    WebhookRequest::new(method, route).query(&format!("key={KEY}&{query}"))
}

#[tokio::test]
async fn query_of_a_get_is_its_payload() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let mapping =
        json!({"externalEventId": ["query:id"], "eventType": ["form:kind"], "subject": ["query:to"]});
    let raw = json!({"eventType": ["literal:t"], "deliver": "raw"});
    let yaml = documents("get", custom(&receiver, json!(["GET"]), mapping), &[KEY])
        + &documents("raw", custom(&receiver, json!(["GET", "POST"]), raw), &[KEY]);
    platform.apply(&yaml).await;
    let _running = (platform.start(&["api"]), platform.start(&["worker"]));
    platform.wait_until_known("get").await;

    let sms = request("GET", "get", "id=1&kind=a+b&to=%2B41&x=%C3%A9&x=2&flag");
    let accepted = sms.send(&platform).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let delivered = receiver.wait_for(1).await[0].json();
    let data = json!({
        "key": "*".repeat(KEY.len()), "id": "1", "kind": "a b", "to": "+41", "x": ["é", "2"], "flag": "",
    });
    let expected = json!({"provider": "custom", "eventType": "a b", "externalEventId": "1", "data": data});
    assert_eq!(delivered, expected);
    let record = platform.get(&format!("/api/v1/events/{}", accepted.event_id())).await;
    assert!(!record.text.contains(KEY), "{record:?}");
    let event = &record.json()["data"]["event"];
    assert_eq!((&event["normalizedPayload"], &event["subject"]), (&expected, &json!("+41")));
    assert_eq!(sms.send(&platform).await.status, 200, "a repeated one");
    let missing = request("GET", "get", "id=2").send(&platform).await;
    assert_eq!((missing.status, missing.field().as_str()), (400, "the form field kind"));
    let other_key = WebhookRequest::new("GET", "get").query("key=other&id=3&kind=a");
    assert_eq!(other_key.send(&platform).await.status, 401);

    // Without an id the query is what tells it from others.
    for (query, status) in [("n=1", 202), ("n=2", 202), ("n=1", 200)] {
        assert_eq!(request("GET", "raw", query).send(&platform).await.status, status, "{query}");
    }
    let deliveries = receiver.wait_for(3).await;
    let raw = deliveries.iter().find(|delivery| delivery.body.ends_with("n=1")).expect("a delivery");
    assert_eq!(raw.body, format!("key={}&n=1", "*".repeat(KEY.len())));
    assert_eq!(raw.header("content-type"), "application/x-www-form-urlencoded");
}

#[tokio::test]
async fn only_the_methods_of_the_integration_are_accepted_and_a_handshake_comes_first() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let mapping = json!({"externalEventId": ["/id"], "eventType": ["literal:t"]});
    let meta = json!({"provider": "meta", "verification": {}, "ingress": {"methods": ["GET", "POST"]}});
    let yaml = documents("put", custom(&receiver, json!(["PUT", "GET"]), mapping.clone()), &[KEY])
        + &documents("post", custom(&receiver, json!(["POST"]), mapping), &[KEY])
        + &documents("meta", meta, &[ACME_SECRET]);
    platform.apply(&yaml).await;
    let _running = (platform.start(&["api"]), platform.start(&["worker"]));
    platform.wait_until_known("put").await;

    let body = r#"{"id":"e-1"}"#;
    assert_eq!(request("PUT", "put", "").body(body).send(&platform).await.status, 202);
    assert_eq!(receiver.wait_for(1).await[0].json()["data"], json!({"id": "e-1"}));
    assert_eq!(request("PUT", "put", "").body(body).send(&platform).await.status, 200);
    // A GET with a body is read as any other.
    assert_eq!(request("GET", "put", "").body(r#"{"id":"e-2"}"#).send(&platform).await.status, 202);
    assert_eq!(receiver.wait_for(2).await[1].json()["data"], json!({"id": "e-2"}));
    for (route, methods, allowed) in [
        ("put", &["POST", "HEAD", "DELETE", "OPTIONS", "PATCH"][..], "PUT, GET"),
        ("post", &["PUT", "GET", "HEAD"], "POST"),
        ("unknown", &["PUT", "GET"], "POST"),
    ] {
        for method in methods {
            let refused = request(method, route, "").send(&platform).await;
            assert_eq!((refused.status, refused.header("allow")), (405, allowed), "{method} {route}");
        }
    }

    let token = hex::encode(ring::digest::digest(&ring::digest::SHA256, ACME_SECRET.as_bytes()));
    let query = format!("hub.mode=subscribe&hub.challenge=7&hub.verify_token={token}");
    let answered = WebhookRequest::new("GET", "meta").query(&query).send(&platform).await;
    assert_eq!((answered.status, answered.text.as_str()), (200, "7"));
    assert_eq!(WebhookRequest::new("GET", "meta").query("a=1").send(&platform).await.status, 401);
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 2);
}
