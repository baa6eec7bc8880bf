//! Audit entries that are derived from events and attempts, beside the rows that versions of before stored for them.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use grapnel::http::KEY_HEADER;
use grapnel_core::delivery::state::NextState;
use grapnel_core::ids::{EventId, IntegrationId, RequestId};
use grapnel_store::events::{IngestOutcome, NewEvent, NewPayload, NewRequest, SharedRequest};
use grapnel_store::views::{AuditFilter, PageRequest, Start, list_audit_entries};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::{
    Api, KEY, event, first_of_millisecond, for_destinations, id_at, later, received_at, send,
};

/// Inserts the rows that a version of before would have stored for those events `e` that are chosen. In the order of the list they are where the
/// entries were that they replace.
fn rows_of_before(chosen: &str) -> String {
    let next = |id: &str| format!("overlay({id}::text PLACING 'ffffffff' FROM 29)::uuid");
    format!(
        "WITH received AS (
            INSERT INTO audit_entries (id, entity_type, entity_id, action, actor, details)
            SELECT {received}, 'event', e.id, 'webhook.received', 'provider:' || e.provider, NULL
            FROM events e
            WHERE ({chosen}) AND e.idempotency_key NOT LIKE '%:test-%' AND NOT EXISTS (
                SELECT FROM audit_entries a WHERE a.entity_id = e.id AND a.action = 'webhook.received')
        )
        INSERT INTO audit_entries (id, entity_type, entity_id, action, actor, details)
        SELECT {processed}, 'event', t.event_id, 'event.processed', 'worker',
            json_build_object('destination', t.destination, 'attemptNo', t.attempt_no)
        FROM delivery_attempts t JOIN events e ON e.id = t.event_id
        WHERE ({chosen}) AND t.succeeded AND NOT EXISTS (
            SELECT FROM audit_entries a WHERE a.entity_id = e.id AND a.action = 'event.processed')",
        received = next("e.id"),
        processed = next("t.id"),
    )
}

fn ago(seconds: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_secs(seconds)
}

fn path(query: &str, size: u32) -> String {
    let separator = if query.is_empty() { "" } else { "&" };
    format!("/audit-entries?{query}{separator}pageSize={size}")
}

impl Api {
    /// The entries of a list without their ids, having checked that it has the same ones by pages of one, and the same total.
    async fn entries(&self, query: &str) -> Vec<Value> {
        let whole = self.get(&path(query, 100)).await.expect(StatusCode::OK);
        let ids = whole.ids();
        assert!(ids.is_sorted_by(|left, right| left > right), "{query}: {ids:?}");
        assert_eq!(whole.json["meta"]["total"], ids.len(), "{query}: {}", whole.body);
        assert_eq!(self.all_ids(&path(query, 1)).await, ids, "{query}");
        let first = self.get(&path(query, 1)).await.expect(StatusCode::OK);
        assert_eq!(first.json["meta"]["total"], ids.len(), "{query}: {}", first.body);
        let mut entries = whole.data().clone();
        for entry in &mut entries {
            entry.as_object_mut().expect("an entry").remove("id").expect("an id");
        }
        entries
    }

    async fn count(&self, sql: &str) -> i64 {
        self.text(&format!("SELECT ({sql})::text")).await.expect("a number").parse().expect("a number")
    }

    async fn rows_about_events(&self) -> i64 {
        self.count("SELECT count(*) FROM audit_entries WHERE entity_type = 'event'").await
    }

    async fn erase_event(&self, id: Uuid) {
        let request = Request::delete(format!("/events/{id}")).header(KEY_HEADER, KEY).body(Body::empty());
        send(&self.router, request.expect("a request")).await.expect(StatusCode::OK);
    }
}

