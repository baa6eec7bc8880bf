//! The filters with which lists are searched, and the walk of those that have no index.

use std::sync::Arc;

use axum::http::StatusCode;
use bytes::Bytes;
use grapnel_core::delivery::state::NextState;
use grapnel_core::ids::{EventId, IntegrationId, RequestId};
use grapnel_store::events::{NewEvent, NewPayload, NewRequest, SharedRequest};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::harness::{
    Api, NOTHING, event, first_of_millisecond, for_destinations, id_at, later, received_at, with_body,
};

fn ago(seconds: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_secs(seconds)
}

impl Api {
    /// Checks a list in both directions, by one item a page and whole.
    async fn check_events(&self, query: &str, ascending: &[Uuid]) {
        self.check_pages(query, ascending, "", "&pageSize=1").await;
    }
}

#[tokio::test]
async fn events_are_found_by_integration_type_and_ids() {
    let api = Api::start().await;
    let (acme, globex) =
        (api.integration("acme", &["orders"]).await, api.integration("globex", &["orders"]).await);
    let named = |integration, external: &str, correlation: &str, kind: &str, seconds| NewEvent {
        external_event_id: Some(external.to_owned()),
        correlation_id: correlation.into(),
        event_type: kind.to_owned(),
        ..received_at(integration, ago(seconds))
    };
    let one = api.store(named(acme, "evt-1", "c-1", "order.created", 400)).await;
    let two = api.store(named(acme, "evt-2", "c-1", "order.paid", 300)).await;
    let three = api.store(named(globex, "evt-1", "c-3", "order.created", 200)).await;
    let four = api.store(named(globex, "evt-4", "c-4", "order.paid", 100)).await;

    api.check_events(&format!("integration={acme}"), &[one, two]).await;
    api.check_events("integration=shop/globex", &[three, four]).await;
    api.check_events("integration=elsewhere/globex", &NOTHING).await;
    api.check_events(&format!("integration={}", Uuid::now_v7()), &NOTHING).await;
    api.check_events("namespace=shop", &[one, two, three, four]).await;
    api.check_events("namespace=elsewhere", &NOTHING).await;
    api.check_events("namespace=shop&integration=shop/acme", &[one, two]).await;
    api.check_events("integration=shop/acme&eventType=order.paid", &[two]).await;
    api.check_events("eventType=order.paid", &[two, four]).await;
    api.check_events("externalEventId=evt-1", &[one, three]).await;
    api.check_events("externalEventId=evt-1&integration=shop/globex", &[three]).await;
    api.check_events("externalEventId=evt-1&status=pending&provider=acme", &[one, three]).await;
    api.check_events("externalEventId=evt", &NOTHING).await;
    api.check_events("correlationId=c-1", &[one, two]).await;
    api.check_events("correlationId=c-1&eventType=order.paid", &[two]).await;

    let (from, to) = (ago(350), ago(150));
    api.check_events(&format!("receivedFrom={from}&receivedTo={to}"), &[two, three]).await;
    api.check_events(&format!("receivedFrom={from}&integration=shop/globex"), &[three, four]).await;
    let received = api.get(&format!("/events/{two}")).await.json["data"]["event"]["receivedAt"].clone();
    let received = received.as_str().unwrap();
    api.check_events(&format!("receivedFrom={received}&receivedTo={received}"), &[two]).await;

    // Those of a deleted integration belong to the name that it had.
    assert!(grapnel_store::integrations::remove(&api.db, IntegrationId::new(globex), "test").await.unwrap());
    api.integration("globex", &["orders"]).await;
    api.check_events("integration=shop/globex", &[three, four]).await;
    assert_eq!(api.ids("/events?integration=shop/globex&page=2&pageSize=1").await, [three]);
}

