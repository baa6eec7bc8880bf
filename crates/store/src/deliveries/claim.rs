//! Claims deliveries under a lease, before they are sent.
//!
//! A delivery is claimed when it is queued (a finished one is not) and under no other lease that still runs; the database's clock
//! decides, the only one that all processes share. Only the holder of the newest lease id may write the next
//! result. A lost claim is only claimed again, so its commit need not wait for the disk.

use std::collections::HashMap;
use std::time::Duration;

use grapnel_core::delivery::state::Trigger;
use grapnel_core::error_chain::chain;
use grapnel_core::ids::{EventId, IntegrationId, LeaseId, ReplayId};
use grapnel_core::payload::{BodyForm, DeliveredAs};
use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row};
use uuid::Uuid;

use crate::claim_connections::ClaimConnections;
use crate::columns::Columns;
use crate::daily_statement::{self, DailyStatement};
use crate::database::Database;
use crate::deliveries::is_being_removed;
use crate::error::{Error, Result};
use crate::packed_headers;
use crate::stored_form::{body_form, first_of_millisecond, of_request};

/// A claimed delivery with everything that its attempt needs.
#[derive(Debug)]
pub struct ClaimedDelivery {
    pub event_id: EventId,
    pub integration_id: IntegrationId,
    pub lease_id: LeaseId,
    /// Recorded attempts so far.
    pub attempts: i32,
    /// Attempts that were made before the last replay.
    pub budget_start: i32,
    pub triggered_by: Trigger,
    pub replay_request_id: Option<ReplayId>,
    pub queued_at: Timestamp,
    pub started_at: Timestamp,
    /// Since when it could not be sent because of faults of ours.
    pub unsent_since: Option<Timestamp>,
    pub provider: String,
    pub event_type: String,
    pub external_event_id: Option<String>,
    pub correlation_id: String,
    pub traceparent: Option<String>,
    pub payload_key: String,
    /// The part of the body that is delivered, as it came; all of it when the body is delivered raw. `None` when it is long:
    /// [`long_payload`] gets it.
    pub payload: Option<Vec<u8>>,
    /// In bytes.
    pub payload_length: usize,
    /// Whether the event is one of several of its request: the payload is all that it has of the body.
    pub shares_request: bool,
    /// How the body was read and how it is delivered; the error when another version wrote a form that this one does not know.
    pub forms: Result<(BodyForm, DeliveredAs)>,
    /// Set when it is delivered as a CloudEvent.
    pub cloud_event: Option<CloudEventFields>,
    /// The headers of the webhook as stored, when its content-type is needed, or when they count hops.
    pub headers: Option<String>,
}

/// A destination whose deliveries are claimed, and what it needs of their events: decided once for it, not for each row.
#[derive(Debug, Clone, Copy)]
pub struct ClaimingDestination<'a> {
    pub name: &'a str,
    /// The form of its deliveries; `None`: the one stored with the event.
    pub delivered_as: Option<DeliveredAs>,
    /// Whether it needs the headers of the webhook in every form.
    pub needs_headers: bool,
}

/// A destination that leaves the form to the event, and gets no header of the webhook.
impl<'a> From<&'a str> for ClaimingDestination<'a> {
    fn from(name: &'a str) -> Self {
        Self { name, delivered_as: None, needs_headers: false }
    }
}

/// The fields that only a CloudEvent carries.
#[derive(Debug)]
pub struct CloudEventFields {
    pub subject: Option<String>,
    pub occurred_at: Timestamp,
}

/// A payload that is longer than this, in bytes, does not come with its claim, so that a batch of claims is bounded.
const LONG: i32 = 64 * 1024;

