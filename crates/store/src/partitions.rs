//! Partitions, one for each UTC day and table, created ahead of time. [`crate::retention`] drops them.
//!
//! A partition is created apart and then attached, each in a transaction of its own, with a `lock_timeout`: neither a reader
//! of the parent (`pg_dump` is one for as long as it runs) nor a writer waits for it or holds it up.

use grapnel_core::error_chain::chain;
use grapnel_core::ids::EventId;
use sqlx::{PgConnection, Row};

use crate::database::Database;
use crate::error::{Error, Result};

/// The days for which partitions are created ahead: an installation may go this long without maintenance.
const DAYS_AHEAD: i32 = 14;

/// The class of the advisory locks of days; the second key is the day. One who makes a delivery of an old day unfinished shares
/// its day's, and one who drops it has it alone.
pub(crate) const DAY_LOCKS: i32 = 0x6772_6170;

/// Creates the missing partitions from yesterday on (a clock may be behind). Idempotent, also in several processes at once.
///
/// # Errors
/// When some could not be created. Those of the other tables are there all the same.
pub async fn ensure(db: &Database) -> Result<()> {
    let mut failure: Option<(String, Error)> = None;
    for (table, day) in missing(db).await? {
        // The next day of a table whose lock is taken would only wait as long again.
        if failure.as_ref().is_some_and(|(failed, _)| *failed == table) {
            continue;
        }
        if let Err(error) = create(db, &table, &day).await {
            tracing::warn!(error = %chain(&error), table, day, "a partition cannot be created");
            failure = Some((table, error));
        }
    }
    failure.map_or(Ok(()), |(_, error)| Err(error))
}

/// Returns the number of days, from today on, that have all of their partitions.
pub async fn days_ahead(db: &Database) -> Result<i32> {
    db.bounded(async {
        let days = sqlx::query_scalar(
            "/* partitions::days_ahead */
            SELECT COALESCE(min(ahead), $1 + 1)
            FROM unnest(partitioned_tables()) AS parent, generate_series(0, $1) AS ahead
            WHERE to_regclass(
                format('%s_%s', parent, to_char((now() AT TIME ZONE 'UTC')::date + ahead, 'YYYYMMDD'))
            ) IS NULL",
        )
        .bind(DAYS_AHEAD)
        .fetch_one(db.pool())
        .await?;
        Ok(days)
    })
    .await
}

/// Returns the tables and days (`YYYYMMDD`) without a partition.
async fn missing(db: &Database) -> Result<Vec<(String, String)>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* partitions::missing */
            SELECT parent, day FROM unnest(partitioned_tables()) AS parent,
                LATERAL (
                    SELECT to_char((now() AT TIME ZONE 'UTC')::date + ahead, 'YYYYMMDD') AS day
                    FROM generate_series(-1, $1) AS ahead
                ) AS days
            WHERE to_regclass(format('%s_%s', parent, day)) IS NULL
            ORDER BY parent, day",
        )
        .bind(DAYS_AHEAD)
        .fetch_all(db.pool())
        .await?;
        rows.iter().map(|row| Ok((row.try_get("parent")?, row.try_get("day")?))).collect()
    })
    .await
}

async fn create(db: &Database, table: &str, day: &str) -> Result<()> {
    db.bounded(async {
        sqlx::query("/* partitions::create */ SELECT create_partition($1, to_date($2, 'YYYYMMDD'))")
            .bind(table)
            .bind(day)
            .execute(db.pool())
            .await?;
        Ok(())
    })
    .await
}

/// Keeps the day of an event from being dropped until the transaction ends. Returns whether it is still kept.
pub(crate) async fn hold_day(tx: &mut PgConnection, event_id: EventId) -> Result<bool> {
    sqlx::query(
        "/* partitions::hold_day, lock */
        SELECT pg_advisory_xact_lock_shared($1, (uuidv7_time($2) AT TIME ZONE 'UTC')::date - DATE '2000-01-01')",
    )
    .bind(DAY_LOCKS)
    .bind(event_id.uuid())
    .execute(&mut *tx)
    .await?;
    // A statement of its own, so that it sees what the last holder of the lock has committed.
    let is_kept = sqlx::query_scalar(
        "/* partitions::hold_day */
        SELECT NOT EXISTS (
            SELECT FROM expired_days WHERE day = (uuidv7_time($1) AT TIME ZONE 'UTC')::date
        )",
    )
    .bind(event_id.uuid())
    .fetch_one(tx)
    .await?;
    Ok(is_kept)
}
