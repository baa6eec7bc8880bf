//! A database, the router on it, and functions that fill it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use grapnel::http::KEY_HEADER;
use grapnel::management::{Denials, LiveEvents, ManagementKeys, ManagementState, router};
use grapnel_core::delivery::state::NextState;
use grapnel_core::filter::DestinationSet;
use grapnel_core::ids::{EventId, IntegrationId, LeaseId};
use grapnel_core::integration::{IntegrationRow, RowState};
use grapnel_core::payload::{BodyForm, DeliveredAs};
use grapnel_store::deliveries::{AttemptResult, Birth, ClaimedDelivery, claim, record};
use grapnel_store::events::{self, IngestOutcome, NewEvent, NewHeaders, NewPayload, NewRequest};
use grapnel_store::{ClaimConnections, Database, DedicatedConnection, StoredForm};
use grapnel_testing::{TestDatabase, TestServices};
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

use super::super::harness::grapnel;

pub(crate) const KEY: &str = "current-key-0123456789";
pub(crate) const PREVIOUS_KEY: &str = "previous-key-0123456789";

/// An empty list of ids.
pub(crate) const NOTHING: [Uuid; 0] = [];

/// The API on a database.
pub(crate) struct Api {
    /// For the SQL of the tests.
    pub(crate) database: TestDatabase,
    pub(crate) db: Database,
    pub(crate) router: Router,
    pub(crate) replays: Arc<Notify>,
}

impl Api {
    pub(crate) async fn start() -> Self {
        // What the API logs is shown with a test that fails; another test may have been first to say so.
        drop(tracing_subscriber::fmt().with_test_writer().try_init());
        let database = TestDatabase::create(&TestServices::shared(), grapnel()).await;
        let db = Database::new(&database.secret_url(), "test", 4).expect("a URL");
        let replays = Arc::new(Notify::new());
        let router = router(state(db.clone(), Arc::clone(&replays)));
        Self { database, db, router, replays }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(&self.router, Request::get(path).header(KEY_HEADER, KEY).body(Body::empty()).expect("a request"))
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        let request = Request::post(path).header(KEY_HEADER, KEY).header("content-type", "application/json");
        send(&self.router, request.body(Body::from(body.to_owned())).expect("a request")).await
    }

    /// The ids of a list, in its order.
    pub(crate) async fn ids(&self, path: &str) -> Vec<Uuid> {
        self.get(path).await.expect(StatusCode::OK).ids()
    }

