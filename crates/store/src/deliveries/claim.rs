//! Claims deliveries under a lease, before they are sent.
//!
//! A delivery is claimed when it is queued (a finished one is not) and under no other lease that still runs; the database's clock
//! decides, the only one that all processes share. Only the holder of the newest lease id may write the next
//! result. A lost claim is only claimed again, so its commit need not wait for the disk.

use std::time::Duration;

use grapnel_core::delivery::state::Trigger;
use grapnel_core::error_chain::chain;
use grapnel_core::ids::{EventId, IntegrationId, LeaseId, ReplayId};
use grapnel_core::payload::{BodyForm, DeliveredAs};
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::columns::Columns;
use crate::database::Database;
use crate::deliveries::is_being_removed;
use crate::error::{Error, Result};

/// A claimed delivery with everything that its attempt needs.
#[derive(Debug)]
pub struct ClaimedDelivery {
    pub event_id: EventId,
    pub lease_id: LeaseId,
    /// Recorded attempts so far.
    pub attempts: i32,
    /// Attempts that were made before the last replay.
    pub budget_start: i32,
    pub triggered_by: Trigger,
    pub replay_request_id: Option<ReplayId>,
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
    /// How the body was read and how it is delivered; the error when another version wrote a form that this one does not know.
    pub forms: Result<(BodyForm, DeliveredAs)>,
    /// Set when it is delivered as a CloudEvent.
    pub cloud_event: Option<CloudEventFields>,
    /// The headers of the webhook as stored, when its content-type is needed, or when they count hops.
    pub headers: Option<String>,
}

/// The fields that only a CloudEvent carries.
#[derive(Debug)]
pub struct CloudEventFields {
    pub integration_id: IntegrationId,
    pub subject: Option<String>,
    pub occurred_at: Timestamp,
}

/// A payload that is longer than this, in bytes, does not come with its claim, so that a batch of claims is bounded.
const LONG: i32 = 64 * 1024;

/// Claims those deliveries of the events to one destination that can be claimed. One statement, one commit.
///
/// Claiming again under the same `lease_id` returns the same deliveries, so a claim whose answer was lost is repeated.
pub async fn claim(
    db: &Database,
    destination: &str,
    event_ids: &[EventId],
    lease_id: LeaseId,
    lease: Duration,
) -> Result<Vec<ClaimedDelivery>> {
    let (Some(first), Some(last)) = (event_ids.iter().min(), event_ids.iter().max()) else {
        return Ok(Vec::new());
    };
    let rows = db
        .bounded(async {
            let rows = sqlx::query(CLAIM)
                .bind(event_ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
                .bind(first.uuid())
                .bind(last.uuid())
                .bind(destination)
                .bind(lease_id.uuid())
                .bind(lease.as_secs_f64())
                .bind(LONG)
                .bind(DeliveredAs::Normalized.code())
                .bind(DeliveredAs::Raw.code())
                .bind(DeliveredAs::CloudEvent.code())
                .fetch_all(db.pool())
                .await?;
            Ok(rows)
        })
        .await?;
    Ok(rows.iter().filter_map(readable).collect())
}

/// Returns a claimed delivery. One that cannot be read concerns only itself: its lease ends, and it is queued again.
fn readable(row: &PgRow) -> Option<ClaimedDelivery> {
    claimed_delivery(row)
        .inspect_err(|error| tracing::error!(error = %chain(error), "a claimed delivery cannot be read"))
        .ok()
}

/// The position in the body of event `e` of what is delivered, as `p`: all of it when it is delivered raw, whose code is the
/// argument.
macro_rules! payload_position {
    ($raw:literal) => {
        concat!(
            "CROSS JOIN LATERAL (
        SELECT CASE WHEN e.delivered_as = ",
            $raw,
            " THEN 0 ELSE e.payload_start END AS start,
            CASE WHEN e.delivered_as = ",
            $raw,
            " THEN octet_length(e.raw_body) ELSE e.payload_length END AS length
    ) AS p"
        )
    };
}

