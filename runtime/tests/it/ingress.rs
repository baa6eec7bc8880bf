//! The accepted requests of the webhook route, and its responses.

mod content;
mod dedupe;
mod packed;
mod refusals;
mod states;

use grapnel_testing::{TestReceiver, WAIT_TIMEOUT, acme_event};
use serde_json::json;

use super::harness::{Answer, GLOBEX_TOKEN, Platform, acme_integration, destination, integration, sign};

/// Returns a destination that nothing is delivered to, for tests without a worker.
fn nowhere() -> String {
    destination("orders", "http://127.0.0.1:9/")
}

fn globex_event(id: &str) -> String {
    json!({
        "id": id, "type": "asset.moved", "timestamp": "2026-11-24T10:00:00+01:00",
        "resource": {"id": "asset-7", "place": "Basel"},
    })
    .to_string()
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
    let json = answer.json();
    let members: Vec<&String> = json.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["error", "success"], "{json}");
    let members: Vec<&String> = json["error"].as_object().expect("an object").keys().collect();
    assert_eq!(members, ["code", "details", "message"], "{json}");
    assert_eq!(json["success"], false);
    assert!(json["error"]["details"].is_object() && json["error"]["message"].is_string(), "{json}");
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn new_and_duplicate_events_are_answered_in_exactly_the_form_of_the_contract() {
    let platform = Platform::new().await;
    let _api = platform.start_api(&acme_integration(&[nowhere()])).await;

    let new = platform.post_acme(&acme_event("e-1")).await;
    let (id, correlation_id) = (new.event_id(), new.header("x-correlation-id"));
    assert_eq!(new.status, 202);
    assert_eq!(
        new.text,
        format!(
            r#"{{"success":true,"data":{{"eventId":"{id}","status":"queued","duplicate":false,"correlationId":"{correlation_id}"}},"meta":{{}}}}"#
        )
    );
    assert_eq!(new.header("content-type"), "application/json");
    assert_eq!(uuid::Uuid::parse_str(&id).expect("a UUID").get_version_num(), 7);

    let duplicate = platform.post_acme(&acme_event("e-1")).await;
    let correlation_id = duplicate.header("x-correlation-id");
    assert_eq!(duplicate.status, 200);
    assert_eq!(
        duplicate.text,
        format!(
            r#"{{"success":true,"data":{{"eventId":"{id}","status":"duplicate","duplicate":true,"correlationId":"{correlation_id}"}},"meta":{{}}}}"#
        )
    );
}

#[tokio::test]
async fn accepted_event_is_stored_with_its_deliveries_and_audited() {
    let platform = Platform::new().await;
    let destinations = [nowhere(), destination("billing", "http://127.0.0.1:9/")];
    let _api = platform.start_api(&acme_integration(&destinations)).await;

    let id = platform.post_acme(&acme_event("e-1")).await.event_id();
    let count = async |sql: &str| platform.count(&sql.replace("$id", &id)).await;
    assert_eq!(count("SELECT count(*) FROM events WHERE id = '$id'").await, 1);
    assert_eq!(count("SELECT count(*) FROM deliveries WHERE event_id = '$id'").await, 2);
    let audited = platform.get(&format!("/api/v1/audit-entries?entityId={id}")).await.json();
    let audited: Vec<_> = audited["data"].as_array().expect("a list").iter().collect();
    assert_eq!(audited.len(), 1, "{audited:?}");
    assert_eq!(audited[0]["action"], "webhook.received");
    assert_eq!(audited[0]["actor"], "provider:acme");
}

#[tokio::test]
async fn correlation_id_is_taken_from_the_request_or_generated_and_always_returned() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let integration = acme_integration(&[destination("orders", &receiver.url("/"))]);
    let _running = platform.start_api_and_worker(&integration).await;
    let post = async |id: &str, correlation_id: &str| {
        let body = acme_event(id);
        let signature = sign(body.as_bytes());
        let headers = [("x-acme-signature", signature.as_str()), ("x-correlation-id", correlation_id)];
        platform.post("/api/v1/webhooks/acme", &headers, &body).await
    };

    let taken = post("e-1", "order-4711").await;
    assert_eq!(taken.header("x-correlation-id"), "order-4711");
    assert_eq!(taken.json()["data"]["correlationId"], "order-4711");
    assert_eq!(receiver.wait_for(1).await[0].header("x-correlation-id"), "order-4711");

    // An invalid id is replaced, not refused.
    for (number, unusable) in ["", "two words", "caf\u{e9}", &"x".repeat(129)].iter().enumerate() {
        let made = post(&format!("made-{number}"), unusable).await;
        assert_eq!(made.status, 202, "{made:?}");
        let id = made.header("x-correlation-id");
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{unusable:?}: {id}");
        assert_eq!(made.json()["data"]["correlationId"], id);
    }

    for (path, status) in [("/api/v1/webhooks/none", 404), ("/api/v1/webhooks/acme", 401), ("/nothing", 404)]
    {
        let refused = platform.post(path, &[("x-correlation-id", "kept")], "{}").await;
        assert_eq!((refused.status, refused.header("x-correlation-id")), (status, "kept"), "{path}");
    }
}