    /// The ids of a whole list, followed by its cursors.
    pub(crate) async fn all_ids(&self, path: &str) -> Vec<Uuid> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut ids = Vec::new();
        let mut next = Some(path.to_owned());
        while let Some(page) = next {
            let answer = self.get(&page).await.expect(StatusCode::OK);
            ids.extend(answer.ids());
            let cursor = answer.json["meta"]["nextCursor"].as_str();
            next = cursor.map(|cursor| format!("{path}{separator}cursor={cursor}"));
        }
        ids
    }

    /// Stores an integration with these destinations.
    pub(crate) async fn integration(&self, name: &str, destinations: &[&str]) -> Uuid {
        let id = Uuid::now_v7();
        self.write_integration(id, name, "Active", destinations).await;
        id
    }

    pub(crate) async fn write_integration(&self, id: Uuid, name: &str, state: &str, destinations: &[&str]) {
        let listed: Vec<_> = destinations
            .iter()
            .map(|name| serde_json::json!({"name": name, "url": format!("https://{name}.example.com/hooks")}))
            .collect();
        let row = IntegrationRow {
            id: IntegrationId::new(id),
            uid: id.to_string(),
            namespace: "shop".into(),
            name: name.into(),
            generation: 1,
            writer_epoch: 0,
            provider: "acme".into(),
            route: name.into(),
            display_name: format!("The {name}"),
            state: RowState::parse(state).expect("a state"),
            spec: serde_json::json!({
                "provider": "acme", "verification": {"secretRef": {"name": "acme"}}, "destinations": listed,
            })
            .to_string(),
            secrets: b"sealed".to_vec(),
            gone: Vec::new(),
            endpoints: None,
        };
        let kept: Vec<_> = destinations.iter().map(|name| (*name).to_owned()).collect();
        let written =
            grapnel_store::integrations::upsert(&self.db, &row, &kept, "test").await.expect("a row");
        assert_eq!(written, grapnel_store::integrations::UpsertOutcome::Applied);
    }

    /// Stores an event, its deliveries queued.
    pub(crate) async fn store(&self, event: NewEvent) -> Uuid {
        let id = event.id;
        let mut connection = DedicatedConnection::new(self.db.clone());
        let birth = |event: &NewEvent, position| {
            if event.filtered.contains(position) { Birth::Filtered } else { Birth::Queued }
        };
        let batch = &mut [event];
        let stored = events::store(&mut connection, batch, StoredForm::Apart, birth).await;
        let stored = stored.expect("a commit");
        assert_eq!(stored, [IngestOutcome::New]);
        id.uuid()
    }

    /// Stores the events of one request.
    pub(crate) async fn store_together(&self, mut events: Vec<NewEvent>) -> Vec<Uuid> {
        let ids = events.iter().map(|event| event.id.uuid()).collect();
        let stored = self.store_batch_of(&mut events).await;
        assert!(stored.iter().all(|outcome| *outcome == IngestOutcome::New));
        ids
    }

    /// Stores events in one commit, their deliveries queued. Returns their outcomes in the order in which they are left.
    pub(crate) async fn store_batch_of(&self, batch: &mut [NewEvent]) -> Vec<IngestOutcome> {
        let mut connection = DedicatedConnection::new(self.db.clone());
        let stored = events::store(&mut connection, batch, StoredForm::Apart, |_, _| Birth::Queued).await;
        stored.expect("a commit")
    }

    /// Checks a list of events in both directions, with its total: whole, and by pages, whose sizes are in the parameters `whole` and `paged`.
    pub(crate) async fn check_pages(&self, query: &str, ascending: &[Uuid], whole: &str, paged: &str) {
        let mut expected = ascending.to_vec();
        for order in ["asc", "desc"] {
            let path = format!("/events?{query}&sortOrder={order}");
            let all = self.get(&format!("{path}{whole}")).await.expect(StatusCode::OK);
            assert_eq!(all.ids(), expected, "{path}");
            assert_eq!(all.json["meta"]["total"], expected.len(), "{path}");
            let first = self.get(&format!("{path}{paged}")).await.expect(StatusCode::OK);
            assert_eq!(first.json["meta"]["total"], expected.len(), "{path}");
            assert_eq!(self.all_ids(&format!("{path}{paged}")).await, expected, "{path}");
            expected.reverse();
        }
    }

    /// Claims a delivery as a worker does.
    pub(crate) async fn claim(&self, event_id: Uuid, destination: &str) -> ClaimedDelivery {
        let ids = [EventId::new(event_id)];
        let lease = Duration::from_secs(60);
        let claims = ClaimConnections::new(&self.db, 1);
        let claimed = claim(&claims, destination, &ids, LeaseId::generate(), lease).await.expect("a commit");
        claimed.into_iter().next().expect("the delivery can be claimed")
    }

    /// Records the outcome of a claimed delivery, and settles its replay, as a worker does. Returns whether it was
    /// accepted.
    pub(crate) async fn finish(&self, claimed: &ClaimedDelivery, destination: &str, next: NextState) -> bool {
        self.record(&[result(claimed, destination, next)]).await == 1
    }

    /// Records results in one commit. Returns how many were accepted.
    pub(crate) async fn record(&self, results: &[AttemptResult]) -> usize {
        let mut connection = DedicatedConnection::new(self.db.clone());
        record(&mut connection, results).await.expect("a commit").len()
    }

    /// Claims a delivery and records its outcome.
    pub(crate) async fn attempt(&self, event_id: Uuid, destination: &str, next: NextState) {
        let claimed = self.claim(event_id, destination).await;
        assert!(self.finish(&claimed, destination, next).await);
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.database.execute(sql).await;
    }

    pub(crate) async fn text(&self, sql: &str) -> Option<String> {
        self.database.text(sql).await
    }

    /// The actions that were audited about an entity, the earliest first.
    pub(crate) async fn actions(&self, entity_id: Uuid) -> Vec<String> {
        let answer = self.get(&format!("/audit-entries?entityId={entity_id}")).await.expect(StatusCode::OK);
        let mut actions: Vec<_> = answer
            .data()
            .iter()
            .map(|entry| entry["action"].as_str().expect("an action").to_owned())
            .collect();
        actions.reverse();
        actions
    }
}

/// An hour from now: due, but not yet.
pub(crate) fn later() -> NextState {
    NextState::RetryAfter(Duration::from_secs(3600))
}

/// What a worker has to record of a claimed delivery.
pub(crate) fn result(claimed: &ClaimedDelivery, destination: &str, next: NextState) -> AttemptResult {
    let failed = next != NextState::Succeeded;
    AttemptResult {
        event_id: claimed.event_id,
        integration_id: claimed.integration_id,
        destination: destination.to_owned(),
        lease_id: claimed.lease_id,
        attempt_no: claimed.attempts + 1,
        budget_start: claimed.budget_start,
        replay_request_id: claimed.replay_request_id,
        triggered_by: claimed.triggered_by,
        scheduled_at: claimed.queued_at,
        started_at: claimed.started_at,
        next,
        next_if_replayed: if next == NextState::Failed {
            NextState::RetryAfter(Duration::ZERO)
        } else {
            next
        },
        counts: true,
        http_status: Some(if failed { 500 } else { 200 }),
        response_body: Some("answered".into()),
        error_message: failed.then(|| "HTTP 500".into()),
        duration_ms: 12,
    }
}

