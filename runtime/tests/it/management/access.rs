//! Who is let in, and what paths and methods there are.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use grapnel::http::KEY_HEADER;
use grapnel::management::openapi::{Served, document};
use grapnel::management::{ManagementState, router};
use uuid::Uuid;

use super::harness::{Api, KEY, PREVIOUS_KEY, send, state};

/// Method and path of every managed route, with an id that nothing has.
fn managed_routes() -> Vec<(Method, String)> {
    let id = Uuid::now_v7().to_string();
    let mut routes = Vec::new();
    for (path, item) in document(Served::EVERYTHING).paths.paths {
        let path = path.strip_prefix("/api/v1").expect("the base path").replace("{id}", &id);
        for (method, operation) in [
            (Method::GET, item.get),
            (Method::POST, item.post),
            (Method::PATCH, item.patch),
            (Method::DELETE, item.delete),
        ] {
            if operation.is_some_and(|operation| operation.security.is_some()) {
                routes.push((method, path.clone()));
            }
        }
    }
    routes
}

fn request(method: &Method, path: &str, key: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(key) = key {
        request = request.header(KEY_HEADER, key);
    }
    request.body(Body::empty()).expect("a request")
}

#[tokio::test]
async fn without_a_valid_key_every_route_answers_the_same() {
    let api = Api::start().await;
    let routes = managed_routes();
    assert_eq!(routes.len(), 23);
    let mut bodies = Vec::new();
    for (method, path) in routes {
        for key in [None, Some(""), Some("wrong"), Some("current-key-012345678")] {
            for (method, path) in [
                (&method, path.clone()),
                (&method, format!("{path}?nonsense=1&nonsense")),
                (&Method::PUT, path.clone()),
            ] {
                let answer = send(&api.router, request(method, &path, key)).await;
                bodies.push(answer.refused(401, "UNAUTHORIZED").body);
            }
        }
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
}

#[tokio::test]
async fn both_keys_are_valid_and_two_at_once_are_not() {
    let api = Api::start().await;
    for key in [KEY, PREVIOUS_KEY] {
        send(&api.router, request(&Method::GET, "/events", Some(key))).await.expect(StatusCode::OK);
    }
    let twice = Request::get("/events").header(KEY_HEADER, KEY).header(KEY_HEADER, PREVIOUS_KEY);
    send(&api.router, twice.body(Body::empty()).unwrap()).await.refused(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn unknown_paths_are_404_in_the_envelope() {
    let api = Api::start().await;
    for path in ["/", "/nothing", "/events/", "/events/a/b/c", "/%ff", "/internal/delivery-sink/"] {
        api.get(path).await.refused(404, "NOT_FOUND");
    }
}

#[tokio::test]
async fn unknown_methods_are_405_and_name_those_there_are() {
    let api = Api::start().await;
    let routes = managed_routes();
    for (method, path) in &routes {
        for other in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS, Method::TRACE] {
            if routes.contains(&(other.clone(), path.clone())) {
                continue;
            }
            let answer = send(&api.router, request(&other, path, Some(KEY))).await;
            let answer = answer.refused(405, "METHOD_NOT_ALLOWED");
            let allowed = answer.headers["allow"].to_str().unwrap();
            assert!(allowed.split(',').any(|allowed| allowed.trim() == method.as_str()), "{path}: {allowed}");
        }
    }
    let answer = send(&api.router, request(&Method::GET, "/internal/delivery-sink/acme", None)).await;
    assert_eq!(answer.refused(405, "METHOD_NOT_ALLOWED").headers["allow"], "POST");
}

#[tokio::test]
async fn the_sink_is_not_there_in_production() {
    let api = Api::start().await;
    let production = ManagementState { delivery_sink: false, ..state(api.db.clone(), api.replays.clone()) };
    let router = router(production);
    let sink = || Request::post("/internal/delivery-sink/acme").body(Body::from("{}")).unwrap();
    send(&router, sink()).await.refused(404, "NOT_FOUND");
    send(&api.router, sink()).await.expect(StatusCode::ACCEPTED);
}

#[tokio::test]
async fn ids_that_are_none_name_the_field() {
    let api = Api::start().await;
    let routes = [
        "/integrations/{id}",
        "/events/{id}",
        "/events/{id}/status",
        "/processing-status/{id}",
        "/replay-requests/{id}",
        "/replays/{id}",
    ];
    for route in routes {
        for id in [
            "1",
            "%ff",
            "%00",
            "%2F",
            "a%20b",
            "019b0000-0000-7abc-8def-0123456789a",
            "019b000000007abc8def0123456789ab",
            "%7B019b0000-0000-7abc-8def-0123456789ab%7D",
            "019b0000-0000-7abc-8def-0123456789az",
        ] {
            api.get(&route.replace("{id}", id)).await.invalid("id");
        }
    }
    api.post("/events/x/replay", r#"{"reason":"because"}"#).await.invalid("id");
}

#[tokio::test]
async fn ids_that_nothing_has_are_404() {
    let api = Api::start().await;
    let routes = [
        "/integrations/{id}",
        "/events/{id}",
        "/events/{id}/status",
        "/processing-status/{id}",
        "/replay-requests/{id}",
        "/replays/{id}",
    ];
    for route in routes {
        for id in [Uuid::now_v7(), Uuid::nil(), Uuid::max()] {
            api.get(&route.replace("{id}", &id.to_string())).await.refused(404, "NOT_FOUND");
        }
    }
    let replay = format!("/events/{}/replay", Uuid::now_v7());
    api.post(&replay, r#"{"reason":"because"}"#).await.refused(404, "NOT_FOUND");
}
