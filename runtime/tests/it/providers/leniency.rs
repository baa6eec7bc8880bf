//! What a standard, or the world, asks to be forgiven.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use grapnel_testing::signer::Signer;
use grapnel_testing::{ACME_SECRET, TestReceiver, WebhookRequest, acme_event};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::harness::{Platform, acme_integration, destination, sign};
use super::sent::{Senders, webhook};
use super::{SendTo, documents};

#[tokio::test]
async fn one_line_end_after_a_secret_is_not_part_of_it() {
    for (end, status) in [("\n", 202), ("\r\n", 202), ("\n\n", 401), (" ", 401)] {
        let platform = Platform::new().await;
        let spec = json!({"provider": "acme", "verification": {}});
        platform.apply(&documents("acme", spec, &[&format!("{ACME_SECRET}{end}")])).await;
        let _api = platform.start(&["api"]);
        platform.wait_until_accepting().await;
        assert_eq!(platform.post_acme(&acme_event("e-1")).await.status, status, "{end:?}");
    }
}

#[tokio::test]
async fn a_byte_order_mark_before_json_is_skipped_and_kept_in_what_came() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let integrations = acme_integration(&[destination("orders", &receiver.url("/"))])
        + &documents(
            "github",
            json!({
                "provider": "github", "verification": {}, "mapping": {"deliver": "raw"},
                "destinations": [{"name": "raw", "url": receiver.url("/raw")}],
            }),
            &[ACME_SECRET],
        );
    let _running = platform.start_api_and_worker(&integrations).await;
    platform.wait_until_known("github").await;
    let body = format!("\u{feff}{}", acme_event("e-1"));
    let accepted = platform.post_acme(&body).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    assert_eq!(platform.post_acme(&acme_event("e-1")).await.status, 200);
    let delivered = receiver.wait_for(1).await[0].json();
    assert_eq!(delivered["data"]["id"], "order-e-1", "{delivered}");

    let body = "\u{feff}{\"action\":\"opened\"}";
    let headers = [
        ("x-hub-signature-256", format!("sha256={}", sign(body.as_bytes()))),
        ("x-github-event", "issues".to_owned()),
    ];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let accepted = platform.post("/api/v1/webhooks/github", &headers, body).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    assert_eq!(receiver.wait_for(2).await[1].body, body, "raw delivery has the bytes that came");
    let record = platform.get(&format!("/api/v1/events/{}", accepted.event_id())).await.json();
    assert_eq!(record["data"]["event"]["normalizedPayload"]["data"], json!({"action": "opened"}));
    assert_eq!(record["data"]["webhook"]["rawBody"], STANDARD.encode(body));
}