#[tokio::test]
async fn events_are_found_by_what_became_of_a_delivery() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["a", "b"]).await;
    let mut events = Vec::new();
    for seconds in [500, 400, 300, 200] {
        events.push(api.store(for_destinations(received_at(integration, ago(seconds)), &["a", "b"])).await);
    }
    let [one, two, three, four] = events[..] else { panic!("four events") };
    let only_a = api.store(for_destinations(received_at(integration, ago(100)), &["a"])).await;
    api.attempt(one, "a", NextState::Failed).await;
    api.attempt(one, "b", NextState::Succeeded).await;
    api.attempt(two, "a", NextState::Succeeded).await;
    api.attempt(two, "b", NextState::Failed).await;
    api.attempt(three, "a", later()).await;
    api.attempt(four, "a", NextState::Failed).await;

    api.check_events("destination=a", &[one, two, three, four, only_a]).await;
    api.check_events("destination=b", &[one, two, three, four]).await;
    api.check_events("destination=c", &NOTHING).await;
    // The status is that of the delivery to the destination.
    api.check_events("destination=a&status=failed", &[one, four]).await;
    api.check_events("destination=b&status=failed&integration=shop/acme", &[two]).await;
    api.check_events("destination=b&status=failed&provider=globex", &NOTHING).await;
    api.check_events("destination=a&status=processed", &[two]).await;
    api.check_events("destination=a&status=retrying", &[three]).await;
    api.check_events("destination=b&status=pending", &[three, four]).await;
    // Without one it is that of the event.
    api.check_events("namespace=shop&status=failed", &[one, two]).await;
    api.check_events("namespace=shop&status=retrying", &[three]).await;
    api.check_events("namespace=shop&status=pending", &[four, only_a]).await;
    api.check_events("namespace=shop&status=processed", &NOTHING).await;
    // That of the last attempt.
    api.check_events("httpStatus=500", &[two, three, four]).await;
    api.check_events("httpStatus=200", &[one]).await;
    api.check_events("httpStatus=200&destination=a", &[two]).await;
    api.check_events("httpStatus=404", &NOTHING).await;

    let filtered = NewEvent {
        filtered: {
            let mut filtered = grapnel_core::filter::DestinationSet::default();
            filtered.insert(1);
            filtered
        },
        ..for_destinations(event(integration), &["a", "b"])
    };
    let filtered = api.store(filtered).await;
    api.check_events("status=filtered&namespace=shop", &[filtered]).await;
    api.check_events("status=filtered&destination=b", &[filtered]).await;
    api.check_events("status=filtered&destination=a", &NOTHING).await;
}