#[tokio::test]
async fn token_verifies_a_globex_webhook() {
    let platform = Platform::new().await;
    platform.apply(&integration("globex", "", &[nowhere()])).await;
    let _api = platform.start(&["api"]);
    platform.wait_until_known("globex").await;
    let post = async |token: &str| {
        platform.post("/api/v1/webhooks/globex", &[("x-globex-token", token)], &globex_event("g-1")).await
    };

    assert_eq!(post(GLOBEX_TOKEN).await.status, 202);
    assert_eq!(post(GLOBEX_TOKEN).await.status, 200);
    for wrong in ["", "x", &GLOBEX_TOKEN[1..], &format!("{GLOBEX_TOKEN}x"), &GLOBEX_TOKEN.to_uppercase()] {
        assert_refused(&post(wrong).await, 401, "UNAUTHORIZED");
    }
    let missing = platform.post("/api/v1/webhooks/globex", &[], &globex_event("g-1")).await;
    assert_refused(&missing, 401, "UNAUTHORIZED");
}

#[tokio::test]
async fn signature_is_accepted_in_either_case() {
    let platform = Platform::new().await;
    let _api = platform.start_api(&acme_integration(&[nowhere()])).await;
    let body = acme_event("e-1");
    let lower = sign(body.as_bytes());
    let mixed: String =
        lower.char_indices().map(|(at, c)| if at % 2 == 0 { c.to_ascii_uppercase() } else { c }).collect();
    for (signature, status) in [(&lower, 202), (&lower.to_uppercase(), 200), (&mixed, 200)] {
        let answer = platform.post("/api/v1/webhooks/acme", &[("x-acme-signature", signature)], &body).await;
        assert_eq!(answer.status, status, "{signature}: {answer:?}");
    }
}

#[tokio::test]
async fn webhook_over_http_2_is_accepted() {
    let mut platform = Platform::new().await;
    let _api = platform.start_api(&acme_integration(&[nowhere()])).await;
    let client = reqwest::Client::builder().http2_prior_knowledge();
    platform.http = client.timeout(WAIT_TIMEOUT).build().expect("a client");
    let posts = (0..50).map(|number| {
        let body = acme_event(&format!("e-{number}"));
        let platform = &platform;
        async move { platform.post_acme(&body).await }
    });
    let answers = futures::future::join_all(posts).await;
    assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
}

#[tokio::test]
async fn health_reports_every_datastore() {
    let platform = Platform::new().await;
    let _api = platform.start_api(&acme_integration(&[nowhere()])).await;

    // The first connection to each is made on demand.
    let health = platform.get("/api/v1/health").await;
    assert_eq!(health.status, 200, "{health:?}");
    let mut json = health.json();
    let timestamp = json["data"]["timestamp"].take();
    let timestamp = timestamp.as_str().expect("a time");
    assert!(timestamp.len() == "2026-11-24T10:00:00.000Z".len() && timestamp.ends_with('Z'), "{timestamp}");
    assert!(timestamp.parse::<jiff::Timestamp>().is_ok(), "{timestamp}");
    let ok = json!({"status": "ok"});
    let checks = json!({"postgres": ok, "redis": ok, "rabbitmq": ok});
    let expected = json!({
        "success": true, "meta": {},
        "data": {"status": "ok", "timestamp": null, "checks": checks, "unusableIntegrations": 0},
    });
    assert_eq!(json, expected);

    let without_key = platform.http.get(platform.url("/api/v1/health")).send().await.expect("an answer");
    assert_eq!(without_key.status(), 200);
    let head = platform.http.head(platform.url("/api/v1/health")).send().await.expect("an answer");
    assert_eq!(head.status(), 200);
}
