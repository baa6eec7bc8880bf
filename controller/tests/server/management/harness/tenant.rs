//! A namespace with an Integration and what is stored for it.

use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::{IntegrationRow, RowState};
use grapnel_store::integrations::{UpsertOutcome, upsert};
use uuid::Uuid;

use super::Management;
use crate::harness::acme_spec;

/// A namespace with an Integration, one event, a request to replay it, and a replay that has begun.
#[derive(Debug, Clone)]
pub(crate) struct Tenant {
    pub(crate) namespace: String,
    pub(crate) integration: String,
    pub(crate) event: String,
    pub(super) route: String,
    pub(super) replay: String,
    pub(super) job: String,
}

/// What only a body, a header and a receiver's answer of the namespace have.
pub(super) fn marker(namespace: &str) -> String {
    format!("marker-of-{namespace}")
}

impl Management {
    /// Stores an Integration with an event, an attempt and a replay request. What only payloads have contains the namespace's marker.
    pub(crate) async fn add_integration(&self, namespace: &str, name: &str) -> Tenant {
        let id = Uuid::now_v7();
        let row = IntegrationRow {
            id: IntegrationId::new(id),
            uid: id.to_string(),
            namespace: namespace.into(),
            name: name.into(),
            generation: 1,
            writer_epoch: 0,
            provider: "acme".into(),
            route: format!("{name}-{namespace}"),
            display_name: name.into(),
            state: RowState::parse("Active").expect("a state"),
            spec: acme_spec(name).to_string(),
            secrets: b"sealed".to_vec(),
            gone: Vec::new(),
            endpoints: None,
        };
        let written =
            upsert(&self.installation.db, &row, &["orders".to_owned()], "test").await.expect("a row");
        assert_eq!(written, UpsertOutcome::Applied);
        let marker = marker(namespace);
        let body = format!(r#"{{"data":{{"text":"{marker}"}}}}"#);
        let length = body.len() - r#"{"data":"#.len() - "}".len();
        let insert = format!(
            r#"WITH stored AS (
                INSERT INTO events (id, integration_id, provider, event_type, occurred_at, received_at, correlation_id,
                    headers, raw_body, payload_key, payload_start, payload_length, idempotency_key)
                VALUES (uuidv7_now(), '{id}', 'acme', 'order.created', now(), now(), 'test',
                    '[["x-note","{marker}"]]', convert_to('{body}', 'UTF8'), 'data', 8, {length}, '{id}:{marker}')
                RETURNING id
            ), delivery AS (
                INSERT INTO deliveries (event_id, destination, integration_id, status, finished_at, last_error, attempts, updated_at)
                SELECT id, 'orders', '{id}', 'failed', now(), 'HTTP 500', 1, now() FROM stored
            ), attempt AS (
                INSERT INTO delivery_attempts (id, event_id, integration_id, destination, attempt_no, succeeded, http_status,
                    response_body, error_message, duration_ms, triggered_by, scheduled_at, started_at)
                SELECT uuidv7_now(), id, '{id}', 'orders', 1, false, 500, '{marker}', 'HTTP 500', 3, 'webhook', now(), now()
                FROM stored
            ), audited AS (
                INSERT INTO audit_entries (id, entity_type, entity_id, action, actor)
                SELECT uuidv7_now(), 'event', id, 'webhook.received', 'provider:acme' FROM stored
            )
            INSERT INTO replay_requests (id, event_id, requested_by, reason, status, created_at, processed_at)
            SELECT uuidv7_now(), id, 'test', 'because', 'failed', now(), now() FROM stored"#
        );
        let database = &self.installation.database;
        database.execute(&insert).await;
        let event =
            database.text(&format!("SELECT id::text FROM events WHERE integration_id = '{id}'")).await;
        let event = event.expect("an event");
        let replay =
            database.text(&format!("SELECT id::text FROM replay_requests WHERE event_id = '{event}'")).await;
        let job = Uuid::now_v7().to_string();
        let begin = format!(
            r#"INSERT INTO replay_jobs (id, namespace, integration_ids, spec, received_before, rate_per_second, max_deliveries, reason,
                state, actor)
            VALUES ('{job}', '{namespace}', ARRAY['{id}'::uuid], '{{"select":"Failed","receivedBefore":"2026-01-01T00:00:00Z",
                "ratePerSecond":50,"maxDeliveries":10,"order":"OldestFirst","reason":"because"}}', now(), 50, 10, 'because', 'Running', 'test')"#
        );
        database.execute(&begin).await;
        Tenant {
            namespace: namespace.to_owned(),
            integration: id.to_string(),
            event,
            route: row.route,
            replay: replay.expect("a replay"),
            job,
        }
    }
}
