//! `GET /rejections`.

use grapnel_testing::{acme_event, wait_until};
use serde_json::{Value, json};

use crate::harness::{Platform, acme_integration, destination};

async fn rejections(platform: &Platform) -> Value {
    let answer = platform.get("/api/v1/rejections?route=acme").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["meta"], json!({"available": true}));
    answer.json()["data"].clone()
}

#[tokio::test]
async fn the_last_refusals_of_a_route_say_why_and_hold_no_value() {
    let platform = Platform::new().await;
    let _api = platform.start_api(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    assert_eq!(platform.post_acme(&acme_event("e-1")).await.status, 202);
    let headers = [("x-acme-signature", "needle-in-a-header"), ("x-other", "needle-too")];
    assert_eq!(platform.post("/api/v1/webhooks/acme", &headers, r#"{"a":"needle"}"#).await.status, 401);
    assert_eq!(platform.post_acme("needle").await.status, 400);
    assert_eq!(platform.post("/api/v1/webhooks/nobody", &headers, "{}").await.status, 404);
    // The first one was the question whether the route is known.
    wait_until("the refusals to be noted", async || {
        rejections(&platform).await.as_array().is_some_and(|noted| noted.len() == 3)
    })
    .await;
    let noted = rejections(&platform).await;
    let outcomes: Vec<_> = noted.as_array().unwrap().iter().map(|it| &it["outcome"]).collect();
    assert_eq!(outcomes, ["malformed", "unauthorized", "unauthorized"]);
    let forged = &noted[1];
    let names: Vec<_> = forged["headerNames"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(names.contains(&"x-acme-signature") && names.contains(&"x-other"), "{forged}");
    assert_eq!((&forged["clientIp"], &forged["contentLength"]), (&json!("127.0.0.1"), &json!(14)));
    assert!(forged["reason"].as_str().is_some_and(|reason| reason.contains("signature")), "{forged}");
    assert!(!noted.to_string().contains("needle"), "{noted}");

    assert_eq!(platform.get("/api/v1/rejections?route=nobody").await.status, 404);
    assert_eq!(platform.get("/api/v1/rejections").await.field(), "route");
}
