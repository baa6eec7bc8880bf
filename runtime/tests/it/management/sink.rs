//! The delivery sink.

use axum::body::Body;
use axum::http::{Request, StatusCode};

use super::harness::{Answer, Api, send};

async fn deliver(api: &Api, body: impl Into<Body>) -> Answer {
    send(&api.router, Request::post("/internal/delivery-sink/acme").body(body.into()).expect("a request"))
        .await
}

#[tokio::test]
async fn deliveries_are_taken_or_fail_on_request() {
    let api = Api::start().await;
    for fine in ["", "not json", r#"{"provider":"acme","data":{"id":"1"}}"#, r#"{"simulateFailure":false}"#] {
        let answer = deliver(&api, fine).await.expect(StatusCode::ACCEPTED);
        assert_eq!(answer.json["data"]["provider"], "acme");
    }
    for failing in [r#"{"simulateFailure":true}"#, r#"{"data":{"simulateFailure":true}}"#] {
        deliver(&api, failing).await.refused(500, "INTERNAL_SERVER_ERROR");
    }
}

#[tokio::test]
async fn the_largest_delivery_is_taken_and_a_larger_is_not() {
    let api = Api::start().await;
    let largest = 11 * 1024 * 1024;
    deliver(&api, vec![b' '; largest]).await.expect(StatusCode::ACCEPTED);
    deliver(&api, vec![b' '; largest + 1]).await.refused(413, "PAYLOAD_TOO_LARGE");
    let sink = "/internal/delivery-sink/%ff";
    send(&api.router, Request::post(sink).body(Body::empty()).unwrap()).await.invalid("provider");
}
