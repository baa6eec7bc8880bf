//! The days that expire, and the unfinished work that some of them still have.

use std::collections::BTreeSet;

use grapnel_core::ids::IntegrationId;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use super::session::Session;
use crate::columns::Columns;
use crate::deliveries::end::{RETENTION_ENDED, end_deliveries, run_end};
use crate::error::{Error, Result};
use crate::partitions::DAY_LOCKS;

/// The days for which a day waits for its unfinished work, after its retention.
const GRACE_DAYS: i32 = 7;

/// The last days of the grace, in which the end of the work is announced.
const WARNING_DAYS: i32 = 3;

/// The deliveries that one statement ends.
const BATCH: i64 = 2_000;

/// The deliveries that are counted for a warning: that there are more is known without counting them.
const COUNTED: i64 = 100_000;

/// The days at which something changes: each is the first one of the better side.
pub(super) struct Bounds {
    pub(super) first_kept: Date,
    pub(super) first_waited_for: Date,
    pub(super) first_not_warned_of: Date,
}

/// Returns the bounds for today; `None` without any integration: then there is no retention.
///
/// A retired integration counts until its own retention has passed since its end, when the last of its events is as old.
pub(super) async fn bounds(session: &mut Session, longest_days: i32) -> Result<Option<Bounds>> {
    let row = sqlx::query(
        "/* retention::days::bounds */
        WITH integration AS (
            SELECT LEAST((spec -> 'retention' ->> 'days')::int, $1) AS days, deleted_at FROM integrations
        ), longest AS (
            SELECT COALESCE(
                max(days) FILTER (WHERE deleted_at IS NULL OR deleted_at > now() - make_interval(days => days)), 1
            ) AS days
            FROM integration HAVING count(*) > 0
        )
        SELECT to_char(today - days, 'YYYYMMDD') AS first_kept,
            to_char(today - days - $2::int, 'YYYYMMDD') AS first_waited_for,
            to_char(today - days - $2::int + $3::int, 'YYYYMMDD') AS first_not_warned_of
        FROM longest, (SELECT (now() AT TIME ZONE 'UTC')::date AS today) AS clock",
    )
    .bind(longest_days)
    .bind(GRACE_DAYS)
    .bind(WARNING_DAYS)
    .fetch_optional(session.connection())
    .await?;
    row.map(|row| {
        Ok(Bounds {
            first_kept: parse_day(row.try_get("first_kept")?)?,
            first_waited_for: parse_day(row.try_get("first_waited_for")?)?,
            first_not_warned_of: parse_day(row.try_get("first_not_warned_of")?)?,
        })
    })
    .transpose()
}

/// Returns the live integrations that ask for a longer retention, with its days.
pub(super) async fn shortened(session: &mut Session, longest_days: i32) -> Result<Vec<(IntegrationId, i32)>> {
    let rows = sqlx::query(
        "/* retention::days::shortened */
        SELECT id, (spec -> 'retention' ->> 'days')::int AS days FROM integrations
        WHERE deleted_at IS NULL AND (spec -> 'retention' ->> 'days')::int > $1",
    )
    .bind(longest_days)
    .fetch_all(session.connection())
    .await?;
    rows.iter().map(|row| Ok((row.id("id", IntegrationId::new)?, row.try_get("days")?))).collect()
}

/// Returns the days that are recorded as expired.
pub(super) async fn expired(session: &mut Session) -> Result<BTreeSet<Date>> {
    let days: Vec<String> = sqlx::query_scalar(
        "/* retention::days::expired */
        SELECT to_char(day, 'YYYYMMDD') FROM expired_days",
    )
    .fetch_all(session.connection())
    .await?;
    days.iter().map(|day| parse_day(day)).collect()
}

/// Returns whether an expired day may still have keys.
pub(super) async fn have_keys(session: &mut Session) -> Result<bool> {
    let have_keys = sqlx::query_scalar(
        "/* retention::days::have_keys */
        SELECT EXISTS (SELECT FROM expired_days WHERE has_keys)",
    )
    .fetch_one(session.connection())
    .await?;
    Ok(have_keys)
}

/// Records that the keys of the expired days are pruned. None expires meanwhile: only this session has the round.
pub(super) async fn note_pruned(session: &mut Session) -> Result<()> {
    sqlx::query(
        "/* retention::days::note_pruned */
        UPDATE expired_days SET has_keys = false WHERE has_keys",
    )
    .execute(session.connection())
    .await?;
    Ok(())
}

