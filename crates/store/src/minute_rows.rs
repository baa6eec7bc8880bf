//! Rows by the minute, and how long they are kept.

use crate::database::Database;
use crate::error::Result;

/// The days for which they are kept.
const KEPT_DAYS: i32 = 35;

/// The rows that one statement drops.
const BATCH: u64 = 10_000;

/// The statement for [`drop_old`]: its name and its table, which has a column `minute`.
macro_rules! drop_old_minutes {
    ($name:literal, $table:literal) => {
        concat!(
            "/* ",
            $name,
            " */
        DELETE FROM ",
            $table,
            " WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM ",
            $table,
            " WHERE minute < now() - make_interval(days => $1) ORDER BY minute LIMIT $2
        ))"
        )
    };
}
pub(crate) use drop_old_minutes;

/// Drops the rows that are past their time, in batches. Returns how many.
pub(crate) async fn drop_old(db: &Database, statement: &'static str) -> Result<u64> {
    let mut dropped = 0;
    loop {
        let batch = db.bounded(drop_batch(db, statement)).await?;
        dropped += batch;
        if batch < BATCH {
            return Ok(dropped);
        }
    }
}

async fn drop_batch(db: &Database, statement: &'static str) -> Result<u64> {
    let done = sqlx::query(statement)
        .bind(KEPT_DAYS)
        .bind(i64::try_from(BATCH).unwrap_or(i64::MAX))
        .execute(db.pool())
        .await?;
    Ok(done.rows_affected())
}
