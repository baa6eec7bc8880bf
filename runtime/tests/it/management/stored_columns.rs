//! The parameters of the two widest statements, which are bound by position: each value ends in its own column. Values of
//! one type all differ, so that no two parameters can be exchanged unseen.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grapnel_core::delivery::state::{NextState, Trigger};
use grapnel_core::filter::DestinationSet;
use grapnel_core::ids::{EventId, IntegrationId, ReplayId, RequestId};
use grapnel_core::payload::{BodyForm, DeliveredAs};
use grapnel_store::deliveries::{AttemptResult, Birth, held_queues, record, release};
use grapnel_store::events::{
    self, IngestOutcome, NewEvent, NewHeaders, NewPayload, NewRequest, SharedRequest,
};
use grapnel_store::{DedicatedConnection, StoredForm};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::{Api, event, id_at};

impl Api {
    /// The only row of the statement, as JSON. Of columns with the same name, the last one is taken.
    async fn json(&self, sql: &str) -> Value {
        let text = self.text(&format!("SELECT to_json(r)::text FROM ({sql}) AS r")).await;
        serde_json::from_str(&text.expect("a row")).expect("JSON")
    }

    async fn store_batch(&self, batch: &mut [NewEvent], birth: Birth) {
        self.store_in(batch, StoredForm::Apart, birth).await;
    }

    async fn store_in(&self, batch: &mut [NewEvent], form: StoredForm, birth: Birth) {
        let mut connection = DedicatedConnection::new(self.db.clone());
        let stored = events::store(&mut connection, batch, form, |_, _| birth).await.expect("a commit");
        assert!(stored.iter().all(|outcome| *outcome == IngestOutcome::New), "{stored:?}");
    }
}

