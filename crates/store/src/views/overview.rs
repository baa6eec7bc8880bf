//! How all integrations do, in few statements: for a page that shows all of them, and asks often.
//!
//! What happened over a long window is apart from what is now: the former costs with the window and the latter with what waits, so callers keep each for
//! as long as it is worth.

use std::collections::HashMap;
use std::time::Duration;

use grapnel_core::ids::{EventId, IntegrationId};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::id_time::{id_at, time_of_id};
use super::snapshot::Snapshot;
use crate::columns::Columns;
use crate::database::Database;
use crate::deliveries::{indexed_attempts, is_attempt_entry_at};
use crate::error::Result;

/// The unfinished deliveries of a destination that are counted.
pub const COUNTED_BACKLOG: i64 = 10_000;

/// The destinations with unfinished deliveries that are looked at.
const MAX_BACKLOGS: i64 = 2_000;

/// What happened to an integration in one part of a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficPart {
    pub accepted: i64,
    pub duplicate: i64,
    pub refused: i64,
    pub delivered: i64,
    pub failed: i64,
    pub retrying: i64,
}

/// What happened to a destination lately. The one without a name has what concerns none.
#[derive(Debug, Clone)]
pub struct RecentTraffic {
    pub integration_id: IntegrationId,
    pub destination: String,
    pub counts: TrafficPart,
}

/// The unfinished deliveries of a destination.
#[derive(Debug, Clone)]
pub struct Backlog {
    pub integration_id: IntegrationId,
    pub destination: String,
    /// Up to [`COUNTED_BACKLOG`].
    pub count: i64,
    /// When the oldest of their events was received.
    pub oldest: Option<Timestamp>,
}

/// The last attempt of a destination that failed.
#[derive(Debug, Clone)]
pub struct LastFailure {
    pub http_status: Option<i16>,
    pub error: Option<String>,
    pub at: Timestamp,
}

const PARTS: &str = "/* views::overview_parts */
    SELECT integration_id, floor(extract(epoch FROM minute - $1::timestamptz) / $2)::int AS part, sum(accepted) AS accepted,
        sum(duplicate) AS duplicate, sum(refused) AS refused, sum(delivered) AS delivered, sum(failed) AS failed,
        sum(retrying) AS retrying
    FROM traffic_minutes WHERE minute >= $1 GROUP BY 1, 2";

const RECENT: &str = "/* views::overview_recent */
    SELECT integration_id, destination, sum(accepted) AS accepted, sum(duplicate) AS duplicate, sum(refused) AS refused,
        sum(delivered) AS delivered, sum(failed) AS failed, sum(retrying) AS retrying
    FROM traffic_minutes WHERE minute >= $1 GROUP BY 1, 2";

// Jumps through the index deliveries_open from one destination to the next, in its words.
const BACKLOGS: &str = "/* views::overview_backlogs */
    WITH RECURSIVE open AS (
        (
            SELECT integration_id, destination FROM deliveries
            WHERE finished_at IS NULL ORDER BY integration_id, destination LIMIT 1
        )
        UNION ALL
        SELECT following.* FROM open known, LATERAL (
            SELECT integration_id, destination FROM deliveries
            WHERE finished_at IS NULL AND (integration_id, destination) > (known.integration_id, known.destination)
            ORDER BY integration_id, destination LIMIT 1
        ) following
    )
    SELECT integration_id, destination, (
            SELECT count(*) FROM (
                SELECT FROM deliveries d
                WHERE d.integration_id = open.integration_id AND d.destination = open.destination AND d.finished_at IS NULL
                LIMIT $1
            ) AS counted
        ) AS count, (
            SELECT d.event_id FROM deliveries d
            WHERE d.integration_id = open.integration_id AND d.destination = open.destination AND d.finished_at IS NULL
            ORDER BY d.event_id LIMIT 1
        ) AS oldest
    FROM (SELECT * FROM open LIMIT $2) AS open";