#[tokio::test]
async fn text_is_found_in_the_events_own_part_of_the_body() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let one =
        api.store(with_body(received_at(integration, ago(50)), r#"{"data":"a 100%_ \\ needle"}"#)).await;
    let received = ago(20);
    let request = Arc::new(SharedRequest {
        id: RequestId::new(first_of_millisecond(id_at(received))),
        headers: "[]".to_owned(),
        raw_body: Bytes::from_static(br#"[{"n":"needle"},{"n":"other"}]"#),
        count: 2,
    });
    let part = |position: usize, range| NewEvent {
        id: EventId::new(Uuid::from_u128(request.id.uuid().as_u128() + 1 + position as u128)),
        request: NewRequest::Shared { request: Arc::clone(&request), position },
        payload: NewPayload::Slice(range),
        ..received_at(integration, received)
    };
    let stored = api.store_together(vec![part(0, 1..15), part(1, 16..29)]).await;
    let [two, three] = stored[..] else { panic!("two events") };
    let own =
        NewEvent { payload: NewPayload::Own(Bytes::from_static(br#"{"n":"needle"}"#)), ..event(integration) };
    let own =
        api.store(NewEvent { request: super::harness::whole(Bytes::from_static(b"p=%7B%7D")), ..own }).await;

    api.check_events("integration=shop/acme&q=needle", &[one, two]).await;
    api.check_events("integration=shop/acme&q=other", &[three]).await;
    api.check_events("integration=shop/acme&q=Needle", &NOTHING).await;
    api.check_events("integration=shop/acme&q=100%25_", &[one]).await;
    api.check_events("namespace=shop&q=p%3D%257B", &[own]).await;
    api.check_events(&format!("receivedFrom={}&q=needle", ago(30)), &[two]).await;
    for query in [
        "q=needle".to_owned(),
        "q=needle&provider=acme".to_owned(),
        format!("q=needle&receivedTo={}", ago(0)),
        format!("q=needle&receivedFrom={}", ago(8 * 24 * 3600)),
    ] {
        api.get(&format!("/events?{query}")).await.invalid("q");
    }
}

#[tokio::test]
async fn attempts_are_found() {
    let api = Api::start().await;
    let (acme, globex) =
        (api.integration("acme", &["a", "b"]).await, api.integration("globex", &["a"]).await);
    let one = api.store(for_destinations(event(acme), &["a", "b"])).await;
    let two = api.store(for_destinations(event(globex), &["a"])).await;
    api.attempt(one, "a", later()).await;
    api.attempt(one, "b", NextState::Succeeded).await;
    api.attempt(two, "a", NextState::Failed).await;
    let all = api.ids("/deliveries").await;
    let [failed, succeeded, retried] = all[..] else { panic!("three attempts: {all:?}") };
    let created = async |id: Uuid| {
        let sql = format!(
            "SELECT to_char(uuidv7_time('{id}') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
        );
        api.text(&sql).await.expect("a time")
    };
    let check = async |query: &str, expected: &[Uuid]| {
        let answer = api.get(&format!("/deliveries?{query}")).await.expect(StatusCode::OK);
        assert_eq!(answer.ids(), expected, "{query}");
        assert_eq!(answer.json["meta"]["total"], expected.len(), "{query}");
        assert_eq!(api.all_ids(&format!("/deliveries?{query}&pageSize=1")).await, expected, "{query}");
    };
    check("integration=shop/acme", &[succeeded, retried]).await;
    check(&format!("integration={globex}"), &[failed]).await;
    check("integration=shop/nobody", &NOTHING).await;
    check("integration=shop/acme&status=failed", &[retried]).await;
    check("integration=shop/acme&status=success", &[succeeded]).await;
    check("destination=a", &[failed, retried]).await;
    check("destination=a&integration=shop/acme", &[retried]).await;
    check("httpStatus=500", &[failed, retried]).await;
    check("httpStatus=500&status=success", &NOTHING).await;
    check("errorContains=http%205", &[failed, retried]).await;
    check("errorContains=http%25", &NOTHING).await;
    check(&format!("eventId={one}&destination=b"), &[succeeded]).await;
    let (from, to) = (created(retried).await, created(retried).await);
    check(&format!("from={from}&to={to}&destination=a&integration=shop/acme"), &[retried]).await;
    check(&format!("to={}", ago(60)), &NOTHING).await;
    check(&format!("from={}", ago(60)), &all).await;
}

#[tokio::test]
async fn audit_entries_are_found() {
    let api = Api::start().await;
    let acme = api.integration("acme", &["orders"]).await;
    api.integration("globex", &["orders"]).await;
    let id = api.store(event(acme)).await;
    api.attempt(id, "orders", NextState::Succeeded).await;
    let body = r#"{"reason":"because","requestedBy":"jane"}"#;
    api.post(&format!("/events/{id}/replay"), body).await.expect(StatusCode::ACCEPTED);
    let count = async |query: &str| {
        let answer = api.get(&format!("/audit-entries?{query}")).await.expect(StatusCode::OK);
        assert_eq!(answer.json["meta"]["total"], answer.data().len(), "{query}");
        assert_eq!(api.all_ids(&format!("/audit-entries?{query}&pageSize=1")).await, answer.ids(), "{query}");
        answer.data().len()
    };
    let all = count(&format!("from={}", ago(60))).await;
    assert_eq!(count("integration=shop/globex").await, 1);
    assert_eq!(count("integration=shop/acme").await, all - 1);
    assert_eq!(count("integration=shop/acme&entityType=event").await, count("entityType=event").await);
    assert_eq!(count("actor=worker").await, 1);
    assert_eq!(count("actor=nobody").await, 0);
    assert_eq!(count(&format!("to={}", ago(60))).await, 0);
    assert_eq!(api.ids("/audit-entries?pageSize=100").await.len(), all);
    assert_eq!(count(&format!("from={}&action=event.processed", ago(60))).await, 1);
}

#[tokio::test]
async fn only_a_cursor_goes_on_behind_a_filter_without_an_index() {
    let api = Api::start().await;
    for (path, indexed) in [
        ("/events?correlationId=c", false),
        ("/events?httpStatus=500", false),
        ("/events?destination=a", false),
        ("/events?destination=a&status=pending", false),
        ("/events?namespace=shop&provider=acme", false),
        ("/events?namespace=shop&q=x", false),
        ("/events?externalEventId=e&provider=acme", true),
        ("/events?destination=a&status=failed", true),
        ("/events?namespace=shop&eventType=a", true),
        ("/events?receivedFrom=2026-01-31T09:30:00Z", true),
        ("/events?provider=acme", true),
        ("/deliveries?destination=a", false),
        ("/deliveries?errorContains=a", false),
        ("/deliveries?httpStatus=500", false),
        ("/deliveries?integration=shop/acme", true),
        ("/audit-entries?actor=a", false),
        ("/audit-entries?integration=shop/acme", false),
        ("/audit-entries?from=2026-01-31T09:30:00Z", true),
    ] {
        let answer = api.get(&format!("{path}&page=2")).await;
        if indexed {
            answer.expect(StatusCode::OK);
        } else {
            let answer = answer.invalid("page");
            assert!(answer.body.contains("cursor"), "{}", answer.body);
        }
    }
    for sort in ["occurredAt", "status"] {
        api.get(&format!("/events?namespace=shop&sortBy={sort}")).await.invalid("sortBy");
    }
}

/// Bodies in which a search takes long: nearly the text that is searched for is everywhere.
#[tokio::test]
async fn a_walk_out_of_time_says_how_far_it_came_and_goes_on() {
    /// The most that is stored of them: so many take a minute on the slowest machine.
    const MOST_EVENTS: usize = 11_200;
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let needle = format!("{}y", "x".repeat(250));
    let oldest =
        api.store(with_body(received_at(integration, ago(3600)), &format!("{{\"a\":\"{needle}\"}}"))).await;
    let path = format!("/events?integration=shop/acme&q={needle}");
    let (mut events, mut batch) = (0, 350);
    loop {
        api.execute(&format!(
            "INSERT INTO events (id, integration_id, provider, event_type, occurred_at, received_at, correlation_id,
                headers, raw_body, payload_key, payload_start, payload_length, idempotency_key)
            SELECT uuidv7_now(), '{integration}', 'acme', 'slow', now(), now(), 'c', '[]',
                convert_to('{{\"data\":\"' || repeat('x', 1000000) || '\"}}', 'UTF8'), 'data', 0, 1000011,
                'k' || n
            FROM generate_series({}, {}) n",
            events + 1,
            events + batch
        ))
        .await;
        (events, batch) = (events + batch, events + batch);
        let meta = api.get(&path).await.expect(StatusCode::OK).json["meta"].clone();
        if meta["scannedThrough"].is_string() {
            break;
        }
        assert!(events < MOST_EVENTS, "{events} such bodies are searched in time");
    }
    let (mut pages, mut cursor, mut earliest) = (0, String::new(), String::from("9999"));
    loop {
        let answer = api.get(&format!("{path}{cursor}")).await.expect(StatusCode::OK);
        let meta = &answer.json["meta"];
        pages += 1;
        assert_eq!(meta["page"], pages);
        let Some(through) = meta["scannedThrough"].as_str() else {
            assert_eq!(answer.ids(), [oldest], "the walk ended at the end");
            assert!(meta.get("nextCursor").is_none());
            break;
        };
        assert!(meta["total"].is_null() && meta["totalPages"].is_null(), "{meta}");
        assert!(through < earliest.as_str() || through == earliest, "{through} after {earliest}");
        earliest = through.to_owned();
        cursor = format!("&cursor={}", meta["nextCursor"].as_str().expect("a cursor"));
    }
    assert!(pages > 1, "the first page had an end");
    // A full page needs no time for the rest of the list, and has no total then.
    let answer = api.get("/events?integration=shop/acme&q=xxx&pageSize=1").await.expect(StatusCode::OK);
    assert_eq!(answer.data().len(), 1);
    assert!(answer.json["meta"]["nextCursor"].is_string());
}

#[tokio::test]
async fn every_day_has_the_indexes_of_searches() {
    let api = Api::start().await;
    let count = async |sql: &str| api.database.count(sql).await;
    for (table, index) in [
        ("events", "events_integration"),
        ("events", "events_type"),
        ("events", "events_external"),
        ("deliveries", "deliveries_failed_destination"),
        ("delivery_attempts", "delivery_attempts_shared"),
    ] {
        let days =
            count(&format!("SELECT count(*) FROM pg_inherits WHERE inhparent = '{table}'::regclass")).await;
        let parts =
            count(&format!("SELECT count(*) FROM pg_inherits WHERE inhparent = '{index}'::regclass")).await;
        assert!(days > 1 && parts == days, "{index}: {parts} of {days}");
    }
}
