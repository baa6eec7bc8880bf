//! The delivered payload, the identity of events, and the accepted bodies.

use grapnel_testing::signer::Signer;
use grapnel_testing::{ACME_SECRET, TestReceiver, WebhookRequest, acme_event, wait_until};
use serde_json::{Value, json};

use super::super::harness::{Platform, sign};
use super::{SendTo, documents};

/// Returns a custom provider that signs as Acme does and accepts everything.
fn custom(receiver: &TestReceiver, mapping: Value) -> Value {
    json!({
        "provider": "custom",
        "verification": {"scheme": {"type": "hmac", "message": "{body}", "signature": {"from": "header:x-sig"}}},
        "mapping": mapping,
        "destinations": [{"name": "orders", "url": receiver.url("/")}],
    })
}

fn signed(route: &str, content_type: &str, body: &str) -> WebhookRequest {
    WebhookRequest::new("POST", route)
        .header("content-type", content_type)
        .header("x-sig", &sign(body.as_bytes()))
        .body(body)
}

async fn start(platform: &Platform, name: &str, spec: Value) -> impl Sized + use<> {
    platform.apply(&documents(name, spec, &[ACME_SECRET])).await;
    let running = (platform.start(&["api"]), platform.start(&["worker"]));
    platform.wait_until_known(name).await;
    running
}

#[tokio::test]
async fn raw_delivery_has_the_bytes_and_the_content_type_of_the_webhook() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let mapping = json!({"eventType": ["header:x-kind"], "accept": ["opaque"], "deliver": "raw"});
    let _running = start(&platform, "raw", custom(&receiver, mapping)).await;
    let body = "<order  id='1'>\r\n</order>";
    let request = signed("raw", "application/xml; charset=utf-8", body).header("x-kind", "order");
    assert_eq!(request.send(&platform).await.status, 202);
    let delivery = &receiver.wait_for(1).await[0];
    assert_eq!(delivery.body, body);
    assert_eq!(delivery.header("content-type"), "application/xml; charset=utf-8");
}

#[tokio::test]
async fn cloud_event_is_a_structured_envelope() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let mapping = json!({
        "externalEventId": ["/id"], "eventType": ["/kind"], "occurredAt": ["json:/at"], "occurredAtFormat": "unix",
        "subject": ["json:/n"], "payload": "/data", "deliver": "cloudevents",
    });
    let _running = start(&platform, "envelope", custom(&receiver, mapping)).await;
    let body = r#"{"id":"e-1","kind":"order.created","at":1769850000,"n":7,"data":{"total":12345678901234567890.10}}"#;
    let answer = signed("envelope", "application/json", body).send(&platform).await;
    let delivery = &receiver.wait_for(1).await[0];
    assert_eq!(delivery.header("content-type"), "application/cloudevents+json");
    assert!(delivery.body.ends_with(r#","data":{"total":12345678901234567890.10}}"#), "{}", delivery.body);
    let mut json = delivery.json();
    assert!(json["source"].as_str().is_some_and(|source| source.starts_with("/integrations/")), "{json}");
    for member in ["source", "data"] {
        json[member].take();
    }
    let expected = json!({
        "specversion": "1.0", "id": answer.event_id(), "source": null, "type": "order.created",
        "time": "2026-01-31T09:00:00Z", "subject": "7", "datacontenttype": "application/json", "provider": "custom",
        "externaleventid": "e-1", "data": null,
    });
    assert_eq!(json, expected);
}

#[tokio::test]
async fn form_is_delivered_as_an_object_and_other_types_are_415() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let mapping = json!({"externalEventId": ["form:id"], "eventType": ["form:kind"], "accept": ["form"]});
    let _running = start(&platform, "forms", custom(&receiver, mapping)).await;
    let form = "application/x-www-form-urlencoded";
    let answer = signed("forms", form, "id=1&kind=a+b&x=%C3%A9&x=2").send(&platform).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let json = receiver.wait_for(1).await[0].json();
    assert_eq!(json["data"], json!({"id": "1", "kind": "a b", "x": ["é", "2"]}));
    assert_eq!((json["eventType"].as_str(), json["externalEventId"].as_str()), (Some("a b"), Some("1")));
    let event = platform.get(&format!("/api/v1/events/{}", answer.event_id())).await.json();
    assert_eq!(event["data"]["event"]["normalizedPayload"], json);
    assert_eq!(signed("forms", "application/json", "{}").send(&platform).await.status, 415);
    let missing = signed("forms", form, "id=2").send(&platform).await;
    assert_eq!((missing.status, missing.field().as_str()), (400, "the form field kind"));
}

