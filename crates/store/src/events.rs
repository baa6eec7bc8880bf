//! The one commit behind a 202: idempotency keys, events and deliveries of a whole batch.
//!
//! Either all rows of an event are there or none. The unique key decides which of two equal events is first, also
//! between two processes and inside one batch; the other one gets the first event's id.
//!
//! That a webhook was received is an audit entry that is derived from the event (`views::audit`). It is a row only where there is something to
//! say of it.

use std::collections::{BTreeMap, HashMap};

use grapnel_core::ids::{EventId, RequestId};
use jiff_sqlx::ToSqlx;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Connection as _, PgConnection, Postgres, Row};
use uuid::Uuid;

use crate::audit::{self, insert_audit_entries};
use crate::columns::{Batch, Columns};
use crate::dedicated_connection::DedicatedConnection;
use crate::deliveries::{Birth, insert_deliveries};
use crate::error::Result;
use crate::stored_form::StoredForm;
pub use new_event::{FormerKey, NewEvent, NewHeaders, NewPayload, NewRequest, SharedRequest};

pub(crate) mod index;
mod new_event;

/// The bodies of a batch that is larger than most, in bytes.
const LARGE_BATCH: usize = 1024 * 1024;

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
/// The events are sorted by key first, so that concurrent writers lock keys in the same order and cannot deadlock; of equal ones
/// the first is stored.
///
/// `form` is that of the events that are not the whole of their request, and `birth` says what the
/// delivery to the destination at a position is born as.
pub async fn store(
    connection: &mut DedicatedConnection,
    events: &mut [NewEvent],
    form: StoredForm,
    birth: impl Fn(&NewEvent, usize) -> Birth,
) -> Result<Vec<IngestOutcome>> {
    events.sort_unstable_by_key(|event| (event.key_hash, event.id));
    connection.bounded(async |connection| store_sorted(connection, events, form, birth).await).await
}

async fn store_sorted(
    connection: &mut PgConnection,
    events: &[NewEvent],
    form: StoredForm,
    birth: impl Fn(&NewEvent, usize) -> Birth,
) -> Result<Vec<IngestOutcome>> {
    let settled = insert(connection, events, form, birth).await?;
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
    form: StoredForm,
    birth: impl Fn(&NewEvent, usize) -> Birth,
) -> Result<HashMap<EventId, IngestOutcome>> {
    let is_rare = events.iter().any(|event| event.is_rare(form));
    let statement = sqlx::query(if is_rare { INSERT_RARE } else { INSERT });
    let mut statement = bind_events(statement, events, form, birth);
    if is_rare {
        statement = bind_rare(statement, events, form);
    }
    let rows = statement.fetch_all(&mut *connection).await?;
    if events.iter().map(|event| event.place(form).raw_body.len()).sum::<usize>() > LARGE_BATCH {
        // The connection would keep a buffer of the size of the largest batch that it ever wrote.
        connection.shrink_buffers();
    }
    let settled = |row: &PgRow| {
        let outcome = match row.optional_id("first_id", EventId::new)? {
            None => IngestOutcome::New,
            Some(first) => IngestOutcome::DuplicateOf(first),
        };
        Ok((row.id("event_id", EventId::new)?, outcome))
    };
    rows.iter().map(settled).collect()
}

fn bind_events<'q>(
    statement: Query<'q, Postgres, PgArguments>,
    events: &'q [NewEvent],
    form: StoredForm,
    birth: impl Fn(&NewEvent, usize) -> Birth,
) -> Query<'q, Postgres, PgArguments> {
    let mut destination_events = Vec::with_capacity(events.len());
    let mut destination_names = Vec::with_capacity(events.len());
    let mut destination_integrations = Vec::with_capacity(events.len());
    let mut births = Vec::with_capacity(events.len());
    for event in events {
        for (position, name) in event.destinations.iter().enumerate() {
            destination_events.push(event.id.uuid());
            destination_names.push(&**name);
            destination_integrations.push(event.integration_id.uuid());
            births.push(birth(event, position).code());
        }
    }
    let (indexed_events, indexed_ids): (Vec<_>, Vec<_>) =
        index::entries(events).into_iter().map(|entry| (entry.rows, entry.others)).unzip();
    let batch = Batch(events);
    statement
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
        .bind(batch.column(|event| event.place(form).headers))
        .bind(batch.column(|event| event.place(form).raw_body))
        .bind(batch.column(|event| &*event.payload_key))
        .bind(batch.column(|event| event.place(form).payload_start as i32))
        .bind(batch.column(|event| event.place(form).payload_length as i32))
        .bind(batch.column(|event| event.place(form).body_form))
        .bind(batch.column(|event| event.delivered_as.code()))
        .bind(batch.column(|event| event.secret_index as i16))
        .bind(batch.column(NewEvent::stored_key))
        .bind(destination_events)
        .bind(destination_names)
        .bind(destination_integrations)
        .bind(births)
        .bind(indexed_events)
        .bind(indexed_ids)
        .bind(batch.column(|event| event.place(form).packed_headers))
}