const LAST_FAILURE: &str = concat!(
    "/* views::overview_last_failure */
    SELECT a.id, a.http_status, left(a.error_message, 300) AS error_message
    FROM (VALUES ($1::uuid)) AS integration (id) CROSS JOIN (VALUES (false)) AS outcome (succeeded) CROSS JOIN LATERAL (
        ",
    indexed_attempts!(
        concat!(is_attempt_entry_at!(">=", "$3"), " AND l.destination = $2 AND a.id >= $3"),
        "1"
    ),
    "
    ) AS a"
);

/// Reads what happened since the beginning of a minute, in parts of this length: the counts of each integration by the number of the part.
pub async fn load_parts(
    db: &Database,
    since: Timestamp,
    part: Duration,
) -> Result<HashMap<IntegrationId, Vec<(usize, TrafficPart)>>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let statement = sqlx::query(PARTS).bind(since.to_sqlx()).bind(part.as_secs_f64());
        let rows = statement.fetch_all(snapshot.connection()).await?;
        snapshot.release().await?;
        let mut parts: HashMap<IntegrationId, Vec<_>> = HashMap::new();
        for row in &rows {
            let number = usize::try_from(row.try_get::<i32, _>("part")?).unwrap_or(0);
            parts
                .entry(row.id("integration_id", IntegrationId::new)?)
                .or_default()
                .push((number, counts(row)?));
        }
        Ok(parts)
    })
    .await
}

/// Reads what happened since the beginning of a minute, by destination.
pub async fn load_recent(db: &Database, since: Timestamp) -> Result<Vec<RecentTraffic>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let rows = sqlx::query(RECENT).bind(since.to_sqlx()).fetch_all(snapshot.connection()).await?;
        snapshot.release().await?;
        let recent = |row: &PgRow| {
            Ok(RecentTraffic {
                integration_id: row.id("integration_id", IntegrationId::new)?,
                destination: row.try_get("destination")?,
                counts: counts(row)?,
            })
        };
        rows.iter().map(recent).collect()
    })
    .await
}

/// Reads what waits now.
pub async fn load_backlogs(db: &Database) -> Result<Vec<Backlog>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        snapshot.walk_for(BACKLOG_DEADLINE).await?;
        let statement = sqlx::query(BACKLOGS).bind(COUNTED_BACKLOG).bind(MAX_BACKLOGS);
        let rows = statement.fetch_all(snapshot.connection()).await?;
        snapshot.release().await?;
        let backlog = |row: &PgRow| {
            let oldest = row.optional_id("oldest", EventId::new)?;
            Ok(Backlog {
                integration_id: row.id("integration_id", IntegrationId::new)?,
                destination: row.try_get("destination")?,
                count: row.try_get("count")?,
                oldest: oldest.and_then(|id| time_of_id(id.uuid())),
            })
        };
        rows.iter().map(backlog).collect()
    })
    .await
}

/// What waits must be known within this.
const BACKLOG_DEADLINE: Duration = Duration::from_secs(5);

/// Reads the last attempt since a time that failed.
pub async fn load_last_failure(
    db: &Database,
    id: IntegrationId,
    destination: &str,
    since: Timestamp,
) -> Result<Option<LastFailure>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        snapshot.walk_for(Duration::from_secs(1)).await?;
        let statement = sqlx::query(LAST_FAILURE).bind(id.uuid()).bind(destination);
        let statement = statement.bind(id_at(since.as_millisecond()));
        let row = statement.fetch_optional(snapshot.connection()).await?;
        snapshot.release().await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(LastFailure {
            http_status: row.try_get("http_status")?,
            error: row.try_get("error_message")?,
            at: time_of_id(row.try_get::<Uuid, _>("id")?).unwrap_or(since),
        }))
    })
    .await
}

fn counts(row: &PgRow) -> Result<TrafficPart> {
    Ok(TrafficPart {
        accepted: row.try_get("accepted")?,
        duplicate: row.try_get("duplicate")?,
        refused: row.try_get("refused")?,
        delivered: row.try_get("delivered")?,
        failed: row.try_get("failed")?,
        retrying: row.try_get("retrying")?,
    })
}