#[tokio::test]
async fn without_an_id_equal_content_is_the_same_event_unless_every_request_is_one() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let same = custom(&receiver, json!({"eventType": ["literal:change"]}));
    let each = custom(&receiver, json!({"eventType": ["literal:change"], "externalEventId": ["request"]}));
    let yaml = documents("same", same, &[ACME_SECRET]) + &documents("each", each, &[ACME_SECRET]);
    platform.apply(&yaml).await;
    let _api = platform.start(&["api"]);
    platform.wait_until_known("same").await;
    let post =
        async |route: &str, body: &str| signed(route, "application/json", body).send(&platform).await.status;
    assert_eq!(post("same", r#"{"a":1,"b":[1,2]}"#).await, 202);
    assert_eq!(post("same", r#"{ "b": [1, 2], "a": 1 }"#).await, 200);
    assert_eq!(post("same", r#"{"a":1,"b":[2,1]}"#).await, 202);
    assert_eq!((post("each", "{}").await, post("each", "{}").await), (202, 202));
}

#[tokio::test]
async fn replayed_webhook_is_recognized_by_the_id_that_its_signature_covers() {
    let platform = Platform::new().await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let spec = json!({"provider": "standard-webhooks", "verification": {}});
    platform.apply(&documents("standard", spec, &[secret])).await;
    let _api = platform.start(&["api"]);
    platform.wait_until_known("standard").await;
    let signer = Signer::new(&json!({
        "type": "hmac", "key": {"encoding": "base64", "stripPrefix": "whsec_"},
        "message": "{header:webhook-id}.{timestamp}.{body}", "timestamp": {"from": "header:webhook-timestamp"},
        "signature": {"from": "header:webhook-signature", "separator": " ", "prefix": "v1,", "encoding": "base64"},
    }));
    platform
        .apply(&documents(
            "standard",
            json!({"provider": "standard-webhooks", "verification": {}}),
            &[&signer.secret],
        ))
        .await;
    let request = WebhookRequest::new("POST", "standard")
        .header("webhook-id", "msg_1")
        .header("webhook-timestamp", "@now@")
        .body(r#"{"type":"t"}"#);
    wait_until("the new secret", async || {
        signer.sign(&request, |signature| signature).send(&platform).await.status != 401
    })
    .await;
    let again = signer.sign(&request, |signature| signature).send(&platform).await;
    assert_eq!((again.status, again.json()["data"]["duplicate"].as_bool()), (200, Some(true)));
    let other_id = WebhookRequest {
        headers: vec![("webhook-id".into(), "msg_2".into()), ("webhook-timestamp".into(), "@now@".into())],
        ..request
    };
    let mut moved = signer.sign(&other_id, |signature| signature);
    moved.headers[0].1 = "msg_3".into();
    assert_eq!(moved.send(&platform).await.status, 401, "the id is covered");
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 1);
}

#[tokio::test]
async fn use_of_a_previous_secret_is_accepted_and_recorded() {
    let mut platform = Platform::new().await;
    platform.set("GRAPNEL_SHUTDOWN_SECONDS", "5");
    platform
        .apply(&documents(
            "acme",
            json!({"provider": "acme", "verification": {}}),
            &["the-new-one", ACME_SECRET],
        ))
        .await;
    let api = platform.start(&["api"]);
    platform.wait_until_known("acme").await;
    let answer = platform.post_acme(&acme_event("e-1")).await;
    assert_eq!(answer.status, 202);
    let event = platform.get(&format!("/api/v1/events/{}", answer.event_id())).await.json();
    assert_eq!(event["data"]["event"]["secretIndex"], 1);
    // Uses are written periodically, and at the end.
    assert!(api.stop().await.success());
    let used = platform.database.texts("SELECT secret FROM verification_secret_uses").await;
    assert_eq!(used, ["acme-secrets/s1"]);
}

#[tokio::test]
async fn wrong_custom_provider_is_refused_with_the_field() {
    let platform = Platform::new().await;
    let refused = async |spec: Value| {
        let path = platform.write_integrations(&documents("wrong", spec, &["secret"]));
        let output = platform.try_run(&["apply", "--file", path.to_str().expect("a path")]).await;
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let message =
        refused(json!({"provider": "custom", "verification": {"scheme": {"type": "hmac"}}, "mapping": {}}))
            .await;
    assert!(message.contains("spec.verification.scheme.message: must be set"), "{message}");
    assert!(message.contains("spec.mapping.eventType: must be set"), "{message}");
    let message =
        refused(json!({"provider": "acme", "verification": {"scheme": {"message": "{timestamp}.{body}"}}}))
            .await;
    assert!(message.contains("spec.verification.scheme.timestamp: must have from"), "{message}");
    let message = refused(json!({"provider": "standard-webhooks", "verification": {}})).await;
    assert!(message.contains("not base64") && !message.contains("secret\""), "{message}");
}