fn headers(number: u8) -> String {
    format!(r#"[["n","{number}"]]"#)
}

fn body(number: u8) -> Bytes {
    Bytes::from(format!("body {number} with a payload in it"))
}

/// An event in which all values differ, from another one with another number too.
fn distinct(number: u8, destinations: &[&str]) -> NewEvent {
    let text = |field: &str| format!("{field}-{number}");
    let time =
        |second| Timestamp::from_second(1_700_000_000 + i64::from(number) * 100 + second).expect("a time");
    let start = usize::from(number);
    NewEvent {
        id: EventId::new(id_at(Timestamp::now())),
        integration_id: IntegrationId::new(Uuid::now_v7()),
        provider: text("provider").into(),
        external_event_id: Some(text("external")),
        event_type: text("type"),
        subject: Some(text("subject")),
        occurred_at: time(1),
        received_at: time(2),
        correlation_id: text("correlation").into(),
        traceparent: Some(text("trace").into()),
        source_ip: [192, 0, 2, number].into(),
        request: NewRequest::Whole { headers: NewHeaders::Json(headers(number)), raw_body: body(number) },
        payload_key: text("key").into(),
        payload: NewPayload::Slice(start..start + 9),
        body_form: BodyForm::Form,
        delivered_as: DeliveredAs::CloudEvent,
        secret_index: 0,
        idempotency_key: text("idempotency"),
        key_hash: Uuid::now_v7(),
        former_key: None,
        audit_details: Some(format!(r#"{{"note":"{number}"}}"#)),
        held: DestinationSet::default(),
        destinations: destinations.iter().map(|name| Arc::from(*name)).collect(),
        filtered: DestinationSet::default(),
    }
}

#[tokio::test]
async fn each_value_of_an_event_is_stored_in_its_column() {
    let api = Api::start().await;
    let mut batch = [distinct(3, &["a", "b"]), distinct(5, &["c"])];
    let headers_of_other = NewHeaders::Packed(b"packed".to_vec());
    batch[1].request = NewRequest::Whole { headers: headers_of_other, raw_body: body(5) };
    let codes = [batch[0].body_form.code(), batch[0].delivered_as.code(), batch[0].secret_index as i16];
    assert!(codes[0] != codes[1] && codes[1] != codes[2] && codes[0] != codes[2], "{codes:?}");
    api.store_batch(&mut batch, Birth::Queued).await;
    batch.sort_by_key(|event| event.id);
    for (event, number) in batch.iter().zip([3, 5]) {
        let id = event.id;
        let stored = api
            .json(&format!(
                "SELECT e.*, k.key_hash, a.id <> ALL(ARRAY[e.id, e.integration_id, k.key_hash]) AS audit_id_is_new,
                    a.entity_type, a.action, a.actor, a.details,
                    extract(epoch FROM e.occurred_at)::bigint AS occurred_at,
                    extract(epoch FROM e.received_at)::bigint AS received_at,
                    convert_from(e.raw_body, 'UTF8') AS raw_body, host(e.source_ip) AS source_ip
                FROM events e
                JOIN idempotency_keys k ON k.event_id = e.id
                JOIN audit_entries a ON a.entity_id = e.id
                WHERE e.id = '{id}'"
            ))
            .await;
        let expected = json!({
            "id": id,
            "integration_id": event.integration_id,
            "provider": *event.provider,
            "external_event_id": event.external_event_id,
            "event_type": event.event_type,
            "subject": event.subject,
            "occurred_at": event.occurred_at.as_second(),
            "received_at": event.received_at.as_second(),
            "correlation_id": *event.correlation_id,
            "traceparent": event.traceparent.as_deref(),
            "source_ip": event.source_ip.to_string(),
            "headers": if number == 5 { json!([]) } else { serde_json::from_str(&headers(number)).unwrap() },
            "raw_body": std::str::from_utf8(&body(number)).unwrap(),
            "payload_key": *event.payload_key,
            "payload_start": number,
            "payload_length": 9,
            "body_form": event.body_form.code(),
            "delivered_as": event.delivered_as.code(),
            "secret_index": event.secret_index,
            "idempotency_key": event.idempotency_key,
            "indexed_events": 1,
            "indexed_ids": null,
            "external_id_in_key": false,
            "packed_headers": (number == 5).then_some("\\x7061636b6564"),
            "payload": null,
            "request_id": null,
            "request_position": null,
            "request_count": null,
            "erased_at": null,
            "erased_by": null,
            "key_hash": event.key_hash,
            "audit_id_is_new": true,
            "entity_type": "event",
            "action": "webhook.received",
            "actor": format!("provider:{}", event.provider),
            "details": serde_json::from_str::<Value>(event.audit_details.as_deref().unwrap()).unwrap(),
        });
        assert_eq!(stored, expected);
        let deliveries = api
            .json(&format!(
                "SELECT json_agg(json_build_array(integration_id, destination, status, queued_at IS NULL, due_at IS NULL)
                    ORDER BY destination) AS all
                FROM deliveries WHERE event_id = '{id}'"
            ))
            .await;
        let expected: Vec<_> = event
            .destinations
            .iter()
            .map(|destination| json!([event.integration_id, **destination, "pending", false, true]))
            .collect();
        assert_eq!(deliveries["all"], json!(expected));
    }
}

/// A batch of an event alone, two that share a request, and one whose payload is no slice of its body.
fn batch_apart() -> [NewEvent; 4] {
    let alone = distinct(1, &["a"]);
    let request = Arc::new(SharedRequest {
        id: RequestId::new(id_at(Timestamp::now())),
        headers: headers(7),
        raw_body: Bytes::from_static(b"[one,two]"),
        count: 5,
    });
    let part = |number, position, range| NewEvent {
        request: NewRequest::Shared { request: Arc::clone(&request), position },
        payload: NewPayload::Slice(range),
        ..distinct(number, &["a"])
    };
    let own =
        NewEvent { payload: NewPayload::Own(Bytes::from_static(b"own payload")), ..distinct(4, &["a"]) };
    [alone, part(2, 0, 1..4), part(3, 4, 5..8), own]
}

const PLACES: &str = "SELECT json_agg(json_build_array(
        substring(external_event_id FROM 10), e.headers, convert_from(e.raw_body, 'UTF8'), payload_start, payload_length, body_form,
        convert_from(payload, 'UTF8'), request_position, request_count, request_id = r.id, r.headers,
        convert_from(r.raw_body, 'UTF8')
    ) ORDER BY external_event_id) AS all
    FROM events e LEFT JOIN event_requests r ON true";

