//! Claims deliveries under a lease, before they are sent.
//!
//! A delivery is claimed when it is queued (a finished one is not) and under no other lease that still runs; the database's clock
//! decides, the only one that all processes share. Whoever holds the newest lease id may write the next result, and
//! nobody else. A lost claim is only claimed again, so its commit need not wait for the disk.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::postgres::PgPool;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use grapnel_core::payload::{BodyForm, DeliveredAs};

/// A claimed delivery with all that its attempt needs.
#[derive(Debug)]
pub struct Claimed {
    pub event_id: Uuid,
    pub lease_id: Uuid,
    /// Recorded attempts so far.
    pub attempts: i32,
    /// Attempts that were made before the last replay.
    pub budget_start: i32,
    pub triggered_by: String,
    pub replay_request_id: Option<Uuid>,
    pub queued_at: Timestamp,
    pub started_at: Timestamp,
    pub provider: String,
    pub event_type: String,
    pub external_event_id: Option<String>,
    pub correlation_id: String,
    pub traceparent: Option<String>,
    pub payload_key: String,
    /// The part of the body that is delivered, as it came; all of it when it is delivered raw. `None` when it is long:
    /// [`long_payload`] gets it.
    pub payload: Option<Vec<u8>>,
    /// In bytes.
    pub payload_length: usize,
    pub body_form: BodyForm,
    pub delivered_as: DeliveredAs,
    /// What an envelope says beside that; `None` when there is none.
    pub envelope: Option<EnvelopeFields>,
    /// The headers of the webhook as stored, where its content-type is wanted.
    pub headers: Option<String>,
}

/// What only an envelope says.
#[derive(Debug)]
pub struct EnvelopeFields {
    pub integration_id: Uuid,
    pub subject: Option<String>,
    pub occurred_at: Timestamp,
}

/// A payload that is longer than this, in bytes, does not come with its claim, so that a batch of claims has a bound.
const LONG: i32 = 64 * 1024;

/// Claims those of the events' deliveries to one destination that can be claimed. One statement, one commit.
///
/// Claiming again under the same `lease_id` answers the same deliveries, so a claim whose answer was lost is repeated.
pub async fn claim(
    connection: &mut PgConnection,
    destination: &str,
    event_ids: &[Uuid],
    lease_id: Uuid,
    lease: Duration,
) -> sqlx::Result<Vec<Claimed>> {
    let (Some(first), Some(last)) = (event_ids.iter().min(), event_ids.iter().max()) else {
        return Ok(Vec::new());
    };
    let rows = sqlx::query(CLAIM)
        .bind(event_ids)
        .bind(first)
        .bind(last)
        .bind(destination)
        .bind(lease_id)
        .bind(lease.as_secs_f64())
        .bind(LONG)
        .fetch_all(connection)
        .await?;
    rows.iter().map(claimed).collect()
}

/// Where in the body of the event `e` lies what is delivered, as `p`: all of it when it is delivered raw.
macro_rules! payload_position {
    () => {
        "CROSS JOIN LATERAL (
        SELECT CASE WHEN e.delivered_as = 1 THEN 0 ELSE e.payload_start END AS start,
            CASE WHEN e.delivered_as = 1 THEN octet_length(e.raw_body) ELSE e.payload_length END AS length
    ) AS p"
    };
}

// The bounds prune the partitions: the ids alone would have every one of them probed. Repeated on the join for the
// same reason.
const CLAIM: &str = concat!(
    "/* claim::claim */
    WITH claimed AS (
        UPDATE deliveries d
        SET status = 'processing',
            lease_id = $5,
            lease_until = now() + make_interval(secs => $6),
            started_at = now(),
            updated_at = now()
        WHERE d.event_id = ANY($1)
            AND d.event_id BETWEEN $2 AND $3
            AND d.destination = $4
            AND d.queued_at IS NOT NULL
            AND (d.lease_until IS NULL OR d.lease_until <= now() OR d.lease_id = $5)
        RETURNING d.event_id, d.lease_id, d.attempts, d.budget_start, d.triggered_by, d.replay_request_id,
            d.queued_at, d.started_at
    )
    SELECT c.*, e.provider, e.event_type, e.external_event_id, e.correlation_id, e.traceparent, e.payload_key,
        e.body_form, e.delivered_as, p.length AS payload_length,
        CASE WHEN p.length <= $7 THEN substring(e.raw_body FROM p.start + 1 FOR p.length) END AS payload,
        CASE WHEN e.delivered_as <> 0 THEN e.headers::text END AS headers,
        CASE WHEN e.delivered_as = 2 THEN e.integration_id END AS integration_id,
        CASE WHEN e.delivered_as = 2 THEN e.subject END AS subject,
        CASE WHEN e.delivered_as = 2 THEN e.occurred_at END AS occurred_at
    FROM claimed c
    JOIN events e ON e.id = c.event_id AND e.id = ANY($1) AND e.id BETWEEN $2 AND $3
    ",
    payload_position!()
);