/// Claims those deliveries of the events to one destination that can be claimed. One statement, one commit; a second statement reads
/// the requests that some of the events share.
///
/// Claiming again under the same `lease_id` returns the same deliveries, so a claim whose answer was lost is repeated.
pub async fn claim(
    connections: &ClaimConnections,
    destination: impl Into<ClaimingDestination<'_>>,
    event_ids: &[EventId],
    lease_id: LeaseId,
    lease: Duration,
) -> Result<Vec<ClaimedDelivery>> {
    let (Some(first), Some(last)) = (event_ids.iter().min(), event_ids.iter().max()) else {
        return Ok(Vec::new());
    };
    let bounds = (first.uuid(), last.uuid());
    let destination = destination.into();
    let rows = connections.bounded(async |connection| {
        let text = CLAIM.of_day(bounds.0, bounds.1);
        match run(connection, &text, destination, event_ids, bounds, (lease_id, lease)).await {
            Err(error) if daily_statement::is_gone(&error) => {
                run(connection, &CLAIM.general(), destination, event_ids, bounds, (lease_id, lease)).await
            }
            done => done,
        }
    });
    let rows = rows.await?;
    let mut claimed: Vec<ClaimedDelivery> = rows.iter().filter_map(readable).collect();
    read_shared(connections, destination, &mut claimed).await?;
    Ok(claimed)
}

async fn run(
    connection: &mut PgConnection,
    text: &str,
    destination: ClaimingDestination<'_>,
    event_ids: &[EventId],
    (first, last): (Uuid, Uuid),
    (lease_id, lease): (LeaseId, Duration),
) -> Result<Vec<PgRow>> {
    let rows = sqlx::query(text)
        .bind(event_ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
        .bind(first)
        .bind(last)
        .bind(destination.name)
        .bind(lease_id.uuid())
        .bind(lease.as_secs_f64())
        .bind(LONG)
        .bind(DeliveredAs::Normalized.code())
        .bind(DeliveredAs::Raw.code())
        .bind(DeliveredAs::CloudEvent.code())
        .bind(DeliveredAs::CloudEventBinary.code())
        .bind(destination.delivered_as.map(DeliveredAs::code))
        .bind(destination.needs_headers)
        .fetch_all(connection)
        .await?;
    Ok(rows)
}

/// Reads what claimed deliveries need of the request that their event shares with others.
async fn read_shared(
    connections: &ClaimConnections,
    destination: ClaimingDestination<'_>,
    claimed: &mut [ClaimedDelivery],
) -> Result<()> {
    let shared = claimed.iter().filter(|delivery| delivery.shares_request);
    let ids: Vec<Uuid> = shared.map(|delivery| delivery.event_id.uuid()).collect();
    let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(()) };
    let read = connections.bounded(async |connection| {
        let rows = sqlx::query(SHARED)
            .bind(&ids)
            .bind(first)
            .bind(last)
            .bind(first_of_millisecond(*first))
            .bind(LONG)
            .bind(DeliveredAs::Normalized.code())
            .bind(DeliveredAs::Raw.code())
            .bind(destination.delivered_as.map(DeliveredAs::code))
            .bind(destination.needs_headers)
            .fetch_all(connection)
            .await?;
        let read = |row: &PgRow| {
            Ok((row.id("id", EventId::new)?, (row.try_get("payload")?, row.try_get("headers")?)))
        };
        rows.iter().map(read).collect::<Result<HashMap<_, _>>>()
    });
    let mut read = read.await?;
    for delivery in claimed.iter_mut().filter(|delivery| delivery.shares_request) {
        if let Some((payload, headers)) = read.remove(&delivery.event_id) {
            (delivery.payload, delivery.headers) = (payload, headers);
        }
    }
    Ok(())
}

/// Returns a claimed delivery. One that cannot be read concerns only itself: its lease ends, and it is queued again.
fn readable(row: &PgRow) -> Option<ClaimedDelivery> {
    claimed_delivery(row)
        .inspect_err(|error| tracing::error!(error = %chain(error), "a claimed delivery cannot be read"))
        .ok()
}

