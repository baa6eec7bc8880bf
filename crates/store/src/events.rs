//! The one commit behind a 202: idempotency keys, events, deliveries and audit entries of a whole batch.
//!
//! Either all rows of an event are there or none. The unique key decides which of two equal events is first, also
//! between two processes and inside one batch; the loser learns the first event's id.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use grapnel_core::payload::{BodyForm, DeliveredAs};

/// A verified and normalized webhook, ready to be stored.
#[derive(Debug)]
pub struct NewEvent {
    /// UUIDv7 of the moment of receipt.
    pub id: Uuid,
    pub integration_id: Uuid,
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
    /// Which verification secret proved it: 0 is the current one.
    pub secret_index: usize,
    pub idempotency_key: String,
    /// The first 16 bytes of the SHA-256 of `idempotency_key`.
    pub key_hash: Uuid,
    /// Names of the destinations, at least one.
    pub destinations: Arc<[Arc<str>]>,
}

/// What became of one event of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    New,
    /// The event was there before; this is the first one's id.
    DuplicateOf(Uuid),
    /// The key was taken and is gone again (pruned in between): the event may be sent once more.
    TryAgain,
}

/// Stores a batch in one statement, so in one commit, and answers for each event in order.
///
/// The events are sorted by key first, so that concurrent writers lock keys in the same order and cannot deadlock.
///
/// `queued` says whether the deliveries' messages are about to be published; otherwise they are due at once.
pub async fn store(
    connection: &mut PgConnection,
    events: &mut [NewEvent],
    queued: bool,
) -> sqlx::Result<Vec<Stored>> {
    events.sort_unstable_by_key(|event| event.key_hash);
    let fresh = insert(connection, events, queued).await?;
    let duplicates: Vec<Uuid> =
        events.iter().filter(|event| !fresh.contains(&event.id)).map(|event| event.key_hash).collect();
    let first_ids =
        if duplicates.is_empty() { HashMap::new() } else { find_first(connection, &duplicates).await? };
    let answer = |event: &NewEvent| match (fresh.contains(&event.id), first_ids.get(&event.key_hash)) {
        (true, _) => Stored::New,
        (false, Some(first)) => Stored::DuplicateOf(*first),
        (false, None) => Stored::TryAgain,
    };
    Ok(events.iter().map(answer).collect())
}

async fn insert(
    connection: &mut PgConnection,
    events: &[NewEvent],
    queued: bool,
) -> sqlx::Result<HashSet<Uuid>> {
    let each = events.len();
    let mut destination_events = Vec::with_capacity(each);
    let mut destination_names = Vec::with_capacity(each);
    let mut destination_integrations = Vec::with_capacity(each);
    for event in events {
        for name in event.destinations.iter() {
            destination_events.push(event.id);
            destination_names.push(&**name);
            destination_integrations.push(event.integration_id);
        }
    }
    let text = |pick: fn(&NewEvent) -> &str| events.iter().map(pick).collect::<Vec<_>>();
    let maybe = |pick: fn(&NewEvent) -> Option<&str>| events.iter().map(pick).collect::<Vec<_>>();
    let rows = sqlx::query(INSERT)
        .bind(events.iter().map(|event| event.key_hash).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.id).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.integration_id).collect::<Vec<_>>())
        .bind(text(|event| &event.provider))
        .bind(maybe(|event| event.external_event_id.as_deref()))
        .bind(text(|event| &event.event_type))
        .bind(maybe(|event| event.subject.as_deref()))
        .bind(events.iter().map(|event| event.occurred_at.to_sqlx()).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.received_at.to_sqlx()).collect::<Vec<_>>())
        .bind(text(|event| &event.correlation_id))
        .bind(maybe(|event| event.traceparent.as_deref()))
        .bind(events.iter().map(|event| event.source_ip.to_string()).collect::<Vec<_>>())
        .bind(text(|event| &event.headers))
        .bind(events.iter().map(|event| &event.raw_body[..]).collect::<Vec<_>>())
        .bind(text(|event| &event.payload_key))
        .bind(events.iter().map(|event| event.payload.start as i32).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.payload.len() as i32).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.body_form.code()).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.delivered_as.code()).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.secret_index as i16).collect::<Vec<_>>())
        .bind(text(|event| &event.idempotency_key))
        .bind(events.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
        .bind(destination_events)
        .bind(destination_names)
        .bind(destination_integrations)
        .bind(queued)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

const INSERT: &str = "/* ingest::insert */
    WITH input AS (
        SELECT * FROM unnest(
            $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[],
            $9::timestamptz[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bytea[], $15::text[],
            $16::int[], $17::int[], $18::smallint[], $19::smallint[], $20::smallint[], $21::text[], $22::uuid[]
        ) AS t (
            key_hash, id, integration_id, provider, external_event_id, event_type, subject, occurred_at,
            received_at, correlation_id, traceparent, source_ip, headers, raw_body, payload_key,
            payload_start, payload_length, body_form, delivered_as, secret_index, idempotency_key, audit_id
        )
    ), fresh AS (
        -- DO NOTHING settles the same key twice, also inside this batch.
        INSERT INTO idempotency_keys (key_hash, event_id)
        SELECT key_hash, id FROM input
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
        -- Its own outbox: queued_at says that the message is about to be published.
        INSERT INTO deliveries (event_id, destination, integration_id, queued_at, due_at, updated_at)
        SELECT event_id, destination, integration_id, CASE WHEN $26 THEN now() END, CASE WHEN NOT $26 THEN now() END,
            now()
        FROM unnest($23::uuid[], $24::text[], $25::uuid[]) AS d (event_id, destination, integration_id)
        WHERE event_id IN (SELECT event_id FROM fresh)
    ), audited AS (
        INSERT INTO audit_entries (id, entity_type, entity_id, action, actor)
        SELECT audit_id, 'event', id, 'webhook.received', 'provider:' || provider
        FROM input WHERE id IN (SELECT event_id FROM fresh)
    )
    SELECT event_id FROM fresh";

async fn find_first(connection: &mut PgConnection, key_hashes: &[Uuid]) -> sqlx::Result<HashMap<Uuid, Uuid>> {
    let rows = sqlx::query(
        "/* ingest::find_first */
        SELECT key_hash, event_id FROM idempotency_keys WHERE key_hash = ANY($1)",
    )
    .bind(key_hashes)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
