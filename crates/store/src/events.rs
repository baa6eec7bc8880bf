//! The one commit behind a 202: idempotency keys, events, deliveries and audit entries of a whole batch.
//!
//! Either all rows of an event are there or none. The unique key decides which of two equal events is first, also
//! between two processes and inside one batch; the other one gets the first event's id.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use grapnel_core::ids::{EventId, IntegrationId};
use grapnel_core::payload::{BodyForm, DeliveredAs};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::audit::{self, insert_audit_entries};
use crate::columns::{Batch, Columns};
use crate::dedicated_connection::DedicatedConnection;
use crate::deliveries::{Birth, insert_deliveries};
use crate::error::Result;

/// A verified and normalized webhook, ready to be stored.
#[derive(Debug)]
pub struct NewEvent {
    /// UUIDv7 of the moment of receipt.
    pub id: EventId,
    pub integration_id: IntegrationId,
    pub provider: Arc<str>,
    pub external_event_id: Option<String>,
    pub event_type: String,
    pub subject: Option<String>,
    pub occurred_at: Timestamp,
    pub received_at: Timestamp,
    pub correlation_id: String,
    pub traceparent: Option<String>,
    pub source_ip: IpAddr,
    /// JSON text: `[[name, value], …]`, secrets redacted.
    pub headers: String,
    pub raw_body: Bytes,
    /// The member of the normalized payload that carries the provider's payload.
    pub payload_key: Arc<str>,
    /// Where the provider's payload is in `raw_body`.
    pub payload: Range<usize>,
    pub body_form: BodyForm,
    pub delivered_as: DeliveredAs,
    /// The verification secret that verified it: 0 is the current one.
    pub secret_index: usize,
    pub idempotency_key: String,
    /// The first 16 bytes of the SHA-256 of `idempotency_key`.
    pub key_hash: Uuid,
    /// The key that the previous version gave the webhook, if it was another.
    pub former_key: Option<FormerKey>,
    /// The details of the audit entry, as JSON text.
    pub audit_details: Option<String>,
    /// Whether deliveries of its integration are paused: nothing is published for it.
    pub is_paused: bool,
    /// Names of the destinations, at least one.
    pub destinations: Arc<[Arc<str>]>,
}

/// A key that a previous version gave. Different webhooks could have the same, so it counts only for an event with the same
/// body, type and subject, and with these headers.
#[derive(Debug)]
pub struct FormerKey {
    /// The first 16 bytes of the SHA-256 of the key.
    pub hash: Uuid,
    /// JSON text: `[[name, value], …]`.
    pub headers: String,
    /// The body as the previous version stored it, if that was with its token.
    pub body: Option<Bytes>,
}

/// The outcome of storing one event of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestOutcome {
    New,
    /// The event was stored before, under this id.
    DuplicateOf(EventId),
    /// The key was taken and then pruned: the event may be sent again.
    TryAgain,
}

/// Stores a batch in one statement, so in one commit, and returns the outcome of each event in order.
///
/// The events are sorted by key first, so that concurrent writers lock keys in the same order and cannot deadlock.
///
/// `birth` says what each delivery is born as.
pub async fn store(
    connection: &mut DedicatedConnection,
    events: &mut [NewEvent],
    birth: impl Fn(&NewEvent, &Arc<str>) -> Birth,
) -> Result<Vec<IngestOutcome>> {
    events.sort_unstable_by_key(|event| event.key_hash);
    connection.bounded(async |connection| store_sorted(connection, events, birth).await).await
}

async fn store_sorted(
    connection: &mut PgConnection,
    events: &[NewEvent],
    birth: impl Fn(&NewEvent, &Arc<str>) -> Birth,
) -> Result<Vec<IngestOutcome>> {
    let settled = insert(connection, events, birth).await?;
    let duplicates: Vec<Uuid> =
        events.iter().filter(|event| !settled.contains_key(&event.id)).map(|event| event.key_hash).collect();
    let first_ids =
        if duplicates.is_empty() { HashMap::new() } else { find_first(connection, &duplicates).await? };
    let outcome = |event: &NewEvent| match (settled.get(&event.id), first_ids.get(&event.key_hash)) {
        (Some(outcome), _) => *outcome,
        (None, Some(first)) => IngestOutcome::DuplicateOf(*first),
        (None, None) => IngestOutcome::TryAgain,
    };
    Ok(events.iter().map(outcome).collect())
}