/// Binds what few events have, and the requests of those that are apart.
fn bind_rare<'q>(
    statement: Query<'q, Postgres, PgArguments>,
    events: &'q [NewEvent],
    form: StoredForm,
) -> Query<'q, Postgres, PgArguments> {
    let shared_request = |event: &'q NewEvent| event.shared_request().filter(|_| form == StoredForm::Apart);
    let shared = events.iter().filter_map(shared_request);
    let requests: BTreeMap<RequestId, &SharedRequest> =
        shared.map(|request| (request.id, &**request)).collect();
    let requests: Vec<&SharedRequest> = requests.into_values().collect();
    let (batch, requests) = (Batch(events), Batch(&requests));
    statement
        .bind(batch.column(|event| event.former_key.as_ref().map(|former| former.hash)))
        .bind(batch.column(|event| event.former_key.as_ref().map(|former| &*former.headers)))
        .bind(batch.column(|event| event.former_key.as_ref()?.body.as_deref()))
        .bind(batch.column(|event| event.audit_details.as_deref()))
        .bind(audit::new_ids(events.len()))
        .bind(batch.column(|event| event.own_payload().filter(|_| form == StoredForm::Apart)))
        .bind(batch.column(|event| shared_request(event).map(|request| request.id.uuid())))
        .bind(batch.column(|event| event.position().filter(|_| form == StoredForm::Apart)))
        .bind(batch.column(|event| shared_request(event).map(|request| request.count as i32)))
        .bind(requests.column(|request| request.id.uuid()))
        .bind(requests.column(|request| request.headers.as_str()))
        .bind(requests.column(|request| &request.raw_body[..]))
}

/// The statement: its name, and what it has for rare events: the types of their arrays and the names of their values, the step that
/// looks for former keys and the condition on its result, their columns, the step that stores their requests, the one that stores their
/// audit entries, and what is returned.
macro_rules! store_events {
    (
        $name:literal, $arrays:literal, $values:literal, $known:literal, $is_unknown:literal, $columns:literal,
        $requests:literal, $audited:expr, $returned:literal
    ) => {
        concat!(
            "/* ",
            $name,
            " */
    WITH input AS (
        SELECT * FROM unnest(
            $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[],
            $9::timestamptz[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bytea[], $15::text[],
            $16::int[], $17::int[], $18::smallint[], $19::smallint[], $20::smallint[], $21::text[], $26::smallint[],
            $27::text[], $28::bytea[]",
            $arrays,
            "
        ) AS t (
            key_hash, id, integration_id, provider, external_event_id, event_type, subject, occurred_at,
            received_at, correlation_id, traceparent, source_ip, headers, raw_body, payload_key,
            payload_start, payload_length, body_form, delivered_as, secret_index, idempotency_key, indexed_events,
            indexed_ids, packed_headers",
            $values,
            "
        )
    )",
            $known,
            ", fresh AS (
        -- DO NOTHING settles the same key twice, also inside this batch.
        INSERT INTO idempotency_keys (key_hash, event_id)
        SELECT key_hash, id FROM input",
            $is_unknown,
            "
        ON CONFLICT DO NOTHING
        RETURNING event_id
    ), stored AS (
        INSERT INTO events (
            id, integration_id, provider, external_event_id, event_type, subject, occurred_at, received_at,
            correlation_id, traceparent, source_ip, headers, raw_body, payload_key, payload_start, payload_length,
            body_form, delivered_as, secret_index, idempotency_key, indexed_events, indexed_ids, external_id_in_key,
            packed_headers",
            $columns,
            "
        )
        SELECT
            id, integration_id, provider, external_event_id, event_type, subject, occurred_at, received_at,
            correlation_id, traceparent, source_ip::inet, headers::json, raw_body, payload_key, payload_start,
            payload_length, body_form, delivered_as, secret_index, idempotency_key,
            -- Where one is left out, it may be the one that leads others.
            CASE WHEN (SELECT count(*) FROM fresh) = cardinality($2) THEN indexed_events ELSE 1 END,
            CASE WHEN (SELECT count(*) FROM fresh) = cardinality($2) THEN indexed_ids::uuid[] END, idempotency_key = '',
            packed_headers",
            $columns,
            "
        FROM input WHERE id IN (SELECT event_id FROM fresh)
    )",
            $requests,
            ", queued AS (
        ",
    insert_deliveries!(),
    "
    )",
            $audited,
            "
    SELECT event_id, NULL::uuid AS first_id FROM fresh",
            $returned
        )
    };
}

const INSERT: &str = store_events!("events::store", "", "", "", "", "", "", "", "");

// Apart from the other one, which must not read events: a generic plan locks and opens all of its partitions for each statement,
// whether or not a row needs them.
const INSERT_RARE: &str = store_events!(
    "events::store, rare",
    ", $29::uuid[], $30::text[], $31::bytea[], $32::text[], $33::uuid[], $34::bytea[], $35::uuid[], $36::int[], $37::int[]",
    ", former_key_hash, former_headers, former_body, audit_details, audit_id, payload, request_id, request_position, request_count",
    ", known AS (
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
    )",
    "
        WHERE id NOT IN (SELECT id FROM known WHERE first_id IS NOT NULL)",
    ", payload, request_id, request_position, request_count",
    ", requested AS (
        -- A request of which nothing is new leaves nothing.
        INSERT INTO event_requests (id, headers, raw_body)
        SELECT r.id, r.headers::json, r.raw_body
        FROM unnest($38::uuid[], $39::text[], $40::bytea[]) AS r (id, headers, raw_body)
        WHERE r.id IN (SELECT i.request_id FROM input i WHERE i.id IN (SELECT event_id FROM fresh))
    )",
    concat!(
        ", audited AS (
        ",
        insert_audit_entries!(
            "SELECT audit_id, 'event', id, 'webhook.received', 'provider:' || provider, audit_details::json
        FROM input WHERE audit_details IS NOT NULL AND id IN (SELECT event_id FROM fresh)"
        ),
        "
    )"
    ),
    "
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