#[tokio::test]
async fn a_request_is_stored_once_and_a_payload_that_is_no_slice_beside_its_body() {
    let api = Api::start().await;
    api.store_batch(&mut batch_apart(), Birth::Queued).await;
    let request = (json!([["n", "7"]]), "[one,two]");
    let row = |number: u8, rest: Value| {
        let [headers, body, start, length, form, payload, position, count, is_its] =
            serde_json::from_value::<[Value; 9]>(rest).unwrap();
        json!([
            number.to_string(),
            headers,
            body,
            start,
            length,
            form,
            payload,
            position,
            count,
            is_its,
            request.0,
            request.1
        ])
    };
    let own =
        |number: u8| (json!([["n", number.to_string()]]), format!("body {number} with a payload in it"));
    let expected = json!([
        row(1, json!([own(1).0, own(1).1, 1, 9, 1, null, null, null, null])),
        row(2, json!([[], "", 1, 3, 17, null, 0, 5, true])),
        row(3, json!([[], "", 5, 3, 17, null, 4, 5, true])),
        row(4, json!([own(4).0, own(4).1, 0, 11, 17, "own payload", null, null, null])),
    ]);
    assert_eq!(api.json(PLACES).await["all"], expected);
}

#[tokio::test]
async fn while_an_older_worker_lives_each_payload_is_stored_as_if_it_had_come_alone() {
    let api = Api::start().await;
    let raw = NewEvent {
        delivered_as: DeliveredAs::Raw,
        payload: NewPayload::Own(Bytes::from_static(b"own")),
        ..distinct(5, &["a"])
    };
    let mut batch: Vec<NewEvent> = batch_apart().into_iter().chain([raw]).collect();
    api.store_in(&mut batch, StoredForm::Alone, Birth::Queued).await;
    let own =
        |number: u8| (json!([["n", number.to_string()]]), format!("body {number} with a payload in it"));
    let row = |number: u8, headers: Value, body: &str, start: u8, length: usize, form: u8| {
        json!([number.to_string(), headers, body, start, length, form, null, null, null, null, null, null])
    };
    let expected = json!([
        row(1, own(1).0, &own(1).1, 1, 9, 1),
        row(2, json!([["n", "7"]]), "one", 0, 3, 1),
        row(3, json!([["n", "7"]]), "two", 0, 3, 1),
        row(4, own(4).0, "own payload", 0, 11, 1),
        row(5, own(5).0, &own(5).1, 0, own(5).1.len(), 2),
    ]);
    assert_eq!(api.json(PLACES).await["all"], expected);
}

#[tokio::test]
async fn deliveries_that_are_not_published_at_once_are_due_or_held() {
    let api = Api::start().await;
    for (number, birth) in [(1, Birth::Due), (2, Birth::Held)] {
        let mut batch = [distinct(number, &["a"])];
        api.store_batch(&mut batch, birth).await;
        let id = batch[0].id;
        let sql = format!(
            "SELECT queued_at IS NULL AS unqueued, due_at <= now() AS due FROM deliveries WHERE event_id = '{id}'"
        );
        assert_eq!(api.json(&sql).await, json!({"unqueued": true, "due": birth == Birth::Due}));
    }
    let held = held_queues(&api.db).await.expect("an answer");
    assert_eq!(held.len(), 1);
    let released = release(&api.db, &held[0], 10).await.expect("an answer");
    assert_eq!((released.len(), held_queues(&api.db).await.expect("an answer").len()), (1, 0));
}