/// The payload of a claimed delivery that did not come with it.
pub async fn long_payload(pool: &PgPool, claimed: &Claimed) -> sqlx::Result<Vec<u8>> {
    sqlx::query_scalar(concat!(
        "/* claim::long_payload */
        SELECT substring(e.raw_body FROM p.start + 1 FOR p.length)
        FROM events e ",
        payload_position!(),
        " WHERE e.id = $1"
    ))
    .bind(claimed.event_id)
    .fetch_one(pool)
    .await
}

fn claimed(row: &sqlx::postgres::PgRow) -> sqlx::Result<Claimed> {
    let queued_at: jiff_sqlx::Timestamp = row.try_get("queued_at")?;
    let started_at: jiff_sqlx::Timestamp = row.try_get("started_at")?;
    let integration_id: Option<Uuid> = row.try_get("integration_id")?;
    let occurred_at: Option<jiff_sqlx::Timestamp> = row.try_get("occurred_at")?;
    let envelope = match (integration_id, occurred_at) {
        (Some(integration_id), Some(occurred_at)) => Some(EnvelopeFields {
            integration_id,
            subject: row.try_get("subject")?,
            occurred_at: occurred_at.to_jiff(),
        }),
        _ => None,
    };
    Ok(Claimed {
        envelope,
        headers: row.try_get("headers")?,
        body_form: known("body_form", row.try_get("body_form")?, BodyForm::from_code)?,
        delivered_as: known("delivered_as", row.try_get("delivered_as")?, DeliveredAs::from_code)?,
        event_id: row.try_get("event_id")?,
        lease_id: row.try_get("lease_id")?,
        attempts: row.try_get("attempts")?,
        budget_start: row.try_get("budget_start")?,
        triggered_by: row.try_get("triggered_by")?,
        replay_request_id: row.try_get("replay_request_id")?,
        queued_at: queued_at.to_jiff(),
        started_at: started_at.to_jiff(),
        provider: row.try_get("provider")?,
        event_type: row.try_get("event_type")?,
        external_event_id: row.try_get("external_event_id")?,
        correlation_id: row.try_get("correlation_id")?,
        traceparent: row.try_get("traceparent")?,
        payload_key: row.try_get("payload_key")?,
        payload: row.try_get("payload")?,
        payload_length: usize::try_from(row.try_get::<i32, _>("payload_length")?).unwrap_or_default(),
    })
}

/// A code that this version does not know was written by a newer one.
fn known<T>(column: &str, code: i16, read: fn(i16) -> Option<T>) -> sqlx::Result<T> {
    let unknown = || sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: format!("events.{column} is {code}, which this version does not know").into(),
    };
    read(code).ok_or_else(unknown)
}

/// Tells the operators of a message that is not ours, as an audit entry of the integration whose queue it was in.
pub async fn report_poison(
    pool: &PgPool,
    integration_id: Uuid,
    destination: &str,
    message_bytes: usize,
) -> sqlx::Result<()> {
    sqlx::query(
        "/* claim::report_poison */
        INSERT INTO audit_entries (id, entity_type, entity_id, action, actor, details)
        VALUES (uuidv7_now(), 'integration', $1, 'queue.message_rejected', 'worker',
            json_build_object('destination', $2::text, 'messageBytes', $3::bigint))",
    )
    .bind(integration_id)
    .bind(destination)
    .bind(message_bytes as i64)
    .execute(pool)
    .await?;
    Ok(())
}