pub(crate) fn state(db: Database, replays: Arc<Notify>) -> ManagementState {
    let [current, previous] = [KEY, PREVIOUS_KEY].map(SecretString::from);
    ManagementState {
        live: LiveEvents::new(db.clone(), CancellationToken::new()),
        db,
        keys: ManagementKeys::new(Some(&current), Some(&previous)),
        cluster: None,
        trusted_proxies: Arc::default(),
        denials: Denials::default(),
        delivery_sink: true,
        replays,
        rejections: None,
        queue_prefix: "test.".into(),
    }
}

/// An event of Acme that was received now, for one destination.
pub(crate) fn event(integration_id: Uuid) -> NewEvent {
    received_at(integration_id, Timestamp::now())
}

pub(crate) fn received_at(integration_id: Uuid, received_at: Timestamp) -> NewEvent {
    let key_hash = Uuid::now_v7();
    NewEvent {
        id: EventId::new(id_at(received_at)),
        integration_id: IntegrationId::new(integration_id),
        provider: "acme".into(),
        external_event_id: Some(format!("evt-{key_hash}")),
        event_type: "order.created".into(),
        subject: Some("ord-1".into()),
        occurred_at: received_at,
        received_at,
        correlation_id: "correlation-1".into(),
        traceparent: None,
        source_ip: [192, 0, 2, 7].into(),
        request: whole(Bytes::from_static(br#"{"data":{"id":"ord-1"}}"#)),
        payload_key: "data".into(),
        payload: NewPayload::Slice(8..22),
        body_form: BodyForm::Json,
        delivered_as: DeliveredAs::Normalized,
        secret_index: 0,
        idempotency_key: format!("{integration_id}:{key_hash}"),
        key_hash,
        former_key: None,
        audit_details: None,
        held: DestinationSet::default(),
        destinations: Arc::from([Arc::from("orders")]),
        filtered: DestinationSet::default(),
    }
}

/// The request of an event that is all of it.
pub(crate) fn whole(raw_body: Bytes) -> NewRequest {
    let headers = NewHeaders::Json(r#"[["content-type","application/json"]]"#.into());
    NewRequest::Whole { headers, raw_body }
}

/// Sets the body, which is all payload.
pub(crate) fn with_body(event: NewEvent, body: &str) -> NewEvent {
    NewEvent {
        request: whole(Bytes::from(body.to_owned())),
        payload: NewPayload::Slice(0..body.len()),
        ..event
    }
}

pub(crate) fn for_destinations(event: NewEvent, destinations: &[&str]) -> NewEvent {
    NewEvent { destinations: destinations.iter().map(|name| Arc::from(*name)).collect(), ..event }
}

/// A UUIDv7 of the moment.
pub(crate) fn id_at(time: Timestamp) -> Uuid {
    let random = Uuid::now_v7().as_u128() & ((1 << 80) - 1);
    let milliseconds = u128::try_from(time.as_millisecond()).expect("a time since 1970");
    Uuid::from_u128((milliseconds << 80) | random)
}

/// The first UUIDv7 of the millisecond of an id.
pub(crate) fn first_of_millisecond(id: Uuid) -> Uuid {
    Uuid::from_u128((id.as_u128() >> 80 << 80) | (7 << 76) | (8 << 60))
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) json: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: StatusCode) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    /// Checks that it is the error envelope with this code.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.json["success"], false);
        assert_eq!(self.json["error"]["code"], code, "{}", self.body);
        assert!(self.json["error"]["message"].is_string(), "{}", self.body);
        assert!(self.json["error"]["details"].is_object(), "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/json");
        self
    }

    /// Checks that it is a 400 that names the field.
    #[track_caller]
    pub(crate) fn invalid(self, field: &str) -> Self {
        let answer = self.refused(400, "VALIDATION_ERROR");
        assert_eq!(answer.json["error"]["details"]["field"], field, "{}", answer.body);
        answer
    }

    #[track_caller]
    pub(crate) fn data(&self) -> &Vec<Value> {
        self.json["data"].as_array().expect("a list")
    }

    #[track_caller]
    pub(crate) fn ids(&self) -> Vec<Uuid> {
        self.data().iter().map(|item| item["id"].as_str().expect("an id").parse().expect("a UUID")).collect()
    }
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, 64 * 1024 * 1024).await.expect("a body");
    let body = String::from_utf8(bytes.to_vec()).expect("text");
    let json = serde_json::from_str(&body).unwrap_or(Value::Null);
    Answer { status: parts.status, headers: parts.headers, body, json }
}
