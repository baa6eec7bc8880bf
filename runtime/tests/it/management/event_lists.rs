//! `GET /events`: fields, filters, orders and pages.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use grapnel_core::delivery::state::NextState;
use grapnel_store::events::NewEvent;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::harness::{Api, event, later, received_at, with_body};

fn ago(seconds: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_secs(seconds)
}

#[tokio::test]
async fn an_event_has_the_fields_of_the_contract() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let received: Timestamp = Timestamp::now();
    let occurred: Timestamp = "2026-01-31T09:30:00.1239Z".parse().unwrap();
    let id = api.store(NewEvent { occurred_at: occurred, ..received_at(integration, received) }).await;
    let answer = api.get("/events").await.expect(StatusCode::OK);
    assert_eq!(answer.json["success"], true);
    let event = &answer.data()[0];
    let fields: Vec<_> = event.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields.into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from([
            "id",
            "integrationId",
            "provider",
            "externalEventId",
            "eventType",
            "subject",
            "occurredAt",
            "receivedAt",
            "createdAt",
            "updatedAt",
            "status",
            "processingAttempts",
            "lastError",
            "lastProcessedAt",
            "correlationId",
            "secretIndex",
            "normalizedPayload",
        ])
    );
    assert_eq!(event["id"], id.to_string());
    assert_eq!(event["integrationId"], integration.to_string());
    assert_eq!(event["occurredAt"], "2026-01-31T09:30:00.123Z");
    assert_eq!(event["receivedAt"], format!("{received:.3}"));
    assert_eq!(event["createdAt"], event["receivedAt"]);
    assert_eq!(event["status"], "pending");
    assert_eq!(event["processingAttempts"], 0);
    assert!(event["lastError"].is_null() && event["lastProcessedAt"].is_null());
    assert_eq!(event["normalizedPayload"]["data"]["id"], "ord-1");
    assert_eq!(event["normalizedPayload"]["eventType"], "order.created");
    insta::assert_snapshot!(answer.json["meta"], @r#"{"page":1,"pageSize":20,"total":1,"totalPages":1}"#);
}

#[tokio::test]
async fn an_empty_list_has_no_pages() {
    let api = Api::start().await;
    let answer = api.get("/events?pageSize=7&page=3").await.expect(StatusCode::OK);
    assert!(answer.data().is_empty());
    insta::assert_snapshot!(answer.json["meta"], @r#"{"page":3,"pageSize":7,"total":0,"totalPages":0}"#);
}

#[tokio::test]
async fn every_order_gives_the_same_list_by_page_and_by_cursor() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let mut events = Vec::new();
    for index in 0..12_i64 {
        // Received one after the other, occurred the other way round, some at the same time.
        let occurred_at = ago(1000 + index / 3 * 100);
        let id = api.store(NewEvent { occurred_at, ..received_at(integration, ago(100 - index)) }).await;
        let rank = index % 4;
        match rank {
            0 => {}
            1 => api.attempt(id, "orders", later()).await,
            2 => api.attempt(id, "orders", NextState::Succeeded).await,
            _ => api.attempt(id, "orders", NextState::Failed).await,
        }
        events.push((id, occurred_at.as_microsecond(), rank));
    }
    let sorted = |key: fn(&(Uuid, i64, i64)) -> (i64, Uuid)| {
        let mut sorted = events.clone();
        sorted.sort_by_key(key);
        sorted.into_iter().map(|(id, _, _)| id).collect::<Vec<_>>()
    };
    for (sort, mut expected) in [
        ("createdAt", sorted(|event| (0, event.0))),
        ("receivedAt", sorted(|event| (0, event.0))),
        ("occurredAt", sorted(|event| (event.1, event.0))),
        ("status", sorted(|event| (event.2, event.0))),
    ] {
        for order in ["asc", "desc"] {
            let path = format!("/events?sortBy={sort}&sortOrder={order}&pageSize=5");
            assert_eq!(api.all_ids(&path).await, expected, "{path}");
            let mut pages = Vec::new();
            for page in 1..=3 {
                pages.extend(api.ids(&format!("{path}&page={page}")).await);
            }
            assert_eq!(pages, expected, "{path}");
            expected.reverse();
        }
    }
    let descending = sorted(|event| (0, event.0)).into_iter().rev().collect::<Vec<_>>();
    assert_eq!(api.ids("/events").await, descending);
    let meta = &api.get("/events?pageSize=5").await.json["meta"];
    assert_eq!((meta["total"].as_u64(), meta["totalPages"].as_u64()), (Some(12), Some(3)));
}

#[tokio::test]
async fn cursors_count_the_pages_on() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    for _ in 0..5 {
        api.store(event(integration)).await;
    }
    let first = api.get("/events?pageSize=2&page=2").await.expect(StatusCode::OK);
    let cursor = first.json["meta"]["nextCursor"].as_str().unwrap();
    let last = api.get(&format!("/events?pageSize=2&cursor={cursor}")).await.expect(StatusCode::OK);
    insta::assert_snapshot!(last.json["meta"], @r#"{"page":3,"pageSize":2,"total":5,"totalPages":3}"#);
    assert_eq!(last.data().len(), 1);
}

