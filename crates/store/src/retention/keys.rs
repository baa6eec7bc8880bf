//! Idempotency keys leave with the events that they point to: those of a day that is not kept, or not there any more. What a
//! younger day that is gone has left does not wait for an older one that is kept.
//!
//! No index finds the keys of a day: it would cost every webhook an insertion, for what happens once a day. The table is read from end to end instead,
//! a few pages at a time.

use std::collections::BTreeSet;

use jiff::Span;
use jiff::civil::Date;
use sqlx::Row;
use uuid::Uuid;

use super::days::{self, first_id};
use super::index_build;
use super::session::Session;
use crate::error::Result;

/// The pages that are read by one statement, with up to 136 keys each, so that none runs long.
const PAGES: i64 = 64;

/// Prunes the keys of all days but the kept ones, up to the newest of these, if one of the expired days may have keys. Returns how many.
pub(super) async fn prune(session: &mut Session, kept: &BTreeSet<Date>) -> Result<u64> {
    if !days::have_keys(session).await? {
        return Ok(0);
    }
    let bounds: Vec<Uuid> =
        kept.iter().flat_map(|day| [*day, day.saturating_add(Span::new().days(1))]).map(first_id).collect();
    let (mut pruned, mut page) = (0, 0);
    while let Some(of_pages) = prune_pages(session, &bounds, page).await? {
        pruned += of_pages;
        page += PAGES;
    }
    days::note_pruned(session).await?;
    Ok(pruned)
}

/// Prunes the keys in the pages from this one on; `None` behind the last page. `bounds` are the first ids of the kept days, each with that of the day
/// after it, so that an even number of them is not greater than an id of no kept day.
async fn prune_pages(session: &mut Session, bounds: &[Uuid], page: i64) -> Result<Option<u64>> {
    let row = sqlx::query(
        "/* retention::keys::prune_pages */
        WITH gone AS (
            DELETE FROM idempotency_keys
            WHERE ctid >= format('(%s,0)', $2::bigint)::tid AND ctid < format('(%s,0)', $2::bigint + $3::bigint)::tid
                AND event_id < ($1::uuid[])[cardinality($1::uuid[])]
                AND width_bucket(event_id, $1::uuid[]) % 2 = 0
            RETURNING 1
        )
        SELECT $2::bigint * current_setting('block_size')::bigint < pg_relation_size('idempotency_keys') AS is_there,
            (SELECT count(*) FROM gone) AS count",
    )
    .bind(bounds)
    .bind(page)
    .bind(PAGES)
    .fetch_one(session.connection())
    .await?;
    let (is_there, count): (bool, i64) = (row.try_get("is_there")?, row.try_get("count")?);
    Ok(is_there.then(|| u64::try_from(count).unwrap_or_default()))
}

/// Drops the indexes by which releases of before found the keys of a day.
pub(super) async fn drop_indexes(session: &mut Session) -> Result<()> {
    let indexes: Vec<String> = sqlx::query_scalar(
        "/* retention::keys::drop_indexes */
        SELECT relname::text FROM pg_class WHERE oid IN (
            to_regclass('idempotency_keys_event'), to_regclass('idempotency_keys_event_id')
        )",
    )
    .fetch_all(session.connection())
    .await?;
    for index in indexes {
        if index_build::is_held_up(session).await? {
            return Ok(());
        }
        session.execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS {index}")).await?;
    }
    Ok(())
}
