//! How much waited and how many workers there were, by the minute, as the controller read it.
//!
//! A minute like the one before has no row, so an integration at rest costs one now and then ([`LONGEST_GAP`]); a longer gap means that nobody reported.

use std::time::Duration;

use grapnel_core::ids::IntegrationId;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;

use crate::columns::Batch;
use crate::database::Database;
use crate::error::Result;
use crate::minute_rows::{self, drop_old_minutes};

/// A row says how it was until the next one, for at most so long after its minute.
pub const LONGEST_GAP: Duration = Duration::from_secs(15 * 60);

/// The most of a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerMinute {
    pub id: IntegrationId,
    /// Its first second.
    pub minute: Timestamp,
    /// `None`: it could not be read.
    pub backlog: Option<i64>,
    pub desired: Option<i32>,
    pub ready: Option<i32>,
}

/// Adds minutes, at most one of each integration. Of one that is there already, as of a controller that was killed in it, the larger numbers stay.
/// A lower epoch than that of an integration adds nothing to it.
pub async fn add(db: &Database, writer_epoch: i64, minutes: &[WorkerMinute]) -> Result<()> {
    let batch = Batch(minutes);
    db.bounded(async {
        sqlx::query(
            "/* worker_minutes::add */
            INSERT INTO worker_minutes AS known (integration_id, minute, backlog, desired_workers, ready_workers)
            SELECT read.id, read.minute, read.backlog, read.desired_workers, read.ready_workers
            FROM unnest($2::uuid[], $3::timestamptz[], $4::bigint[], $5::int[], $6::int[])
                AS read (id, minute, backlog, desired_workers, ready_workers)
            JOIN integrations ON integrations.id = read.id AND integrations.deleted_at IS NULL AND integrations.writer_epoch <= $1
            -- Always in the same order, so that two writers cannot deadlock.
            ORDER BY read.id, read.minute
            ON CONFLICT (integration_id, minute) DO UPDATE SET
                backlog = GREATEST(known.backlog, excluded.backlog),
                desired_workers = GREATEST(known.desired_workers, excluded.desired_workers),
                ready_workers = GREATEST(known.ready_workers, excluded.ready_workers)",
        )
        .bind(writer_epoch)
        .bind(batch.column(|read| read.id.uuid()))
        .bind(batch.column(|read| read.minute.to_sqlx()))
        .bind(batch.column(|read| read.backlog))
        .bind(batch.column(|read| read.desired))
        .bind(batch.column(|read| read.ready))
        .execute(db.pool())
        .await?;
        Ok(())
    })
    .await
}

/// Drops the minutes that are past their time. Returns how many.
pub async fn drop_old(db: &Database) -> Result<u64> {
    minute_rows::drop_old(db, drop_old_minutes!("worker_minutes::drop_old", "worker_minutes")).await
}