/// The place of what is delivered of event `e`, as `p`: all of the body when its form, the first argument, is raw, whose code is the
/// second.
macro_rules! sent_place {
    ($form:literal, $raw:literal) => {
        concat!(
            "CROSS JOIN LATERAL (
        SELECT ",
            $form,
            " = ",
            $raw,
            " AND e.request_id IS NULL AS is_whole_body
    ) AS w
    CROSS JOIN LATERAL (
        SELECT CASE WHEN w.is_whole_body THEN 0 ELSE e.payload_start END AS start,
            CASE WHEN w.is_whole_body THEN octet_length(e.raw_body) ELSE e.payload_length END AS length
    ) AS p"
        )
    };
}

/// What is delivered, from that place, if the event shares no request.
macro_rules! own_payload {
    () => {
        "CASE WHEN e.payload IS NOT NULL AND NOT w.is_whole_body THEN e.payload
            ELSE substring(e.raw_body FROM p.start + 1 FOR p.length) END"
    };
}

/// What is delivered, from that place. The request of an event that shares it is within the bounds.
macro_rules! sent_payload {
    ($first:literal, $last:literal) => {
        concat!(
            "CASE WHEN e.request_id IS NOT NULL AND e.payload IS NULL THEN ",
            of_request!("substring(r.raw_body FROM p.start + 1 FOR p.length)", $first, $last),
            " ELSE ",
            own_payload!(),
            " END"
        )
    };
}

// The bounds prune the partitions of a batch of several days: the ids alone would have every one of them probed. Repeated for the
// events, for the same reason.
//
// It must not say `finished_at IS NULL`, although that is meant: the planner would then read the index deliveries_open from
// end to end instead of the primary key. A finished delivery has no queued_at (a CHECK of the table), so `queued_at IS NOT
// NULL` is what keeps it from being claimed.
//
// It must not name event_requests: a generic plan locks all of its partitions for each statement, and few events share a request.
//
// The states are text here, and no column of an index is changed, so that the update stays heap-only. Not set is updated_at: started_at says the same,
// and is before it in the row, of which the log has all from the first to the last column that is changed.
static CLAIM: DailyStatement = DailyStatement::new(CLAIM_TEMPLATE, &["deliveries", "events"]);

const CLAIM_TEMPLATE: &str = concat!(
    "/* deliveries::claim */
    WITH claimed AS (
        UPDATE {deliveries} d
        SET status = 'processing',
            lease_id = $5,
            lease_until = now() + make_interval(secs => $6),
            started_at = now()
        WHERE d.event_id = ANY($1)
            AND d.event_id BETWEEN $2 AND $3
            AND d.destination = $4
            AND d.queued_at IS NOT NULL
            AND (d.lease_until IS NULL OR d.lease_until <= now() OR d.lease_id = $5)
            AND NOT ",
    is_being_removed!(),
    "
        RETURNING d.event_id, d.integration_id, d.lease_id, d.attempts, d.budget_start, d.triggered_by, d.replay_request_id,
            d.queued_at, d.started_at, d.unsent_since
    )
    SELECT c.*, e.provider, e.event_type, e.external_event_id, e.correlation_id, e.traceparent, e.payload_key,
        e.body_form, f.delivered_as, e.request_id IS NOT NULL AS shares_request, p.length AS payload_length,
        CASE WHEN p.length <= $7 AND e.request_id IS NULL THEN ",
    own_payload!(),
    " END AS payload,
        CASE WHEN f.delivered_as <> $8 OR $13 OR strpos(e.headers::text, '\"cdn-loop\"') > 0 THEN e.headers::text END
            AS headers,
        CASE WHEN f.delivered_as <> $8 OR $13 THEN e.packed_headers END AS packed_headers,
        CASE WHEN f.delivered_as IN ($10, $11) THEN e.subject END AS subject,
        CASE WHEN f.delivered_as IN ($10, $11) THEN e.occurred_at END AS occurred_at
    FROM claimed c
    -- OFFSET keeps it a probe for each claim. Planned for a partition that is nearly empty, a join compares each with each.
    CROSS JOIN LATERAL (
        SELECT * FROM {events} WHERE id = c.event_id AND id BETWEEN $2 AND $3 OFFSET 0
    ) AS e
    CROSS JOIN LATERAL (SELECT COALESCE($12, e.delivered_as) AS delivered_as) AS f
    ",
    sent_place!("f.delivered_as", "$9")
);