// The bounds prune the partitions: the ids alone would have every one of them probed. Repeated on the join for the
// same reason.
//
// It must not say `finished_at IS NULL`, although that is meant: the planner would then read the index deliveries_open from
// end to end instead of the primary key. A finished delivery has no queued_at (a CHECK of the table), so `queued_at IS NOT
// NULL` is what keeps it from being claimed.
//
// The states are text here, and no column of an index is changed, so that the update stays heap-only.
const CLAIM: &str = concat!(
    "/* deliveries::claim */
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
            AND NOT ",
    is_being_removed!(),
    "
        RETURNING d.event_id, d.lease_id, d.attempts, d.budget_start, d.triggered_by, d.replay_request_id,
            d.queued_at, d.started_at
    )
    SELECT c.*, e.provider, e.event_type, e.external_event_id, e.correlation_id, e.traceparent, e.payload_key,
        e.body_form, e.delivered_as, p.length AS payload_length,
        CASE WHEN p.length <= $7 THEN substring(e.raw_body FROM p.start + 1 FOR p.length) END AS payload,
        CASE WHEN e.delivered_as <> $8 OR strpos(e.headers::text, '\"cdn-loop\"') > 0 THEN e.headers::text END AS headers,
        CASE WHEN e.delivered_as = $10 THEN e.integration_id END AS integration_id,
        CASE WHEN e.delivered_as = $10 THEN e.subject END AS subject,
        CASE WHEN e.delivered_as = $10 THEN e.occurred_at END AS occurred_at
    FROM claimed c
    JOIN events e ON e.id = c.event_id AND e.id = ANY($1) AND e.id BETWEEN $2 AND $3
    ",
    payload_position!("$9")
);

/// Reads the payload of a claimed delivery that did not come with it.
pub async fn long_payload(db: &Database, claimed: &ClaimedDelivery) -> Result<Vec<u8>> {
    db.bounded(async {
        let payload = sqlx::query_scalar(concat!(
            "/* deliveries::long_payload */
            SELECT substring(e.raw_body FROM p.start + 1 FOR p.length)
            FROM events e ",
            payload_position!("$2"),
            " WHERE e.id = $1"
        ))
        .bind(claimed.event_id.uuid())
        .bind(DeliveredAs::Raw.code())
        .fetch_one(db.pool())
        .await?;
        Ok(payload)
    })
    .await
}

fn claimed_delivery(row: &PgRow) -> Result<ClaimedDelivery> {
    let event_id = row.id("event_id", EventId::new)?;
    let corrupt = |table, column| move || Error::Corrupt { table, column, id: event_id.uuid() };
    let integration_id: Option<Uuid> = row.try_get("integration_id")?;
    let occurred_at = row.optional_time("occurred_at")?;
    let cloud_event = match (integration_id, occurred_at) {
        (Some(integration_id), Some(occurred_at)) => Some(CloudEventFields {
            integration_id: IntegrationId::new(integration_id),
            subject: row.try_get("subject")?,
            occurred_at,
        }),
        _ => None,
    };
    let body_form = BodyForm::from_code(row.try_get("body_form")?);
    let delivered_as = DeliveredAs::from_code(row.try_get("delivered_as")?);
    Ok(ClaimedDelivery {
        cloud_event,
        headers: row.try_get("headers")?,
        forms: match (body_form, delivered_as) {
            (Some(body_form), Some(delivered_as)) => Ok((body_form, delivered_as)),
            (None, _) => Err(corrupt("events", "body_form")()),
            (_, None) => Err(corrupt("events", "delivered_as")()),
        },
        event_id,
        lease_id: row.id("lease_id", LeaseId::new)?,
        attempts: row.try_get("attempts")?,
        budget_start: row.try_get("budget_start")?,
        triggered_by: Trigger::parse(row.try_get("triggered_by")?)
            .ok_or_else(corrupt("deliveries", "triggered_by"))?,
        replay_request_id: row.optional_id("replay_request_id", ReplayId::new)?,
        queued_at: row.time("queued_at")?,
        started_at: row.time("started_at")?,
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
