//! Query strings.

use axum::http::StatusCode;
use grapnel::management::openapi::{Served, document};
use utoipa::openapi::RefOr;
use uuid::Uuid;

use super::harness::{Api, event};

const LISTS: [&str; 5] = ["/integrations", "/events", "/deliveries", "/audit-entries", "/replay-requests"];

#[tokio::test]
async fn what_is_wrong_in_a_query_is_named() {
    let api = Api::start().await;
    for list in LISTS {
        for (query, field) in [
            ("nonsense=1", "nonsense"),
            ("Page=1", "Page"),
            ("page", "page"),
            ("page=0", "page"),
            ("page=x", "page"),
            ("page=1&page=2", "page"),
            ("page=501&pageSize=21", "page"),
            ("pageSize=0", "pageSize"),
            ("pageSize=101", "pageSize"),
            ("cursor=", "cursor"),
            ("cursor=AAAA", "cursor"),
            ("page=1&cursor=AAAA", "cursor"),
            ("%ff=1", "%ff"),
        ] {
            api.get(&format!("{list}?{query}")).await.invalid(field);
        }
    }
    for (path, field) in [
        ("/events?status=done", "status"),
        ("/events?status=", "status"),
        ("/events?status=FAILED", "status"),
        ("/events?status=failed&status=failed", "status"),
        ("/events?provider=", "provider"),
        ("/events?provider=a%00b", "provider"),
        ("/events?provider=%ff", "provider"),
        ("/events?eventType=%00", "eventType"),
        ("/events?subject=", "subject"),
        ("/events?subject=%00", "subject"),
        ("/events?from=yesterday", "from"),
        ("/events?from=2026-01-01", "from"),
        ("/events?to=2026-01-01T00:00:00+01:00", "to"),
        ("/events?sortBy=id", "sortBy"),
        ("/events?sortOrder=up", "sortOrder"),
        ("/events?activeOnly=true", "activeOnly"),
        ("/events?integration=acme", "integration"),
        ("/events?integration=", "integration"),
        ("/events?integration=a/", "integration"),
        ("/events?integration=a/b/c", "integration"),
        ("/events?integration=Shop/acme", "integration"),
        ("/events?namespace=", "namespace"),
        ("/events?destination=", "destination"),
        ("/events?externalEventId=", "externalEventId"),
        ("/events?correlationId=%00", "correlationId"),
        ("/events?receivedFrom=now", "receivedFrom"),
        ("/events?receivedTo=2026-01-01", "receivedTo"),
        ("/events?httpStatus=99", "httpStatus"),
        ("/events?httpStatus=600", "httpStatus"),
        ("/events?httpStatus=0200", "httpStatus"),
        ("/events?httpStatus=%2B20", "httpStatus"),
        ("/events?namespace=shop&q=", "q"),
        ("/integrations?activeOnly=1", "activeOnly"),
        ("/integrations?provider=", "provider"),
        ("/integrations?status=failed", "status"),
        ("/deliveries?status=succeeded", "status"),
        ("/deliveries?eventId=1", "eventId"),
        ("/integrations/00000000-0000-7000-8000-000000000000/stats?window=2h", "window"),
        ("/integrations/00000000-0000-7000-8000-000000000000/stats?page=1", "page"),
        ("/integrations/1/stats", "id"),
        ("/deliveries?integration=1", "integration"),
        ("/deliveries?destination=", "destination"),
        ("/deliveries?from=1", "from"),
        ("/deliveries?to=1", "to"),
        ("/deliveries?httpStatus=x", "httpStatus"),
        ("/deliveries?errorContains=", "errorContains"),
        ("/audit-entries?actor=", "actor"),
        ("/audit-entries?from=1", "from"),
        ("/audit-entries?integration=1", "integration"),
        ("/audit-entries?entityType=delivery", "entityType"),
        ("/audit-entries?entityId=x", "entityId"),
        ("/audit-entries?action=", "action"),
        ("/audit-entries?action=%00", "action"),
        ("/replay-requests?status=done", "status"),
        ("/replay-requests?eventId=%7B%7D", "eventId"),
    ] {
        api.get(path).await.invalid(field);
    }
    let long = "x".repeat(256);
    for (list, field) in [
        ("/events", "provider"),
        ("/events", "eventType"),
        ("/events", "subject"),
        ("/audit-entries", "action"),
    ] {
        api.get(&format!("{list}?{field}={long}")).await.invalid(field);
    }
    let id = Uuid::now_v7();
    for route in ["/events/{id}", "/events/{id}/status", "/processing-status/{id}", "/replay-requests/{id}"] {
        api.get(&format!("{}?verbose=1", route.replace("{id}", &id.to_string()))).await.invalid("verbose");
    }
    api.post(&format!("/events/{id}/replay?force=1"), r#"{"reason":"because"}"#).await.invalid("force");
}

#[tokio::test]
async fn a_page_too_deep_points_to_the_cursor() {
    let api = Api::start().await;
    for list in LISTS {
        api.get(&format!("{list}?page=101&pageSize=100")).await.expect(StatusCode::OK);
        let answer = api.get(&format!("{list}?page=102&pageSize=100")).await.invalid("page");
        assert!(answer.json["error"]["message"].as_str().unwrap().contains("cursor"), "{}", answer.body);
    }
}

#[tokio::test]
async fn a_cursor_belongs_to_one_list_and_order() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    for _ in 0..3 {
        api.store(event(integration)).await;
    }
    let cursor =
        |answer: super::harness::Answer| answer.json["meta"]["nextCursor"].as_str().unwrap().to_owned();
    let of_events = cursor(api.get("/events?pageSize=2").await);
    let by_occurrence = cursor(api.get("/events?pageSize=2&sortBy=occurredAt").await);
    api.get(&format!("/events?cursor={of_events}")).await.expect(StatusCode::OK);
    api.get(&format!("/events?cursor={of_events}&sortBy=receivedAt")).await.expect(StatusCode::OK);
    for path in [
        format!("/events?cursor={of_events}&sortOrder=asc"),
        format!("/events?cursor={of_events}&sortBy=status"),
        format!("/events?cursor={by_occurrence}"),
        format!("/audit-entries?cursor={of_events}"),
        format!("/events?cursor={of_events}&page=2"),
    ] {
        api.get(&path).await.invalid("cursor");
    }
}