#[tokio::test]
async fn each_value_of_a_result_is_stored_in_its_column() {
    let api = Api::start().await;
    let mut results = Vec::new();
    for number in 0..2_u8 {
        let integration = api.integration(&format!("acme-{number}"), &["orders"]).await;
        let id = api.store(event(integration)).await;
        let claimed = api.claim(id, "orders").await;
        let time = |seconds| {
            Timestamp::from_second(1_800_000_000).unwrap()
                + SignedDuration::from_secs(i64::from(number) * 100 + seconds)
        };
        results.push(AttemptResult {
            event_id: claimed.event_id,
            integration_id: claimed.integration_id,
            destination: "orders".into(),
            lease_id: claimed.lease_id,
            attempt_no: claimed.attempts + 1,
            budget_start: claimed.budget_start,
            replay_request_id: claimed.replay_request_id,
            triggered_by: if number == 0 { Trigger::Webhook } else { Trigger::Retry },
            scheduled_at: time(1),
            started_at: time(2),
            next: if number == 0 { NextState::RetryAfter(Duration::from_secs(3)) } else { NextState::Failed },
            next_if_replayed: NextState::RetryAfter(Duration::from_secs(4)),
            counts: true,
            http_status: Some(500 + u16::from(number)),
            response_body: Some(format!("response-{number}")),
            error_message: Some(format!("error-{number}")),
            duration_ms: 70 + u32::from(number),
        });
    }
    // The second delivery is replayed while its attempt is in flight.
    let replay = ReplayId::generate();
    let replayed = results[1].event_id;
    api.execute(&format!(
        "UPDATE deliveries SET budget_start = 9, triggered_by = 'replay', replay_request_id = '{replay}'
        WHERE event_id = '{replayed}'"
    ))
    .await;
    let mut connection = DedicatedConnection::new(api.db.clone());
    let mut recorded = record(&mut connection, &results).await.expect("a commit");
    recorded.sort_by_key(|attempt| attempt.event_id);
    let recorded: Vec<_> = recorded
        .iter()
        .map(|attempt| (attempt.event_id, &*attempt.destination, attempt.replay_request_id))
        .collect();
    assert_eq!(recorded, [(results[0].event_id, "orders", None), (replayed, "orders", Some(replay))]);

    for (result, is_replayed) in results.iter().zip([false, true]) {
        let next = if is_replayed { result.next_if_replayed } else { result.next };
        let id = result.event_id;
        let delivery = api
            .json(&format!(
                "SELECT status, extract(epoch FROM due_at - updated_at)::bigint AS wait, queued_at, lease_id, lease_until, finished_at,
                    last_error, attempts, triggered_by
                FROM deliveries WHERE event_id = '{id}'"
            ))
            .await;
        let expected = json!({
            "status": "retrying",
            // After the database's own time of the commit.
            "wait": next.wait().unwrap().as_secs(),
            "queued_at": null,
            "lease_id": null,
            "lease_until": null,
            "finished_at": null,
            "last_error": result.error_message,
            "attempts": 1,
            "triggered_by": "retry",
        });
        assert_eq!(delivery, expected);
        let attempt = api
            .json(&format!(
                "SELECT a.*, a.id <> ALL(ARRAY[a.event_id, a.integration_id, '{lease}']) AS id,
                    extract(epoch FROM a.scheduled_at)::bigint AS scheduled_at,
                    extract(epoch FROM a.started_at)::bigint AS started_at
                FROM delivery_attempts a WHERE a.event_id = '{id}'",
                lease = result.lease_id
            ))
            .await;
        let expected = json!({
            "id": true,
            "event_id": id,
            "integration_id": result.integration_id.uuid(),
            "destination": result.destination,
            "attempt_no": 1,
            "succeeded": false,
            "http_status": result.http_status,
            "response_body": result.response_body,
            "error_message": result.error_message,
            "duration_ms": result.duration_ms,
            "triggered_by": if is_replayed { "replay" } else { result.triggered_by.as_str() },
            "scheduled_at": result.scheduled_at.as_second(),
            "started_at": result.started_at.as_second(),
            "indexed_attempts": 1,
            "indexed_event_ids": null,
        });
        assert_eq!(attempt, expected);
        let audited = api
            .json(&format!(
                "SELECT entity_type, action, actor, details::jsonb - 'dueAt' AS details,
                    (SELECT (details ->> 'dueAt')::timestamptz = due_at FROM deliveries WHERE event_id = '{id}') AS is_due
                FROM audit_entries WHERE entity_id = '{id}' AND action <> 'webhook.received'"
            ))
            .await;
        let expected = json!({
            "entity_type": "event",
            "action": "event.retry_scheduled",
            "actor": "worker",
            "details": {"destination": "orders", "attemptNo": 1, "error": result.error_message},
            "is_due": true,
        });
        assert_eq!(audited, expected);
    }
}
