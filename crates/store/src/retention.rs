//! Retention: days leave as whole partitions, and take the idempotency keys of their events with them.
//!
//! A day expires when the longest retention of all integrations has passed; no retention is longer than the platform's. A day
//! that still has unfinished work waits for it for a week more; then the work fails. An expired day is recorded, and nothing
//! of it becomes unfinished any more. From then on it leaves step by step: its keys, then each of its partitions. Each step can
//! fail, for a lock that is taken, and is taken again in the next round.
//!
//! One process at a time does this. Every lock of it has a `lock_timeout`, and none is one that keeps anybody from a table: a
//! partition is detached concurrently, and dropped when nobody can see it.

mod days;
mod index_build;
mod keys;
mod partition_drop;
mod session;

use std::collections::BTreeSet;

use grapnel_core::error_chain::chain;
use grapnel_core::ids::IntegrationId;
use jiff::civil::Date;

use crate::database::Database;
use crate::error::Result;
use days::Bounds;
use partition_drop::{Partition, PartitionState};
use session::Session;

/// What a round did, and what it left.
#[derive(Debug, Default)]
pub struct RetentionRound {
    /// The live integrations whose own retention is longer than the platform's, with its days.
    pub shortened: Vec<(IntegrationId, i32)>,
    /// The names of the partitions that were dropped.
    pub dropped: Vec<String>,
    pub pruned_keys: u64,
    /// Deliveries that failed because their day could wait no longer.
    pub ended_deliveries: i64,
    /// Deliveries that fail within days, unless they finish.
    pub ending_deliveries: i64,
    /// Days that are expired and not gone yet.
    pub expired_days: usize,
    /// Whether some step is to be tried again soon.
    pub is_incomplete: bool,
}

/// Drops what is past its retention. `longest_days` is the platform's bound of every retention. Returns `None` when another
/// process is doing so.
pub async fn drop_expired(db: &Database, longest_days: i32) -> Result<Option<RetentionRound>> {
    let Some(mut session) = Session::begin(db).await? else { return Ok(None) };
    let mut round = RetentionRound::default();
    let Some(bounds) = days::bounds(&mut session, longest_days).await? else { return Ok(Some(round)) };
    round.shortened = days::shortened(&mut session, longest_days).await?;
    let partitions = partition_drop::list(&mut session).await?;
    let expired = expire(&mut session, &bounds, &partitions, &mut round).await?;
    let kept = days_of(&partitions, |partition| partition.has_events() && !expired.contains(&partition.day));
    match keys::prune(&mut session, &kept).await {
        Ok(pruned) => round.pruned_keys = pruned,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "idempotency keys cannot be pruned yet");
            round.is_incomplete = true;
        }
    }
    drop_days(&mut session, &expired, partitions, &mut round).await;
    if let Err(error) = index_build::ensure_on_partitions(&mut session).await {
        tracing::warn!(error = %chain(&error), "days before an upgrade do not have all indexes yet");
        round.is_incomplete = true;
    }
    if let Err(error) = drop_unused_indexes(&mut session).await {
        tracing::warn!(error = %chain(&error), "an index that is not used any more cannot be dropped yet");
        round.is_incomplete = true;
    }
    round.expired_days = days::forget_dropped(&mut session).await?;
    Ok(Some(round))
}

async fn drop_unused_indexes(session: &mut Session) -> Result<()> {
    keys::drop_indexes(session).await?;
    index_build::drop_replaced(session).await
}

/// Records the days that have expired and returns all of those that are not gone yet.
async fn expire(
    session: &mut Session,
    bounds: &Bounds,
    partitions: &[Partition],
    round: &mut RetentionRound,
) -> Result<BTreeSet<Date>> {
    let mut expired = days::expired(session).await?;
    let old = days_of(partitions, |partition| partition.day < bounds.first_kept && partition.is_in_use());
    for day in old {
        if expired.contains(&day) {
            continue;
        }
        match expire_day(session, bounds, day, round).await {
            Ok(true) => {
                expired.insert(day);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(error = %chain(&error), %day, "a day cannot be dropped yet");
                round.is_incomplete = true;
            }
        }
    }
    Ok(expired)
}

fn days_of(partitions: &[Partition], is_meant: impl Fn(&Partition) -> bool) -> BTreeSet<Date> {
    partitions.iter().filter(|partition| is_meant(partition)).map(|partition| partition.day).collect()
}

async fn expire_day(
    session: &mut Session,
    bounds: &Bounds,
    day: Date,
    round: &mut RetentionRound,
) -> Result<bool> {
    if day < bounds.first_waited_for {
        round.ended_deliveries += days::end_unfinished(session, day).await?;
    } else if day < bounds.first_not_warned_of {
        round.ending_deliveries += days::count_unfinished(session, day).await?;
    }
    days::expire(session, day).await
}

async fn drop_days(
    session: &mut Session,
    expired: &BTreeSet<Date>,
    partitions: Vec<Partition>,
    round: &mut RetentionRound,
) {
    let mut blocked: Option<String> = None;
    for partition in partitions {
        // An interrupted detach is finished first, whosever it is: a table can have only one.
        let is_ours = expired.contains(&partition.day);
        if !is_ours && partition.state != PartitionState::Detaching
            || blocked.as_ref() == Some(&partition.table)
        {
            continue;
        }
        match partition_drop::detach_and_drop(session, &partition, is_ours).await {
            Ok(true) => round.dropped.push(partition.name()),
            Ok(false) => {}
            Err(error) => {
                tracing::info!(error = %chain(&error), partition = partition.name(), "a partition is dropped later");
                round.is_incomplete = true;
                blocked = Some(partition.table);
            }
        }
    }
}