#[tokio::test]
async fn cursor_pages_are_stable_while_events_arrive() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    for seconds in 0..9 {
        api.store(received_at(integration, ago(100 - seconds))).await;
    }
    let expected = api.ids("/events").await;
    let mut seen = Vec::new();
    let mut path = "/events?pageSize=2".to_owned();
    loop {
        let answer = api.get(&path).await.expect(StatusCode::OK);
        seen.extend(answer.ids());
        api.store(event(integration)).await;
        let Some(cursor) = answer.json["meta"]["nextCursor"].as_str() else { break };
        path = format!("/events?pageSize=2&cursor={cursor}");
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn filters_restrict_and_combine() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let store = async |provider: &str, event_type: &str, subject: Option<&str>| {
        let subject = subject.map(str::to_owned);
        let event_type = event_type.to_owned();
        api.store(NewEvent { provider: provider.into(), event_type, subject, ..event(integration) }).await
    };
    let acme = store("acme", "order.created", Some("Order 50% off")).await;
    let acme_paid = store("acme", "order.paid", Some("Order 500 off")).await;
    let globex = store("globex", "order.created", Some("a_b\\c")).await;
    let bare = store("globex", "ping", None).await;
    let other = store("globex", "ping", Some("aXb\\c É")).await;
    let check = async |query: &str, expected: &[Uuid]| {
        let answer = api.get(&format!("/events?sortOrder=asc&{query}")).await.expect(StatusCode::OK);
        assert_eq!(answer.ids(), expected, "{query}");
        assert_eq!(answer.json["meta"]["total"], expected.len(), "{query}");
    };
    check("provider=acme", &[acme, acme_paid]).await;
    check("provider=ACME", &[]).await;
    check("eventType=order.created", &[acme, globex]).await;
    check("eventType=order", &[]).await;
    check("provider=globex&eventType=ping", &[bare, other]).await;
    check("subject=order", &[acme, acme_paid]).await;
    check("subject=50%25", &[acme]).await;
    check("subject=%25", &[acme]).await;
    check("subject=_", &[globex]).await;
    check("subject=a_b", &[globex]).await;
    check("subject=%5C", &[globex, other]).await;
    check("subject=B%5Cc", &[globex, other]).await;
    check("subject=%C3%A9", &[other]).await;
    check("subject=OFF&eventType=order.paid", &[acme_paid]).await;
    check("subject=off&status=pending&provider=acme", &[acme, acme_paid]).await;
    check("subject=off&status=failed", &[]).await;
}

#[tokio::test]
async fn bounds_of_occurrence_are_inclusive() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let occurred_at: Timestamp = "2026-01-31T09:30:00.123456Z".parse().unwrap();
    let id = api.store(NewEvent { occurred_at, ..event(integration) }).await;
    for (query, found) in [
        // As the event shows it.
        ("from=2026-01-31T09:30:00.123Z", true),
        ("to=2026-01-31T09:30:00.123Z", true),
        ("from=2026-01-31T09:30:00.123Z&to=2026-01-31T09:30:00.123Z", true),
        ("from=2026-01-31T10:30:00.123%2B01:00&to=2026-01-31T10:30:00.123%2B01:00", true),
        ("from=2026-01-31T09:30:00.124Z", false),
        ("to=2026-01-31T09:30:00.122Z", false),
        ("from=2026-01-31T09:30:01Z&to=2026-01-31T09:29:59Z", false),
        ("from=0000-01-01T00:00:00Z&to=9999-12-30T00:00:00Z", true),
    ] {
        for sort in ["createdAt", "occurredAt", "status"] {
            for order in ["asc", "desc"] {
                let path = format!("/events?{query}&sortBy={sort}&sortOrder={order}");
                assert_eq!(api.ids(&path).await, if found { vec![id] } else { Vec::new() }, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn a_window_finds_what_was_received_long_before_and_after_it() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let window = ago(7200);
    let mut expected = Vec::new();
    for received in [9000, 8000, 7300, 7200, 7100, 6000, 3000, 0] {
        let inside = NewEvent { occurred_at: window, ..received_at(integration, ago(received)) };
        expected.push(api.store(inside).await);
        let outside = window - SignedDuration::from_hours(1);
        api.store(NewEvent { occurred_at: outside, ..received_at(integration, ago(received)) }).await;
    }
    let path = format!("/events?from={window}&to={window}&pageSize=3");
    assert_eq!(api.all_ids(&format!("{path}&sortOrder=asc")).await, expected);
    expected.reverse();
    assert_eq!(api.all_ids(&path).await, expected);
    assert_eq!(api.ids(&format!("{path}&page=2")).await, expected[3..6]);
    assert_eq!(api.all_ids(&format!("{path}&status=pending")).await, expected);
    assert_eq!(api.all_ids(&format!("{path}&sortBy=status")).await, expected);
}

#[tokio::test]
async fn long_payloads_are_left_out_of_lists() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let text = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    let long = api.store(with_body(event(integration), &text(65_537))).await;
    let short = api.store(with_body(event(integration), &text(65_536))).await;
    let answer = api.get("/events").await.expect(StatusCode::OK);
    assert_eq!(answer.ids(), [short, long]);
    assert!(answer.data()[0]["normalizedPayload"]["data"].is_string());
    assert!(answer.data()[1]["normalizedPayload"].is_null());
    let whole = api.get(&format!("/events/{long}")).await.expect(StatusCode::OK);
    assert!(whole.json["data"]["event"]["normalizedPayload"]["data"].is_string());
}
