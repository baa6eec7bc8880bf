//! What a client learns when the database does not do its part.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use grapnel::http::KEY_HEADER;
use grapnel::management::router;
use grapnel_store::events::{NewEvent, NewPayload};
use secrecy::SecretString;
use tokio::sync::Notify;
use uuid::Uuid;

use super::harness::{Api, KEY, event, send, state, whole};

#[tokio::test]
async fn without_a_database_every_route_is_unavailable() {
    // A port that nothing listens on.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = SecretString::from(format!("postgres://nobody@127.0.0.1:{port}/none?sslmode=disable"));
    let db = grapnel_store::Database::new(&url, "test", 1).unwrap();
    let router = router(state(db, Arc::new(Notify::new())));
    let id = Uuid::now_v7();
    let get = |path: String| Request::get(path).header(KEY_HEADER, KEY).body(Body::empty()).unwrap();
    let post = Request::post(format!("/events/{id}/replay"))
        .header(KEY_HEADER, KEY)
        .body(Body::from(r#"{"reason":"because"}"#))
        .unwrap();
    let mut requests: Vec<_> = [
        "/integrations",
        "/events",
        "/events/{id}",
        "/events/{id}/status",
        "/processing-status/{id}",
        "/deliveries",
        "/audit-entries",
        "/replay-requests",
        "/replay-requests/{id}",
    ]
    .map(|path| get(path.replace("{id}", &id.to_string())))
    .into();
    requests.push(post);
    let answers = requests.into_iter().map(|request| send(&router, request));
    for answer in futures::future::join_all(answers).await {
        let answer = answer.refused(503, "DEPENDENCY_UNAVAILABLE");
        assert_eq!(answer.headers["retry-after"], "5");
        assert!(!answer.body.contains(&port.to_string()), "{}", answer.body);
    }
}

#[tokio::test]
async fn statements_that_take_too_long_are_ended() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let id = api.store(event(integration)).await;
    let mut blocker = api.database.begin().await;
    blocker.execute("LOCK TABLE events, deliveries IN ACCESS EXCLUSIVE MODE").await;
    let path = format!("/events/{id}/replay");
    let (list, replay) = tokio::join!(api.get("/events"), api.post(&path, r#"{"reason":"because"}"#));
    for answer in [list, replay] {
        assert_eq!(answer.refused(503, "DEPENDENCY_UNAVAILABLE").headers["retry-after"], "5");
    }
    blocker.rollback().await;
    // The connections are usable again.
    assert_eq!(api.ids("/events").await, [id]);
}

#[tokio::test]
async fn a_fault_of_ours_is_a_constant_500() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    // A payload that is not JSON cannot be stored by the ingress.
    let impossible = NewEvent {
        request: whole(Bytes::from_static(b"secret{")),
        payload: NewPayload::Slice(0..7),
        ..event(integration)
    };
    let id = api.store(impossible).await;
    for path in ["/events".to_owned(), format!("/events/{id}")] {
        let answer = api.get(&path).await.refused(500, "INTERNAL_SERVER_ERROR");
        assert_eq!(answer.json["error"]["message"], "Internal server error");
        assert!(!answer.body.contains("secret"));
    }
    // What does not need the payload still answers.
    assert_eq!(api.get(&format!("/events/{id}/status")).await.json["data"]["status"], "pending");
}
