//! Traffic by the minute: what the processes add, and its correction.
//!
//! Only what is in no row depends on the processes, so a killed one loses what it had not written yet of that, and an older version beside this one is
//! missing only there. Nobody who receives or delivers waits for these tables.

use grapnel_core::ids::IntegrationId;
use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx;
use uuid::Uuid;

use crate::columns::{Batch, Columns};
use crate::database::Database;
use crate::error::Result;
use crate::minute_rows::{self, drop_old_minutes};

/// A writer that was not seen for so long will not repeat anything.
const WRITER_HOURS: i32 = 24;

/// What was counted of an integration, or of a destination, in a minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficRow {
    pub integration_id: IntegrationId,
    /// Its first second.
    pub minute: Timestamp,
    /// Empty: what concerns no destination.
    pub destination: String,
    pub counts: TrafficCounts,
}

/// What is counted. The columns of the table say of what each is the number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrafficCounts {
    pub accepted: i32,
    pub duplicate: i32,
    pub refused: i32,
    pub delivered: i32,
    pub failed: i32,
    pub retrying: i32,
    pub filtered: i32,
    /// By bucket; the buckets that are missing at the end are empty.
    pub durations: Vec<i32>,
}

// The lock on traffic_closed is shared by those who add, and keeps a minute from being closed meanwhile. The rows are always in the same order,
// so that two writers cannot deadlock.
const ADD: &str = "/* traffic::add */
    WITH writer AS (
        INSERT INTO traffic_writers AS known (writer, sequence) VALUES ($1, $2)
        ON CONFLICT (writer) DO UPDATE SET sequence = EXCLUDED.sequence, seen_at = now()
        WHERE known.sequence < EXCLUDED.sequence
        RETURNING writer
    ), closed AS MATERIALIZED (
        SELECT until FROM traffic_closed FOR SHARE
    ), input AS (
        SELECT i.* FROM unnest(
            $3::uuid[], $4::timestamptz[], $5::text[], $6::int[], $7::int[], $8::int[], $9::int[], $10::int[], $11::int[], $12::int[],
            $13::text[]
        ) AS i (
            integration_id, minute, destination, accepted, duplicate, refused, delivered, failed, retrying, filtered, durations
        )
        WHERE EXISTS (SELECT FROM writer)
        ORDER BY integration_id, minute, destination
    )
    INSERT INTO traffic_minutes AS known (
        integration_id, minute, destination, accepted, duplicate, refused, delivered, failed, retrying, filtered, durations
    )
    SELECT integration_id, minute, destination, CASE WHEN minute >= closed.until THEN accepted ELSE 0 END, duplicate, refused,
        CASE WHEN minute >= closed.until THEN delivered ELSE 0 END, failed, retrying, filtered, durations::int[]
    FROM input, closed
    ON CONFLICT (integration_id, minute, destination) DO UPDATE SET
        accepted = known.accepted + EXCLUDED.accepted,
        duplicate = known.duplicate + EXCLUDED.duplicate,
        refused = known.refused + EXCLUDED.refused,
        delivered = known.delivered + EXCLUDED.delivered,
        failed = known.failed + EXCLUDED.failed,
        retrying = known.retrying + EXCLUDED.retrying,
        filtered = known.filtered + EXCLUDED.filtered,
        durations = CASE WHEN EXCLUDED.durations = '{}' THEN known.durations ELSE ARRAY(
            SELECT COALESCE(one, 0) + COALESCE(other, 0)
            FROM unnest(known.durations, EXCLUDED.durations) WITH ORDINALITY AS bucket (one, other, number)
            ORDER BY number
        ) END";

/// Adds what a process has counted, at most one row of each minute and destination. A `sequence` of a writer that is not greater than its last one
/// is ignored.
pub async fn add(db: &Database, writer: Uuid, sequence: i64, rows: &[TrafficRow]) -> Result<()> {
    let batch = Batch(rows);
    db.bounded(async {
        sqlx::query(ADD)
            .bind(writer)
            .bind(sequence)
            .bind(batch.column(|row| row.integration_id.uuid()))
            .bind(batch.column(|row| row.minute.to_sqlx()))
            .bind(batch.column(|row| row.destination.as_str()))
            .bind(batch.column(|row| row.counts.accepted))
            .bind(batch.column(|row| row.counts.duplicate))
            .bind(batch.column(|row| row.counts.refused))
            .bind(batch.column(|row| row.counts.delivered))
            .bind(batch.column(|row| row.counts.failed))
            .bind(batch.column(|row| row.counts.retrying))
            .bind(batch.column(|row| row.counts.filtered))
            .bind(batch.column(|row| array_text(&row.counts.durations)))
            .execute(db.pool())
            .await?;
        Ok(())
    })
    .await
}

