//! The content of a body, and its delivery without a change.

use grapnel_testing::{TestReceiver, acme_event};
use serde_json::json;

use super::super::harness::{GLOBEX_TOKEN, Platform, acme_integration, destination, integration};
use super::{assert_refused, globex_event, nowhere};

#[tokio::test]
async fn data_is_delivered_byte_for_byte() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let integration = acme_integration(&[destination("orders", &receiver.url("/"))]);
    let _running = platform.start_api_and_worker(&integration).await;
    let many_digits = format!(r#"{{"n":{}}}"#, "9".repeat(100_000));
    for (number, data) in [
        r#"{"n":12345678901234567890123456789012345678901234567890,"f":0.1000000000000000055511151231257827}"#,
        r#"{"n":1e999,"m":-1E-999,"z":-0.0,"o":1.0}"#,
        r#"{"nul":"a\u0000b","\u0000":"\u0000","escaped":"\/\u00e9\ud83d\ude00"}"#,
        r#"{"lone":"\ud83d","text":"żółć 😀"}"#,
        "{ \"spaced\" :\t[ 1 ,2 ],\r\n \"b\":1, \"a\":2, \"a\":3 }",
        r#"{"{\"":"}\\\"","[":"]"}"#,
        "{}",
        &many_digits,
    ]
    .into_iter()
    .enumerate()
    {
        let (id, kind) = (format!("e-{number}"), r"order.\u00e9\/\n");
        let body = format!(
            r#" {{"data" : {data} ,"eventId":"{id}","eventType":"{kind}","occurredAt":"2026-11-24T10:00:00Z"}} "#
        );
        let accepted = platform.post_acme(&body).await;
        assert_eq!(accepted.status, 202, "{data}: {accepted:?}");
        let deliveries = receiver.wait_for(number + 1).await;
        let expected = format!(
            r#"{{"provider":"acme","eventType":"order.é/\n","externalEventId":"{id}","data":{data}}}"#
        );
        assert_eq!(deliveries[number].body, expected);
        // The API shows the same bytes.
        let shown = platform.get(&format!("/api/v1/events/{}", accepted.event_id())).await;
        assert!(shown.status == 200 && shown.text.contains(&expected), "{data}: {shown:?}");
    }
}

#[tokio::test]
async fn nul_in_a_required_text_is_refused_with_the_name_of_the_field_and_in_an_optional_one_left_out() {
    let platform = Platform::new().await;
    let both = acme_integration(&[nowhere()]) + "---\n" + &integration("globex", "", &[nowhere()]);
    let _api = platform.start_api(&both).await;
    platform.wait_until_known("globex").await;
    let acme = acme_event("e-1").replacen('{', r#"{"subject":"s-1","#, 1);
    let check = async |from: &str, field: &str| {
        let body = acme.replacen(&format!("\"{from}\""), r#""a\u0000b""#, 1);
        assert_ne!(body, acme);
        let answer = platform.post_acme(&body).await;
        assert_refused(&answer, 400, "VALIDATION_ERROR");
        assert_eq!(answer.field(), field, "{answer:?}");
    };
    check("e-1", "eventId").await;
    check("order.created", "eventType").await;

    let check = async |from: &str, field: &str| {
        let body = globex_event("g-1").replacen(from, r"\u0000", 1);
        let answer =
            platform.post("/api/v1/webhooks/globex", &[("x-globex-token", GLOBEX_TOKEN)], &body).await;
        assert_refused(&answer, 400, "VALIDATION_ERROR");
        assert_eq!(answer.field(), field, "{answer:?}");
    };
    check("g-1", "id").await;
    check("asset.moved", "type").await;
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 0);

    for optional in
        [acme.replacen("s-1", r"\u0000", 1), acme_event("e-2").replacen("order-e-2", r"\u0000", 1)]
    {
        let accepted = platform.post_acme(&optional).await;
        assert_eq!(accepted.status, 202, "{accepted:?}");
        let record = platform.get(&format!("/api/v1/events/{}", accepted.event_id())).await.json();
        assert_eq!(record["data"]["event"]["subject"], json!(null));
        assert_eq!(record["data"]["webhook"]["leftOut"][0]["field"], "subject");
    }
}

#[tokio::test]
async fn missing_or_invalid_field_of_a_verified_webhook_is_refused_with_its_name() {
    let platform = Platform::new().await;
    let both = acme_integration(&[nowhere()]) + "---\n" + &integration("globex", "", &[nowhere()]);
    let _api = platform.start_api(&both).await;
    platform.wait_until_known("globex").await;
    let without = |body: &str, field: &str| {
        let mut json: serde_json::Value = serde_json::from_str(body).expect("JSON");
        json.as_object_mut().expect("an object").remove(field);
        json.to_string()
    };
    for field in ["eventId", "eventType", "occurredAt", "data"] {
        let answer = platform.post_acme(&without(&acme_event("e-1"), field)).await;
        assert_refused(&answer, 400, "VALIDATION_ERROR");
        assert_eq!(answer.field(), field, "{answer:?}");
    }
    for field in ["id", "type", "timestamp", "resource"] {
        let body = without(&globex_event("g-1"), field);
        let answer =
            platform.post("/api/v1/webhooks/globex", &[("x-globex-token", GLOBEX_TOKEN)], &body).await;
        assert_refused(&answer, 400, "VALIDATION_ERROR");
        assert_eq!(answer.field(), field, "{answer:?}");
    }
    for time in [
        "yesterday",
        "2026-11-24",
        "2026-11-24T10:00:00",
        "2026-02-30T10:00:00Z",
        "-009999-01-01T00:00:00Z",
        "-004800-01-01T00:00:00Z",
        "+012026-11-24T10:00:00Z",
        "9999-12-31T23:59:60Z[Europe/Berlin]",
    ] {
        let answer = platform.post_acme(&acme_event("e-1").replace("2026-11-24T10:00:00Z", time)).await;
        assert_refused(&answer, 400, "VALIDATION_ERROR");
        assert_eq!(answer.field(), "occurredAt", "{time}: {answer:?}");
    }
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 0);
}

#[tokio::test]
async fn subject_falls_back_to_the_id_of_the_data() {
    let platform = Platform::new().await;
    let _api = platform.start_api(&acme_integration(&[nowhere()])).await;
    let base = json!({"eventType": "t", "occurredAt": "2026-11-24T10:00:00.123456789+02:00"});
    let check =
        async |id: &str, subject: serde_json::Value, data: serde_json::Value, expected: serde_json::Value| {
            let mut body = base.clone();
            body["eventId"] = json!(id);
            body["data"] = data;
            if !subject.is_null() {
                body["subject"] = subject;
            }
            let accepted = platform.post_acme(&body.to_string()).await;
            assert_eq!(accepted.status, 202, "{accepted:?}");
            let event = platform.get(&format!("/api/v1/events/{}", accepted.event_id())).await.json();
            assert_eq!(event["data"]["event"]["subject"], expected, "{event}");
            assert_eq!(event["data"]["event"]["occurredAt"], "2026-11-24T08:00:00.123Z", "{event}");
        };
    check("e-1", json!("s"), json!({"id": "d"}), json!("s")).await;
    check("e-2", json!(null), json!({"id": "d"}), json!("d")).await;
    check("e-3", json!(7), json!({"id": "d"}), json!("d")).await;
    check("e-4", json!(null), json!({"id": 7}), json!(null)).await;
    check("e-5", json!(null), json!({}), json!(null)).await;
}