/// Two events of one request.
fn split(integration: Uuid, received: Timestamp) -> Vec<NewEvent> {
    let first = first_of_millisecond(id_at(received));
    let request = Arc::new(SharedRequest {
        id: RequestId::new(first),
        headers: "[]".into(),
        raw_body: Bytes::from_static(br#"[{"n":1},{"n":2}]"#),
        count: 2,
    });
    let element = |position: usize| NewEvent {
        id: EventId::new(Uuid::from_u128(first.as_u128() + (1 << 40) * (position as u128 + 1))),
        request: NewRequest::Shared { request: Arc::clone(&request), position },
        payload: NewPayload::Slice(1 + position * 8..8 + position * 8),
        ..received_at(integration, received)
    };
    vec![element(0), element(1)]
}

/// Events of three days with all that may become of one. Returns the queries of all lists.
async fn fill(api: &Api) -> Vec<String> {
    api.execute("SELECT ensure_partitions(current_date - 3, current_date)").await;
    let acme = api.integration("acme", &["orders", "mirror"]).await;
    let globex = api.integration("globex", &["orders"]).await;
    let old = api.store(for_destinations(received_at(acme, ago(200_000)), &["orders", "mirror"])).await;
    let other = NewEvent { provider: "globex".into(), ..received_at(globex, ago(100_000)) };
    let other = api.store(other).await;
    let note = NewEvent { audit_details: Some(r#"{"leftOut":[]}"#.into()), ..received_at(acme, ago(7500)) };
    let noted = api.store(note).await;
    let elements = api.store_together(split(acme, ago(7000))).await;
    let erased = api.store(received_at(acme, ago(6000))).await;
    let failed = api.store(received_at(acme, ago(5000))).await;
    let untouched = api.store(received_at(globex, ago(4000))).await;
    let sent = api.post(&format!("/integrations/{globex}/test-events"), r#"{"eventType":"test"}"#).await;
    let test: Uuid = sent.expect(StatusCode::ACCEPTED).json["data"]["eventId"]
        .as_str()
        .expect("an id")
        .parse()
        .expect("an id");

    api.attempt(old, "orders", later()).await;
    api.attempt(old, "mirror", NextState::Succeeded).await;
    api.execute("UPDATE deliveries SET queued_at = now(), due_at = NULL WHERE status = 'retrying'").await;
    api.attempt(old, "orders", NextState::Succeeded).await;
    api.attempt(other, "orders", NextState::Succeeded).await;
    api.attempt(noted, "orders", NextState::Succeeded).await;
    api.attempt(elements[1], "orders", NextState::Succeeded).await;
    api.attempt(erased, "orders", NextState::Succeeded).await;
    api.attempt(failed, "orders", NextState::Failed).await;
    api.erase_event(erased).await;
    // The same destination succeeds twice.
    let replay = api.post(&format!("/events/{other}/replay"), r#"{"reason":"because"}"#).await;
    replay.expect(StatusCode::ACCEPTED);
    api.execute(
        "UPDATE deliveries SET queued_at = now(), due_at = NULL WHERE finished_at IS NULL AND due_at IS NOT NULL",
    )
    .await;
    api.attempt(other, "orders", NextState::Succeeded).await;
    api.attempt(test, "orders", NextState::Succeeded).await;

    let (from, to) = (ago(150_000), ago(4500));
    let mut queries: Vec<String> = [
        "",
        "entityType=event",
        "entityType=integration",
        "entityType=replay_request",
        "action=webhook.received",
        "action=event.processed",
        "action=event.retry_scheduled",
        "action=event.test_sent",
        "actor=worker",
        "actor=provider:acme",
        "actor=provider:globex",
        "actor=provider:globex&action=event.processed",
        "actor=key:current",
        "actor=nobody",
        "integration=shop/acme",
        "integration=shop/globex",
        "integration=shop/globex&action=webhook.received",
    ]
    .map(str::to_owned)
    .into();
    queries.push(format!("from={from}&to={to}"));
    queries.push(format!("from={from}&to={to}&action=webhook.received&integration=shop/acme"));
    queries.push(format!("from={to}&entityType=event"));
    for entity in [acme, old, other, noted, elements[0], erased, untouched, test] {
        queries.push(format!("entityId={entity}"));
    }
    queries.push(format!("entityId={old}&action=event.processed"));
    queries.push(format!("entityId={other}&actor=worker"));
    queries
}

#[tokio::test]
async fn a_list_is_the_same_whether_its_entries_are_stored_or_derived() {
    let api = Api::start().await;
    let queries = fill(&api).await;
    let mut expected = Vec::new();
    for query in &queries {
        expected.push(api.entries(query).await);
    }
    // Those of before are older, or those of some processes, or all there are.
    let border = id_at(ago(80_000));
    for chosen in
        [format!("e.id < '{border}'"), "get_byte(uuid_send(e.id), 15) % 2 = 0".into(), "true".into()]
    {
        api.execute(&rows_of_before(&chosen)).await;
        for (query, expected) in queries.iter().zip(&expected) {
            assert_eq!(api.entries(query).await, *expected, "{query}, with rows for {chosen}");
        }
    }
    for id in api.ids("/audit-entries?pageSize=100").await {
        let row = format!("SELECT count(*) FROM audit_entries WHERE id = '{id}'");
        assert_eq!(api.count(&row).await, 1, "an entry was derived although it has a row");
    }
}

#[tokio::test]
async fn what_has_a_row_is_known_among_many_rows_about_the_same_events() {
    let api = Api::start().await;
    let queries = fill(&api).await;
    api.execute(&rows_of_before("get_byte(uuid_send(e.id), 15) % 2 = 0")).await;
    let queries: Vec<_> = queries
        .iter()
        .filter(|query| query.contains("action=") || query.contains("actor=provider"))
        .collect();
    let mut expected = Vec::new();
    for query in &queries {
        expected.push(api.entries(query).await);
    }
    // More than a slice of the list has.
    api.execute(
        "INSERT INTO audit_entries (id, entity_type, entity_id, action, actor)
        SELECT (substr(e.id::text, 1, 24) || lpad(to_hex(row_number() OVER (ORDER BY e.id, n)), 12, '0'))::uuid, 'event', e.id, 'event.noted', 'system'
        FROM events e CROSS JOIN generate_series(1, 120) n",
    )
    .await;
    for (query, expected) in queries.iter().zip(&expected) {
        assert_eq!(api.entries(query).await, *expected, "{query}");
    }
}

#[tokio::test]
async fn entries_of_integrations_that_the_caller_may_see_are_all_that_is_listed() {
    let api = Api::start().await;
    fill(&api).await;
    for rows in ["false", "e.id > '00000000-0000-0000-0000-000000000000' AND e.provider = 'acme'", "true"] {
        api.execute(&rows_of_before(rows)).await;
        for name in ["acme", "globex"] {
            let id = api.text(&format!("SELECT id::text FROM integrations WHERE name = '{name}'")).await;
            let id: Uuid = id.expect("an integration").parse().expect("an id");
            let filter =
                AuditFilter { visible: Some(vec![IntegrationId::new(id)]), ..AuditFilter::default() };
            let request = PageRequest { start: Start::Page(NonZeroU32::MIN), size: 100 };
            let seen = list_audit_entries(&api.db, &filter, request).await.expect("a page");
            let ids: Vec<Uuid> = seen.items.iter().map(|entry| entry.id.uuid()).collect();
            assert_eq!(ids, api.ids(&path(&format!("integration=shop/{name}"), 100)).await, "{name}");
            assert_eq!(seen.total.map(|total| total.count as usize), Some(ids.len()), "{name}");
        }
    }
}

#[tokio::test]
async fn pages_by_number_are_the_same_too() {
    let api = Api::start().await;
    fill(&api).await;
    for rows in ["false", "get_byte(uuid_send(e.id), 15) % 2 = 0", "true"] {
        api.execute(&rows_of_before(rows)).await;
        let all = api.ids(&path("", 100)).await;
        let mut paged = Vec::new();
        for page in 1..=all.len().div_ceil(4) {
            paged.extend(api.ids(&path(&format!("page={page}"), 4)).await);
        }
        assert_eq!(paged, all);
    }
}

#[tokio::test]
async fn nothing_is_stored_of_what_happens_to_every_event() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let id = api.store(event(integration)).await;
    api.attempt(id, "orders", NextState::Succeeded).await;
    assert_eq!(api.rows_about_events().await, 0);
    let answer = api.get(&format!("/audit-entries?entityId={id}")).await.expect(StatusCode::OK);
    let entry = |action: &str, actor: &str, details: Value, of: &Value| {
        json!({
            "id": of["id"], "entityType": "event", "entityId": id, "action": action, "actor": actor,
            "details": details, "createdAt": of["createdAt"],
        })
    };
    let attempts = api.get(&format!("/deliveries?eventId={id}")).await.expect(StatusCode::OK);
    let received = api.get("/events").await.expect(StatusCode::OK).data()[0].clone();
    let processed = json!({"destination": "orders", "attemptNo": 1});
    let listed = answer.data();
    assert_eq!(listed[0], entry("event.processed", "worker", processed, &attempts.data()[0]));
    assert_eq!(listed[1], entry("webhook.received", "provider:acme", json!({}), &received));
    assert_eq!(listed.len(), 2);
}

#[tokio::test]
async fn what_there_is_something_to_say_of_is_stored() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let noted = NewEvent { audit_details: Some(r#"{"files":[]}"#.into()), ..event(integration) };
    let (noted_id, plain) = (noted.id.uuid(), event(integration));
    let plain_id = plain.id.uuid();
    let mut again = event(integration);
    again.key_hash = plain.key_hash;
    let outcomes = api.store_batch_of(&mut [noted, plain, again]).await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == IngestOutcome::New).count(), 2, "{outcomes:?}");
    assert_eq!(api.rows_about_events().await, 1);
    let details = async |id: Uuid| {
        let answer = api.get(&format!("/audit-entries?entityId={id}")).await.expect(StatusCode::OK);
        answer.data().iter().map(|entry| entry["details"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(details(noted_id).await, [json!({"files": []})]);
    assert_eq!(details(plain_id).await, [json!({})]);
    assert_eq!(api.entries("action=webhook.received").await.len(), 2);

    // A retry has a time, which no other row keeps.
    api.attempt(plain_id, "orders", later()).await;
    assert_eq!(api.rows_about_events().await, 2);
    assert_eq!(api.actions(plain_id).await, ["webhook.received", "event.retry_scheduled"]);
}

#[tokio::test]
async fn the_erasure_of_an_event_leaves_what_is_derived_from_it() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders", "mirror"]).await;
    let id = api.store(for_destinations(event(integration), &["orders", "mirror"])).await;
    api.attempt(id, "orders", NextState::Succeeded).await;
    let before = api.entries(&format!("entityId={id}")).await;
    api.erase_event(id).await;
    let after = api.entries(&format!("entityId={id}")).await;
    assert_eq!(after[after.len() - before.len()..], before);
    let mut actions = api.actions(id).await;
    // The erasure and the end of what was unfinished are of one moment.
    actions[2..].sort_unstable();
    assert_eq!(actions, ["webhook.received", "event.processed", "event.erased", "event.failed"]);
}

#[tokio::test]
async fn a_row_of_the_next_day_stands_for_an_event_of_the_last_moment() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let midnight =
        Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).start_of_day().expect("a day").timestamp();
    let id = api.store(received_at(integration, midnight - SignedDuration::from_millis(1))).await;
    let derived = api.entries("action=webhook.received").await;
    assert_eq!(derived.len(), 1);
    let row = id_at(midnight + SignedDuration::from_millis(20));
    api.execute(&format!(
        "INSERT INTO audit_entries (id, entity_type, entity_id, action, actor)
        VALUES ('{row}', 'event', '{id}', 'webhook.received', 'provider:acme')"
    ))
    .await;
    for query in ["action=webhook.received", "actor=provider:acme", "integration=shop/acme&entityType=event"]
    {
        assert_eq!(api.ids(&path(query, 10)).await, [row], "{query}");
    }
    // The time of an entry is that of its row.
    let to = midnight - SignedDuration::from_millis(1);
    assert!(api.entries(&format!("to={to}")).await.is_empty());
}