const SHARED: &str = concat!(
    "/* deliveries::claim, shared */
    SELECT e.id, CASE WHEN p.length <= $5 THEN ",
    sent_payload!("$4", "$3"),
    " END AS payload, ",
    of_request!(
        "CASE WHEN f.delivered_as <> $6 OR $9 OR strpos(r.headers::text, '\"cdn-loop\"') > 0 THEN r.headers::text END",
        "$4",
        "$3"
    ),
    " AS headers
    FROM events e
    CROSS JOIN LATERAL (SELECT COALESCE($8, e.delivered_as) AS delivered_as) AS f
    ",
    sent_place!("f.delivered_as", "$7"),
    " WHERE e.id = ANY($1) AND e.id BETWEEN $2 AND $3"
);

/// Reads the payload of a claimed delivery that did not come with it.
pub async fn long_payload(db: &Database, claimed: &ClaimedDelivery) -> Result<Vec<u8>> {
    db.bounded(async {
        let mut connection = db.pool().acquire().await?;
        let payload = sqlx::query_scalar(concat!(
            "/* deliveries::long_payload */
            SELECT ",
            sent_payload!("$4", "$1"),
            " FROM events e ",
            sent_place!("$3", "$2"),
            " WHERE e.id = $1"
        ))
        .bind(claimed.event_id.uuid())
        .bind(DeliveredAs::Raw.code())
        .bind(claimed.forms.as_ref().map_or(DeliveredAs::Normalized, |(_, form)| *form).code())
        .bind(first_of_millisecond(claimed.event_id.uuid()))
        .fetch_one(&mut *connection)
        .await?;
        // It would keep a buffer as large as the longest payload that it ever read.
        connection.shrink_buffers();
        Ok(payload)
    })
    .await
}

fn claimed_delivery(row: &PgRow) -> Result<ClaimedDelivery> {
    let event_id = row.id("event_id", EventId::new)?;
    let corrupt = |table, column| move || Error::Corrupt { table, column, id: event_id.uuid() };
    let cloud_event = match row.optional_time("occurred_at")? {
        Some(occurred_at) => Some(CloudEventFields { subject: row.try_get("subject")?, occurred_at }),
        None => None,
    };
    let body_form = body_form(row.try_get("body_form")?);
    let delivered_as = DeliveredAs::from_code(row.try_get("delivered_as")?);
    Ok(ClaimedDelivery {
        cloud_event,
        headers: packed_headers::json_text(row, event_id.uuid())?,
        shares_request: row.try_get("shares_request")?,
        forms: match (body_form, delivered_as) {
            (Some(body_form), Some(delivered_as)) => Ok((body_form, delivered_as)),
            (None, _) => Err(corrupt("events", "body_form")()),
            (_, None) => Err(corrupt("events", "delivered_as")()),
        },
        event_id,
        integration_id: row.id("integration_id", IntegrationId::new)?,
        lease_id: row.id("lease_id", LeaseId::new)?,
        attempts: row.try_get("attempts")?,
        budget_start: row.try_get("budget_start")?,
        triggered_by: Trigger::parse(row.try_get("triggered_by")?)
            .ok_or_else(corrupt("deliveries", "triggered_by"))?,
        replay_request_id: row.optional_id("replay_request_id", ReplayId::new)?,
        queued_at: row.time("queued_at")?,
        started_at: row.time("started_at")?,
        unsent_since: row.optional_time("unsent_since")?,
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