/// Records that a day has expired, unless it has unfinished deliveries or replay requests. Returns whether it did.
///
/// Replay requests are in the partition of their own day, which may be younger than their event's: one that would be dropped
/// before its event could not be settled.
pub(super) async fn expire(session: &mut Session, day: Date) -> Result<bool> {
    let mut tx = session.connection().begin().await?;
    sqlx::query(
        "/* retention::days::expire, lock */
        SELECT pg_advisory_xact_lock($1, to_date($2, 'YYYYMMDD') - DATE '2000-01-01')",
    )
    .bind(DAY_LOCKS)
    .bind(text(day))
    .execute(&mut *tx)
    .await?;
    let done = sqlx::query(
        "/* retention::days::expire */
        INSERT INTO expired_days (day)
        SELECT to_date($1, 'YYYYMMDD')
        WHERE NOT EXISTS (
            SELECT FROM (
                SELECT FROM deliveries WHERE event_id >= $2 AND event_id < $3 AND finished_at IS NULL
                ORDER BY integration_id, destination, event_id LIMIT 1
            ) AS unfinished
        ) AND NOT EXISTS (
            SELECT FROM replay_requests WHERE id >= $2 AND id < $3 AND status IN ('queued', 'dispatched')
        )",
    )
    .bind(text(day))
    .bind(first_id(day))
    .bind(first_id(day.saturating_add(jiff::Span::new().days(1))))
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected() == 1)
}

/// Fails the unfinished deliveries of a day, in batches, and returns how many.
pub(super) async fn end_unfinished(session: &mut Session, day: Date) -> Result<i64> {
    let mut ended = 0;
    loop {
        let batch = end_batch(session.connection(), day).await?;
        ended += batch;
        if batch == 0 {
            return Ok(ended);
        }
    }
}

async fn end_batch(connection: &mut PgConnection, day: Date) -> Result<i64> {
    let mut tx = connection.begin().await?;
    // In the order of the index deliveries_open, the only one that has the unfinished ones alone.
    let statement = sqlx::query(end_deliveries!(
        "retention::days::end_unfinished",
        "SELECT event_id, destination FROM deliveries
                WHERE event_id >= $2 AND event_id < $3 AND finished_at IS NULL
                ORDER BY integration_id, destination, event_id LIMIT $4 FOR UPDATE SKIP LOCKED"
    ))
    .bind(RETENTION_ENDED)
    .bind(first_id(day))
    .bind(first_id(day.saturating_add(jiff::Span::new().days(1))))
    .bind(BATCH);
    let batch = run_end(&mut tx, statement).await?;
    tx.commit().await?;
    Ok(batch.ended)
}

/// Returns the number of unfinished deliveries of a day, counted up to a bound.
pub(super) async fn count_unfinished(session: &mut Session, day: Date) -> Result<i64> {
    let count = sqlx::query_scalar(
        "/* retention::days::count_unfinished */
        SELECT count(*) FROM (
            SELECT FROM deliveries WHERE event_id >= $1 AND event_id < $2 AND finished_at IS NULL
            ORDER BY integration_id, destination, event_id LIMIT $3
        ) AS unfinished",
    )
    .bind(first_id(day))
    .bind(first_id(day.saturating_add(jiff::Span::new().days(1))))
    .bind(COUNTED)
    .fetch_one(session.connection())
    .await?;
    Ok(count)
}

/// Forgets the expired days whose partitions are all gone, and returns the number of the others.
pub(super) async fn forget_dropped(session: &mut Session) -> Result<usize> {
    sqlx::query(
        "/* retention::days::forget_dropped */
        DELETE FROM expired_days WHERE NOT EXISTS (
            SELECT FROM unnest(partitioned_tables()) AS parent
            WHERE to_regclass(format('%s_%s', parent, to_char(day, 'YYYYMMDD'))) IS NOT NULL
        )",
    )
    .execute(session.connection())
    .await?;
    Ok(expired(session).await?.len())
}

/// Returns the smallest id of a day.
pub(super) fn first_id(day: Date) -> Uuid {
    let milliseconds =
        day.to_zoned(TimeZone::UTC).map_or(0, |midnight| midnight.timestamp().as_millisecond());
    Uuid::from_u128(u128::try_from(milliseconds).unwrap_or(0) << 80)
}

/// Returns a day as the names of partitions have it.
pub(super) fn text(day: Date) -> String {
    day.strftime("%Y%m%d").to_string()
}

pub(super) fn parse_day(text: &str) -> Result<Date> {
    let corrupt = |_| Error::Corrupt { table: "pg_class", column: "relname", id: Uuid::nil() };
    Date::strptime("%Y%m%d", text).map_err(corrupt)
}
