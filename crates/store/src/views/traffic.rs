//! The statistics of an integration: its roll-ups by the minute, and what waits now.

use std::collections::BTreeMap;

use grapnel_core::ids::{EventId, IntegrationId};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::{PgConnection, Row};

use super::id_time::time_of_id;
use super::snapshot::Snapshot;
use crate::columns::Columns;
use crate::database::Database;
use crate::error::Result;

/// The unfinished deliveries of a destination that are counted.
const BACKLOG_CAP: i64 = 100_000;

/// The statistics of an integration since a time.
#[derive(Debug, Default)]
pub struct TrafficStats {
    pub accepted: i64,
    pub duplicate: i64,
    pub refused: i64,
    /// By destination: those with traffic or with unfinished deliveries.
    pub destinations: BTreeMap<String, DestinationStats>,
}

/// The statistics of a destination.
#[derive(Debug, Default)]
pub struct DestinationStats {
    pub delivered: i64,
    pub failed: i64,
    pub retrying: i64,
    pub filtered: i64,
    /// Attempts by duration, in the buckets of those who count them.
    pub durations: Vec<i64>,
    /// Unfinished deliveries now, counted up to 100,000.
    pub backlog: i64,
    /// When the oldest event with an unfinished delivery was received.
    pub oldest_waiting: Option<Timestamp>,
}

const COUNTS: &str = "/* views::traffic_counts */
    SELECT destination, sum(accepted) AS accepted, sum(duplicate) AS duplicate, sum(refused) AS refused, sum(delivered) AS delivered,
        sum(failed) AS failed, sum(retrying) AS retrying, sum(filtered) AS filtered
    FROM traffic_minutes WHERE integration_id = $1 AND minute >= $2
    GROUP BY destination";

const DURATIONS: &str = "/* views::traffic_durations */
    SELECT destination, array_agg(attempts ORDER BY number) AS durations
    FROM (
        SELECT destination, bucket.number, sum(bucket.attempts) AS attempts
        FROM traffic_minutes, unnest(durations) WITH ORDINALITY AS bucket (attempts, number)
        WHERE integration_id = $1 AND minute >= $2
        GROUP BY destination, bucket.number
    ) AS buckets
    GROUP BY destination";

// In the words of the index deliveries_open, through which the destinations are skipped.
const BACKLOGS: &str = "/* views::traffic_backlogs */
    WITH RECURSIVE destinations AS (
        (
            SELECT destination FROM deliveries
            WHERE integration_id = $1 AND finished_at IS NULL ORDER BY destination LIMIT 1
        )
        UNION ALL
        SELECT following.* FROM destinations known, LATERAL (
            SELECT destination FROM deliveries
            WHERE integration_id = $1 AND finished_at IS NULL AND destination > known.destination
            ORDER BY destination LIMIT 1
        ) following
    )
    SELECT destination, (
            SELECT count(*) FROM (
                SELECT FROM deliveries d
                WHERE d.integration_id = $1 AND d.destination = destinations.destination AND d.finished_at IS NULL
                LIMIT $2
            ) AS counted
        ) AS backlog, (
            SELECT d.event_id FROM deliveries d
            WHERE d.integration_id = $1 AND d.destination = destinations.destination AND d.finished_at IS NULL
            ORDER BY d.event_id LIMIT 1
        ) AS oldest
    FROM destinations";

/// Reads the statistics of an integration since the beginning of a minute; `None` when there is no such integration.
pub async fn load_traffic(
    db: &Database,
    id: IntegrationId,
    since: Timestamp,
) -> Result<Option<TrafficStats>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let connection = snapshot.connection();
        let exists: bool = sqlx::query_scalar(
            "/* views::traffic_integration */ SELECT EXISTS (SELECT FROM integrations WHERE id = $1)",
        )
        .bind(id.uuid())
        .fetch_one(&mut *connection)
        .await?;
        if !exists {
            return Ok(None);
        }
        let mut stats = TrafficStats::default();
        add_counts(connection, id, since, &mut stats).await?;
        add_durations(connection, id, since, &mut stats).await?;
        add_backlogs(connection, id, &mut stats).await?;
        snapshot.release().await?;
        Ok(Some(stats))
    })
    .await
}

async fn add_counts(
    connection: &mut PgConnection,
    id: IntegrationId,
    since: Timestamp,
    stats: &mut TrafficStats,
) -> Result<()> {
    let rows = sqlx::query(COUNTS).bind(id.uuid()).bind(since.to_sqlx()).fetch_all(connection).await?;
    for row in rows {
        let destination: String = row.try_get("destination")?;
        if destination.is_empty() {
            stats.accepted = row.try_get("accepted")?;
            stats.duplicate = row.try_get("duplicate")?;
            stats.refused = row.try_get("refused")?;
            continue;
        }
        let counted = stats.destinations.entry(destination).or_default();
        counted.delivered = row.try_get("delivered")?;
        counted.failed = row.try_get("failed")?;
        counted.retrying = row.try_get("retrying")?;
        counted.filtered = row.try_get("filtered")?;
    }
    Ok(())
}

async fn add_durations(
    connection: &mut PgConnection,
    id: IntegrationId,
    since: Timestamp,
    stats: &mut TrafficStats,
) -> Result<()> {
    let rows = sqlx::query(DURATIONS).bind(id.uuid()).bind(since.to_sqlx()).fetch_all(connection).await?;
    for row in rows {
        let destination: String = row.try_get("destination")?;
        stats.destinations.entry(destination).or_default().durations = row.try_get("durations")?;
    }
    Ok(())
}

async fn add_backlogs(
    connection: &mut PgConnection,
    id: IntegrationId,
    stats: &mut TrafficStats,
) -> Result<()> {
    let rows = sqlx::query(BACKLOGS).bind(id.uuid()).bind(BACKLOG_CAP).fetch_all(connection).await?;
    for row in rows {
        let waiting = stats.destinations.entry(row.try_get("destination")?).or_default();
        waiting.backlog = row.try_get("backlog")?;
        let oldest = row.optional_id("oldest", EventId::new)?;
        waiting.oldest_waiting = oldest.and_then(|id| time_of_id(id.uuid()));
    }
    Ok(())
}