#[tokio::test]
async fn every_documented_parameter_is_taken() {
    let api = Api::start().await;
    let id = Uuid::now_v7().to_string();
    let integration = api.integration("acme", &["orders"]).await;
    let mut taken = 0;
    for (path, item) in document(Served::EVERYTHING).paths.paths {
        let Some(operation) = item.get.filter(|operation| operation.security.is_some()) else { continue };
        let route = path.strip_prefix("/api/v1").unwrap();
        // It does not end, and has tests of its own.
        if route == "/stream/events" {
            continue;
        }
        for parameter in operation.parameters.into_iter().flatten() {
            let RefOr::T(parameter) = parameter else { panic!("{path} refers to a parameter") };
            let value = match parameter.name.as_str() {
                "id" | "cursor" => continue,
                "eventId" | "entityId" => &id,
                "from" | "to" | "receivedFrom" | "receivedTo" => "2026-01-31T09:30:00%2B02:00",
                "integration" => "shop/acme",
                "httpStatus" => "200",
                "q" => "1&namespace=shop",
                "window" => "24h",
                "route" => "acme",
                "status" if route == "/deliveries" => "success",
                "status" if route == "/replay-requests" => "queued",
                "status" => "pending",
                "state" => "Running",
                "activeOnly" => "false",
                "sortBy" => "receivedAt",
                "sortOrder" => "asc",
                "entityType" => "replay_request",
                _ => "1",
            };
            let route = route.replace("{id}", &integration.to_string());
            api.get(&format!("{route}?{}={value}", parameter.name)).await.expect(StatusCode::OK);
            taken += 1;
        }
    }
    assert_eq!(taken, 17 + 2 + 1 + 1 + 8 + 7 + 2 + 3 + 6 * 2);
}
