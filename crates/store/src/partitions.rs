//! Partitions, one for each day: created ahead of time and dropped after the retention.
//!
//! Retention drops whole partitions, so its cost does not grow with their size. A day that still has unfinished deliveries
//! is kept until they end, so that no delivery is lost. Idempotency keys are pruned with the events they point to.

use uuid::Uuid;

use crate::database::Database;
use crate::error::Result;

/// The days for which partitions are created ahead: an installation may go this long without maintenance.
const DAYS_AHEAD: i32 = 14;

/// The number of the advisory lock that lets only one process maintain at a time.
const MAINTENANCE_LOCK: i64 = 0x6772_6170_6e65_6c01;

/// The number of rows pruned in one statement, so that none runs long.
const PRUNE_BATCH: i64 = 10_000;

/// Creates the missing partitions from yesterday on (a clock may be behind). Idempotent.
pub async fn ensure(db: &Database) -> Result<()> {
    let mut tx = db.pool().begin().await?;
    sqlx::query("/* partitions::ensure, lock */ SELECT pg_advisory_xact_lock($1)")
        .bind(MAINTENANCE_LOCK)
        .execute(&mut *tx)
        .await?;
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

/// Drops the days that are past the longest retention of any integration and returns the names of the partitions.
///
/// Retired integrations count too: their history stays for the retention that they had. Without any integration there is
/// no retention, and nothing is dropped.
pub async fn drop_expired(db: &Database) -> Result<Vec<String>> {
    let mut tx = db.pool().begin().await?;
    let locked: bool =
        sqlx::query_scalar("/* partitions::drop_expired, lock */ SELECT pg_try_advisory_xact_lock($1)")
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

/// Prunes the idempotency keys of events that were dropped with their partition; returns how many.
pub async fn prune_keys(db: &Database) -> Result<u64> {
    let oldest: Option<Uuid> =
        sqlx::query_scalar("/* partitions::prune_keys, bound */ SELECT oldest_partition_start()")
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