/// Returns the outcomes of the events that are new, or known under a former key.
async fn insert(
    connection: &mut PgConnection,
    events: &[NewEvent],
    birth: impl Fn(&NewEvent, &Arc<str>) -> Birth,
) -> Result<HashMap<EventId, IngestOutcome>> {
    let mut destination_events = Vec::with_capacity(events.len());
    let mut destination_names = Vec::with_capacity(events.len());
    let mut destination_integrations = Vec::with_capacity(events.len());
    let mut births = Vec::with_capacity(events.len());
    for event in events {
        for name in event.destinations.iter() {
            destination_events.push(event.id.uuid());
            destination_names.push(&**name);
            destination_integrations.push(event.integration_id.uuid());
            births.push(birth(event, name).code());
        }
    }
    let batch = Batch(events);
    let rows = sqlx::query(INSERT)
        .bind(batch.column(|event| event.key_hash))
        .bind(batch.column(|event| event.id.uuid()))
        .bind(batch.column(|event| event.integration_id.uuid()))
        .bind(batch.column(|event| &*event.provider))
        .bind(batch.column(|event| event.external_event_id.as_deref()))
        .bind(batch.column(|event| &*event.event_type))
        .bind(batch.column(|event| event.subject.as_deref()))
        .bind(batch.column(|event| event.occurred_at.to_sqlx()))
        .bind(batch.column(|event| event.received_at.to_sqlx()))
        .bind(batch.column(|event| &*event.correlation_id))
        .bind(batch.column(|event| event.traceparent.as_deref()))
        .bind(batch.column(|event| event.source_ip.to_string()))
        .bind(batch.column(|event| &*event.headers))
        .bind(batch.column(|event| &event.raw_body[..]))
        .bind(batch.column(|event| &*event.payload_key))
        .bind(batch.column(|event| event.payload.start as i32))
        .bind(batch.column(|event| event.payload.len() as i32))
        .bind(batch.column(|event| event.body_form.code()))
        .bind(batch.column(|event| event.delivered_as.code()))
        .bind(batch.column(|event| event.secret_index as i16))
        .bind(batch.column(|event| &*event.idempotency_key))
        .bind(audit::new_ids(events.len()))
        .bind(destination_events)
        .bind(destination_names)
        .bind(destination_integrations)
        .bind(births)
        .bind(batch.column(|event| event.former_key.as_ref().map(|former| former.hash)))
        .bind(batch.column(|event| event.former_key.as_ref().map(|former| &*former.headers)))
        .bind(batch.column(|event| event.former_key.as_ref()?.body.as_deref()))
        .bind(batch.column(|event| event.audit_details.as_deref()))
        .fetch_all(connection)
        .await?;
    let settled = |row: &PgRow| {
        let outcome = match row.optional_id("first_id", EventId::new)? {
            None => IngestOutcome::New,
            Some(first) => IngestOutcome::DuplicateOf(first),
        };
        Ok((row.id("event_id", EventId::new)?, outcome))
    };
    rows.iter().map(settled).collect()
}

const INSERT: &str = concat!(
    "/* events::store */
    WITH input AS (
        SELECT * FROM unnest(
            $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[],
            $9::timestamptz[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bytea[], $15::text[],
            $16::int[], $17::int[], $18::smallint[], $19::smallint[], $20::smallint[], $21::text[], $22::uuid[],
            $27::uuid[], $28::text[], $29::bytea[], $30::text[]
        ) AS t (
            key_hash, id, integration_id, provider, external_event_id, event_type, subject, occurred_at,
            received_at, correlation_id, traceparent, source_ip, headers, raw_body, payload_key,
            payload_start, payload_length, body_form, delivered_as, secret_index, idempotency_key, audit_id,
            former_key_hash, former_headers, former_body, audit_details
        )
    ), known AS (
        -- Scalar subqueries, so that each is a probe of an index and never a join of whole tables.
        SELECT id, (
            SELECT (
                SELECT events.id FROM events
                WHERE events.id = keys.event_id
                    AND events.event_type = input.event_type
                    AND events.subject IS NOT DISTINCT FROM input.subject
                    AND events.raw_body = coalesce(input.former_body, input.raw_body)
                    AND events.headers::jsonb @> input.former_headers::jsonb
            )
            FROM idempotency_keys keys WHERE keys.key_hash = input.former_key_hash
        ) AS first_id
        FROM input WHERE former_key_hash IS NOT NULL
    ), fresh AS (
        -- DO NOTHING settles the same key twice, also inside this batch.
        INSERT INTO idempotency_keys (key_hash, event_id)
        SELECT key_hash, id FROM input
        WHERE id NOT IN (SELECT id FROM known WHERE first_id IS NOT NULL)
        ON CONFLICT DO NOTHING
        RETURNING event_id
    ), stored AS (
        INSERT INTO events (
            id, integration_id, provider, external_event_id, event_type, subject, occurred_at, received_at,
            correlation_id, traceparent, source_ip, headers, raw_body, payload_key, payload_start, payload_length,
            body_form, delivered_as, secret_index, idempotency_key
        )
        SELECT
            id, integration_id, provider, external_event_id, event_type, subject, occurred_at, received_at,
            correlation_id, traceparent, source_ip::inet, headers::json, raw_body, payload_key, payload_start,
            payload_length, body_form, delivered_as, secret_index, idempotency_key
        FROM input WHERE id IN (SELECT event_id FROM fresh)
    ), queued AS (
        ",
    insert_deliveries!(),
    "
    ), audited AS (
        ",
    insert_audit_entries!(
        "SELECT audit_id, 'event', id, 'webhook.received', 'provider:' || provider, audit_details::json
        FROM input WHERE id IN (SELECT event_id FROM fresh)"
    ),
    "
    )
    SELECT event_id, NULL::uuid AS first_id FROM fresh
    UNION ALL
    SELECT id, first_id FROM known WHERE first_id IS NOT NULL"
);

async fn find_first(connection: &mut PgConnection, key_hashes: &[Uuid]) -> Result<HashMap<Uuid, EventId>> {
    let rows = sqlx::query(
        "/* events::find_first */
        SELECT key_hash, event_id FROM idempotency_keys WHERE key_hash = ANY($1)",
    )
    .bind(key_hashes)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, EventId::new(row.try_get(1)?)))).collect()
}