#[tokio::test]
async fn an_authentication_scheme_may_be_in_any_case() {
    let senders = Senders::start(&["cloudevents"]).await;
    let token = &senders.signers["cloudevents"].secret;
    let post = async |authorization: String| {
        let request = webhook("cloudevents", r#"{"id":"1","source":"/a","type":"t"}"#);
        request.header("authorization", &authorization).send(&senders.platform).await.status
    };
    assert_eq!(post(format!("bearer {token}")).await, 202);
    assert_eq!(post(format!("BEARER  {token}")).await, 200);
    assert_eq!(post(format!("bearer {}", token.to_uppercase())).await, 401);
    assert_eq!(post(format!("bearer{token}")).await, 401);
    assert_eq!(post(format!("basic {token}")).await, 401);
}

#[tokio::test]
async fn a_slash_after_the_route_is_no_other_route() {
    let platform = Platform::new().await;
    let _api = platform.start_api(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    let post = async |path: &str| {
        let body = acme_event("e-1");
        platform.post(path, &[("x-acme-signature", &sign(body.as_bytes()))], &body).await.status
    };
    assert_eq!(post("/api/v1/webhooks/acme/").await, 202);
    assert_eq!(post("/api/v1/webhooks/acme").await, 200);
    assert_eq!(post("/api/v1/webhooks/acme//").await, 404);
    assert_eq!(post("/api/v1/webhooks/").await, 404);
}

fn mailgun(message_id: &str) -> WebhookRequest {
    let body = json!({
        "signature": {"timestamp": "@now@", "token": format!("t-{}", message_id.len()), "signature": "@signature@"},
        "event-data": {"event": "opened", "message": {"headers": {"message-id": message_id}}},
    });
    WebhookRequest::new("POST", "mailgun").header("content-type", "application/json").body(&body.to_string())
}

#[tokio::test]
async fn an_optional_field_that_cannot_be_stored_is_left_out_with_a_note() {
    let senders = Senders::start(&["mailgun", "zendesk"]).await;
    for (message_id, reason) in [
        ("x".repeat(600), "must not be longer than 512 bytes"),
        ("a\0b".to_owned(), "must not contain the character U+0000"),
    ] {
        let accepted = senders.post(&mailgun(&message_id)).await;
        assert_eq!(accepted.status, 200, "{accepted:?}");
        let record = senders.record(&accepted.event_id()).await;
        assert_eq!(record["event"]["subject"], Value::Null);
        assert_eq!(record["webhook"]["leftOut"], json!([{"field": "subject", "reason": reason}]), "{record}");
        let details = "SELECT count(*) FROM audit_entries WHERE action = 'webhook.received'
            AND details -> 'leftOut' -> 0 ->> 'field' = 'subject' AND entity_id = '$id'";
        assert_eq!(senders.platform.count(&details.replace("$id", &accepted.event_id())).await, 1);
    }
    let body = json!({"type": "t", "time": "9".repeat(600)}).to_string();
    let accepted = senders.post(&webhook("zendesk", &body)).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let record = senders.record(&accepted.event_id()).await;
    assert_eq!(record["webhook"]["leftOut"][0]["field"], "occurredAt", "{record}");
}

#[tokio::test]
async fn a_signature_may_be_in_base64_for_urls_and_without_padding() {
    let senders = Senders::start(&["woocommerce"]).await;
    let signature = |body: &str| {
        let signature = senders.signers["woocommerce"].signature(body.as_bytes());
        URL_SAFE_NO_PAD.encode(signature.expect("a keyed scheme"))
    };
    // A body whose signature has a character that the alphabets write differently.
    let mut bodies = (0..).map(|number| format!(r#"{{"id":{number}}}"#));
    let body = bodies.find(|body| signature(body).contains(['-', '_'])).expect("one in two has");
    let signature = signature(&body);
    let request =
        WebhookRequest::new("POST", "woocommerce").header("content-type", "application/json").body(&body);
    let request = request.header("x-wc-webhook-topic", "order.created");
    let spoiled = request.clone().header("x-wc-webhook-signature", &signature.to_lowercase());
    assert_eq!(spoiled.send(&senders.platform).await.status, 401);
    let accepted = request.header("x-wc-webhook-signature", &signature).send(&senders.platform).await;
    assert_eq!(accepted.status, 200, "{accepted:?}");
}

fn in_lines(base64: &str) -> String {
    let lines: Vec<&str> =
        (0..base64.len()).step_by(64).map(|at| &base64[at..base64.len().min(at + 64)]).collect();
    lines.join("\n")
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", in_lines(&STANDARD.encode(der)))
}

#[tokio::test]
async fn a_public_key_may_be_pem_or_base64_with_line_ends() {
    let ed25519_prefix = hex::decode("302a300506032b6570032100").expect("hex");
    let as_pem = |signer: &Signer| match hex::decode(&signer.secret) {
        Ok(key) => pem(&[ed25519_prefix.clone(), key].concat()),
        Err(_) => pem(&STANDARD.decode(&signer.secret).expect("base64")),
    };
    let senders = Senders::start_with(&["sendgrid", "discord"], as_pem).await;
    let events = webhook("sendgrid", r#"[{"sg_event_id":"1","event":"delivered"}]"#);
    let update = webhook("discord", r#"{"type":1,"event":{"type":"ENTITLEMENT_CREATE"}}"#);
    for request in [&events, &update] {
        let accepted = senders.post(request).await;
        assert!(accepted.status < 300, "{accepted:?}");
    }
    let senders = Senders::start_with(&["sendgrid"], |signer| in_lines(&signer.secret)).await;
    assert_eq!(senders.post(&events).await.status, 202);
}

/// Mailgun repeats the signature of its first attempt for eight hours.
#[tokio::test]
async fn a_signature_that_is_repeated_is_accepted_as_long_as_its_provider_repeats_it() {
    let senders = Senders::start(&["mailgun", "zendesk"]).await;
    let status = async |request: WebhookRequest, minutes: i64| {
        let then = Timestamp::now() - SignedDuration::from_mins(minutes);
        let signed = senders.signers[&request.route].sign_at(&request, then, |signature| signature);
        signed.send(&senders.platform).await.status
    };
    assert_eq!(status(mailgun("m"), 8 * 60).await, 200);
    assert_eq!(status(mailgun("other"), 8 * 60 + 10).await, 401);
    assert_eq!(status(webhook("zendesk", "{}"), 4).await, 202);
    assert_eq!(status(webhook("zendesk", "{}"), 6).await, 401, "signed anew at each attempt");
}

#[tokio::test]
async fn data_of_a_binary_cloud_event_is_any_value_or_absent() {
    let senders = Senders::start(&["cloudevents"]).await;
    let token = senders.signers["cloudevents"].secret.clone();
    let mut number = 0;
    let mut check = async |content_type: Option<&str>, body: &str, expected: Value| {
        number += 1;
        let mut request = WebhookRequest::new("POST", "cloudevents").body(body);
        for (name, value) in [
            ("authorization", format!("Bearer {token}").as_str()),
            ("ce-specversion", "1.0"),
            ("ce-type", "t"),
            ("ce-source", "/a"),
            ("ce-id", &format!("{number}")),
        ] {
            request = request.header(name, value);
        }
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let accepted = request.send(&senders.platform).await;
        assert_eq!(accepted.status, 202, "{body:?}: {accepted:?}");
        let record = senders.record(&accepted.event_id()).await;
        assert_eq!(record["event"]["normalizedPayload"]["data"], expected, "{body:?}");
    };
    let json = Some("application/json");
    check(None, "", Value::Null).await;
    check(json, "", Value::Null).await;
    check(json, "42", json!(42)).await;
    check(json, "\"hello\"", json!("hello")).await;
    check(json, " null ", Value::Null).await;
    check(json, "[1]", json!([1])).await;
    check(Some("text/plain"), "hello", json!("hello")).await;
    let structured = webhook("cloudevents", "42").header("authorization", &format!("Bearer {token}"));
    assert_eq!(structured.send(&senders.platform).await.status, 400, "no attribute is anywhere");
}
