//! Days: their partitions are made ahead of time and dropped after the retention.
//!
//! Retention drops whole partitions, so its cost does not grow with what they hold. A day that still has unfinished
//! deliveries is kept until they end: nothing vanishes. Idempotency keys are pruned with the events they point to.

use uuid::Uuid;

use crate::database::Database;
use crate::error::Result;

/// How far ahead partitions exist: an installation may go this long without maintenance.
const DAYS_AHEAD: i32 = 14;

/// Only one process maintains at a time; the number is the lock's name.
const MAINTENANCE_LOCK: i64 = 0x6772_6170_6e65_6c01;

/// Rows pruned in one statement, so that none runs long.
const PRUNE_BATCH: i64 = 10_000;

/// Makes the missing partitions from yesterday on (a clock may be behind). Idempotent.
pub async fn ensure(db: &Database) -> Result<()> {
    let mut tx = db.pool().begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MAINTENANCE_LOCK).execute(&mut *tx).await?;
    sqlx::query(
        "/* partitions::ensure */
        SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - 1, (now() AT TIME ZONE 'UTC')::date + $1::int)",
    )
    .bind(DAYS_AHEAD)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// Drops the days that are past the longest retention of any integration and answers the names of the partitions.
///
/// Retired integrations count too: their history stays as long as they asked for. Without any integration nobody has
/// said how long history is to be kept, and nothing is dropped.
pub async fn drop_expired(db: &Database) -> Result<Vec<String>> {
    let mut tx = db.pool().begin().await?;
    let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
        .bind(MAINTENANCE_LOCK)
        .fetch_one(&mut *tx)
        .await?;
    if !locked {
        return Ok(Vec::new());
    }
    let dropped = sqlx::query_scalar(
        "/* partitions::drop_expired */
        SELECT COALESCE(drop_expired_partitions((now() AT TIME ZONE 'UTC')::date - max(days)), '{}')
        FROM (SELECT (spec -> 'retention' ->> 'days')::int AS days FROM integrations) AS retention",
    )
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(dropped)
}

/// Prunes idempotency keys of events that are gone with their partition; answers how many.
pub async fn prune_keys(db: &Database) -> Result<u64> {
    let oldest: Option<Uuid> =
        sqlx::query_scalar("/* partitions::oldest_day */ SELECT oldest_partition_start()")
            .fetch_one(db.pool())
            .await?;
    let Some(oldest) = oldest else {
        return Ok(0);
    };
    let mut pruned = 0;
    loop {
        let done = sqlx::query(
            "/* partitions::prune_keys */
            DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
                SELECT ctid FROM idempotency_keys WHERE event_id < $1 LIMIT $2
            ))",
        )
        .bind(oldest)
        .bind(PRUNE_BATCH)
        .execute(db.pool())
        .await?
        .rows_affected();
        pruned += done;
        if done < PRUNE_BATCH as u64 {
            return Ok(pruned);
        }
    }
}