/// An array of PostgreSQL as text: one of several lengths has no other form as a column of a batch.
fn array_text(numbers: &[i32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
    format!("{{{}}}", numbers.join(","))
}

// A generic plan would be made while the partition of today is nearly empty, when any of its indexes will do.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '1s'; SET LOCAL plan_cache_mode = force_custom_plan";

// $1 the minute, $2 its first id, $3 the end of its ids. What was counted in a minute that has no rows is in the third part. Events are found by their
// id, and attempts, whatever day their event is of, by theirs.
const CLOSE: &str = "/* traffic::close */
    INSERT INTO traffic_minutes AS known (integration_id, minute, destination, accepted, delivered)
    SELECT integration_id, $1::timestamptz, destination, sum(accepted)::int, sum(delivered)::int FROM (
        SELECT integration_id, '' AS destination, count(*) AS accepted, 0 AS delivered
        FROM events WHERE id >= $2 AND id < $3 GROUP BY integration_id
        UNION ALL
        SELECT integration_id, destination, 0, count(*)
        FROM delivery_attempts WHERE id >= $2 AND id < $3 AND succeeded GROUP BY integration_id, destination
        UNION ALL
        SELECT integration_id, destination, 0, 0
        FROM traffic_minutes WHERE minute = $1 AND (accepted <> 0 OR delivered <> 0)
    ) AS counted
    GROUP BY integration_id, destination
    ORDER BY integration_id, destination
    ON CONFLICT (integration_id, minute, destination) DO UPDATE SET
        accepted = EXCLUDED.accepted, delivered = EXCLUDED.delivered
    WHERE (known.accepted, known.delivered) IS DISTINCT FROM (EXCLUDED.accepted, EXCLUDED.delivered)";

/// Corrects the minutes that ended before a time, at most `limit` of them, each in a transaction of its own. Returns how many; 0 also when another
/// process does so.
pub async fn close_minutes(db: &Database, ended_before: Timestamp, limit: u32) -> Result<u32> {
    let mut closed = 0;
    while closed < limit && db.bounded(close_minute(db, ended_before)).await? {
        closed += 1;
    }
    Ok(closed)
}

async fn close_minute(db: &Database, ended_before: Timestamp) -> Result<bool> {
    let mut tx = db.begin(BEGIN).await?;
    let row = sqlx::query(
        "/* traffic::lock_next */
        SELECT until FROM traffic_closed WHERE until + interval '1 minute' <= $1 FOR UPDATE SKIP LOCKED",
    )
    .bind(ended_before.to_sqlx())
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(false) };
    let minute = row.time("until")?;
    let end = minute.checked_add(SignedDuration::from_mins(1)).unwrap_or(Timestamp::MAX);
    sqlx::query(CLOSE)
        .bind(minute.to_sqlx())
        .bind(first_id(minute))
        .bind(first_id(end))
        .execute(&mut *tx)
        .await?;
    sqlx::query("/* traffic::close, until */ UPDATE traffic_closed SET until = $1")
        .bind(end.to_sqlx())
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(true)
}

/// Returns the smallest id of a time.
fn first_id(time: Timestamp) -> Uuid {
    Uuid::from_u128(u128::try_from(time.as_millisecond()).unwrap_or(0) << 80)
}

/// Drops the minutes and writers that are past their time. Returns how many minutes.
pub async fn drop_old(db: &Database) -> Result<u64> {
    let dropped =
        minute_rows::drop_old(db, drop_old_minutes!("traffic::drop_old", "traffic_minutes")).await?;
    db.bounded(async {
        sqlx::query(
            "/* traffic::forget_writers */
            DELETE FROM traffic_writers WHERE seen_at < now() - make_interval(hours => $1)",
        )
        .bind(WRITER_HOURS)
        .execute(db.pool())
        .await?;
        Ok(())
    })
    .await?;
    Ok(dropped)
}
