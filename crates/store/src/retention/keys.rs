//! Idempotency keys leave with the events that they point to: those of a day that is not kept, or not there any more. What a
//! younger day that is gone has left does not wait for an older one that is kept.

use std::collections::BTreeSet;

use jiff::Span;
use jiff::civil::Date;
use sqlx::Row;
use uuid::Uuid;

use super::days::first_id;
use super::index_build;
use super::session::Session;
use crate::error::Result;

/// The number of rows pruned in one statement, so that none runs long.
const BATCH: i64 = 10_000;

/// Prunes the keys of all days but the kept ones, up to the newest of these. Returns how many. Without the index there are none:
/// it would read the whole table.
pub(super) async fn prune(session: &mut Session, kept: &BTreeSet<Date>) -> Result<u64> {
    if !ensure_index(session).await? {
        return Ok(0);
    }
    let (mut pruned, mut first_gone) = (0, Uuid::nil());
    for day in kept {
        pruned += prune_between(session, first_gone, first_id(*day)).await?;
        first_gone = first_id(day.saturating_add(Span::new().days(1)));
    }
    Ok(pruned)
}

// Each batch begins where the last one ended, and does not step over its dead index entries.
async fn prune_between(session: &mut Session, mut after: Uuid, before: Uuid) -> Result<u64> {
    let mut pruned = 0;
    while after < before {
        let row = sqlx::query(
            "/* retention::keys::prune */
            WITH batch AS MATERIALIZED (
                SELECT ctid, event_id FROM idempotency_keys WHERE event_id > $1 AND event_id < $2
                ORDER BY event_id LIMIT $3
            ), gone AS (
                DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(SELECT ctid FROM batch))
            )
            SELECT count(*) AS count, (SELECT event_id FROM batch ORDER BY event_id DESC LIMIT 1) AS last FROM batch",
        )
        .bind(after)
        .bind(before)
        .bind(BATCH)
        .fetch_one(session.connection())
        .await?;
        let (count, last): (i64, Option<Uuid>) = (row.try_get("count")?, row.try_get("last")?);
        pruned += u64::try_from(count).unwrap_or_default();
        match last {
            Some(last) if count == BATCH => after = last,
            _ => break,
        }
    }
    Ok(pruned)
}

/// Returns whether keys can be found by their event. An installation from before has another index, and gets this one here.
async fn ensure_index(session: &mut Session) -> Result<bool> {
    let row = sqlx::query(
        "/* retention::keys::ensure_index */
        SELECT (SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('idempotency_keys_event_id')) AS is_valid,
            to_regclass('idempotency_keys_event') IS NOT NULL AS has_old_one",
    )
    .fetch_one(session.connection())
    .await?;
    let is_valid: Option<bool> = row.try_get("is_valid")?;
    let has_old_one: bool = row.try_get("has_old_one")?;
    if is_valid == Some(true) && !has_old_one {
        return Ok(true);
    }
    if index_build::is_held_up(session).await? {
        return Ok(is_valid == Some(true));
    }
    if is_valid != Some(true) {
        index_build::build(session, "idempotency_keys_event_id", "idempotency_keys (event_id)").await?;
    }
    if has_old_one {
        session.execute("DROP INDEX CONCURRENTLY IF EXISTS idempotency_keys_event").await?;
    }
    Ok(true)
}
