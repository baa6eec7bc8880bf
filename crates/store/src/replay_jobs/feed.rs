//! Feeds deliveries of a job: they are made due with a fresh budget, and the position of the job moves, in one transaction.
//!
//! What was found before is looked at again under locks. Locked in this order: the job, the days of the events, the integration, the events without a
//! delivery, the deliveries. The dispatcher then queues what is due as it does for all others.

use std::collections::BTreeSet;

use grapnel_core::ids::{EventId, IntegrationId, ReplayJobId};
use grapnel_core::replay::ReplayState;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use self::choose::{Skipped, choose};
use super::turn::{BEGIN, LIMIT_REACHED, set_state};
use super::{ReplayJob, read};
use crate::columns::Columns;
use crate::database::Database;
use crate::destinations;
use crate::error::Result;
use crate::partitions;

mod choose;

/// What is to be fed to one destination of a job.
#[derive(Debug, Clone)]
pub struct Feed<'a> {
    pub job_id: ReplayJobId,
    pub integration_id: IntegrationId,
    pub destination: &'a str,
    /// Where the job is with the destination, or nothing is fed.
    pub cursor: Option<Uuid>,
    /// Where it is then.
    pub next_cursor: Option<Uuid>,
    /// Whether nothing is left behind that.
    pub is_last: bool,
    /// What was found in between, in the order of the job.
    pub events: &'a [EventId],
    /// What another replay was delivering in between.
    pub unfinished: u64,
    /// No more than this are fed.
    pub allowed: u64,
}

/// The outcome of feeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedOutcome {
    /// So many were fed.
    Fed(u64),
    /// The job is elsewhere by now, in another state, or the destination is another: nothing has changed.
    Stale,
}

/// Feeds deliveries.
pub async fn feed(db: &Database, feed: &Feed<'_>) -> Result<FeedOutcome> {
    db.bounded(async {
        let mut tx = db.begin(BEGIN).await?;
        let Some(job) = read::lock(&mut tx, feed.job_id).await? else { return Ok(FeedOutcome::Stale) };
        if !job.state.is_feeding() || !is_at(&mut tx, feed).await? {
            return Ok(FeedOutcome::Stale);
        }
        let mut skipped = Skipped { unfinished: feed.unfinished, ..Skipped::default() };
        let kept = hold_days(&mut tx, feed.events).await?;
        skipped.gone += (feed.events.len() - kept.len()) as u64;
        let known = destinations::lock(&mut tx, feed.integration_id).await?;
        let has_destination =
            known.as_ref().is_some_and(|known| known.names.iter().any(|name| name == feed.destination));
        let fed = match has_destination {
            false => {
                skipped.gone += kept.len() as u64;
                Vec::new()
            }
            true if known.is_some_and(|known| known.is_disabled) || kept.len() as u64 > feed.allowed => {
                return Ok(FeedOutcome::Stale);
            }
            true => {
                let wanted = choose(&mut tx, &job, feed, kept, &mut skipped).await?;
                take(&mut tx, feed, &wanted).await?
            }
        };
        advance(&mut tx, &job, feed, fed.len() as u64, skipped).await?;
        tx.commit().await?;
        Ok(FeedOutcome::Fed(fed.len() as u64))
    })
    .await
}

/// Ends a job that has fed as many as it may and has met one more: what it has fed goes on, and then it has failed.
pub async fn stop_at_limit(db: &Database, id: ReplayJobId) -> Result<()> {
    db.bounded(async {
        let mut tx = db.begin(BEGIN).await?;
        sqlx::query(
            "/* replay_jobs::feed::stop_at_limit */
            WITH stopped AS (
                UPDATE replay_jobs
                SET state_reason = $2, state_message = 'more than ' || max_deliveries || ' deliveries match', updated_at = now()
                WHERE id = $1 AND state IN ('Pending', 'Running')
                RETURNING id
            )
            UPDATE replay_destinations SET is_done = true WHERE job_id IN (SELECT id FROM stopped)",
        )
        .bind(id.uuid())
        .bind(LIMIT_REACHED)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// Pauses a job for a reason of its own.
pub async fn pause(db: &Database, id: ReplayJobId, reason: &str, message: &str) -> Result<()> {
    db.bounded(async {
        let mut tx = db.begin(BEGIN).await?;
        let job = read::lock(&mut tx, id).await?;
        if job.is_some_and(|job| job.state.is_feeding()) {
            set_state(&mut tx, id, ReplayState::Paused, Some(reason), Some(message)).await?;
        }
        tx.commit().await?;
        Ok(())
    })
    .await
}

async fn is_at(tx: &mut PgConnection, feed: &Feed<'_>) -> Result<bool> {
    let is_at: Option<bool> = sqlx::query_scalar(
        "/* replay_jobs::feed::is_at */
        SELECT NOT is_done AND cursor_event IS NOT DISTINCT FROM $4 FROM replay_destinations
        WHERE job_id = $1 AND integration_id = $2 AND destination = $3",
    )
    .bind(feed.job_id.uuid())
    .bind(feed.integration_id.uuid())
    .bind(feed.destination)
    .bind(feed.cursor)
    .fetch_optional(tx)
    .await?;
    Ok(is_at.unwrap_or_default())
}

/// Keeps the days of the events from being dropped, and returns the events of those that are not being dropped already.
async fn hold_days(tx: &mut PgConnection, events: &[EventId]) -> Result<Vec<EventId>> {
    const MILLISECONDS_OF_DAY: u128 = 24 * 60 * 60 * 1000;
    let day = |event: &EventId| (event.uuid().as_u128() >> 80) / MILLISECONDS_OF_DAY;
    let mut kept = BTreeSet::new();
    let days: BTreeSet<u128> = events.iter().map(day).collect();
    for held in days {
        if let Some(event) = events.iter().find(|event| day(event) == held)
            && partitions::hold_day(tx, *event).await?
        {
            kept.insert(held);
        }
    }
    Ok(events.iter().filter(|event| kept.contains(&day(event))).copied().collect())
}

/// Takes deliveries that are locked: they are due, one after the other, and listed as fed. What earlier jobs had fed and did not count yet has ended
/// for them as it is now.
async fn take(tx: &mut PgConnection, feed: &Feed<'_>, events: &[EventId]) -> Result<Vec<EventId>> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let (first, last) = bounds(events);
    let rows = sqlx::query(
        "/* replay_jobs::feed::take */
        WITH ended AS (
            UPDATE replay_deliveries r
            SET outcome = CASE d.status WHEN 'succeeded' THEN 'succeeded' ELSE 'failed' END, look_at = now()
            FROM deliveries d
            WHERE d.event_id = ANY($1) AND d.event_id BETWEEN $2 AND $3 AND d.destination = $4
                AND r.event_id = d.event_id AND r.destination = d.destination AND r.job_id <> $5
                AND r.outcome IS NULL AND d.finished_at IS NOT NULL
        ), taken AS (
            UPDATE deliveries d
            SET status = 'pending', lease_id = NULL, lease_until = NULL, queued_at = NULL,
                due_at = now() + i.position * interval '1 microsecond', finished_at = NULL, unsent_since = NULL,
                budget_start = d.attempts, triggered_by = 'replay', replay_request_id = $5, updated_at = now()
            FROM unnest($1::uuid[]) WITH ORDINALITY AS i (event_id, position)
            WHERE d.event_id = i.event_id AND d.event_id = ANY($1) AND d.event_id BETWEEN $2 AND $3 AND d.destination = $4
            RETURNING d.event_id, d.attempts
        ), listed AS (
            INSERT INTO replay_deliveries (job_id, event_id, destination, integration_id, attempts, look_at)
            SELECT $5, event_id, $4, $6, attempts, now() FROM taken
        )
        SELECT event_id FROM taken",
    )
    .bind(uuids(events))
    .bind(first)
    .bind(last)
    .bind(feed.destination)
    .bind(feed.job_id.uuid())
    .bind(feed.integration_id.uuid())
    .fetch_all(tx)
    .await?;
    rows.iter().map(|row| Ok(row.id("event_id", EventId::new)?)).collect()
}

/// Moves the position and adds to the counters. What was counted at the creation of the job and is no longer met at the end of a destination is gone if
/// the oldest of it is, since days go as a whole, or else has succeeded.
async fn advance(
    tx: &mut PgConnection,
    job: &ReplayJob,
    feed: &Feed<'_>,
    fed: u64,
    skipped: Skipped,
) -> Result<()> {
    let met = skipped.unfinished + skipped.succeeded + skipped.gone;
    let row = sqlx::query(
        "/* replay_jobs::feed::advance_destination */
        UPDATE replay_destinations
        SET cursor_event = $4, is_done = $5, fed = fed + $6, skipped = skipped + $7
        WHERE job_id = $1 AND integration_id = $2 AND destination = $3
        RETURNING matched - fed - skipped AS unmet,
            first_event IS NOT NULL AND NOT EXISTS (SELECT FROM events e WHERE e.id = first_event) AS has_lost_events",
    )
    .bind(feed.job_id.uuid())
    .bind(feed.integration_id.uuid())
    .bind(feed.destination)
    .bind(feed.next_cursor.or(feed.cursor))
    .bind(feed.is_last)
    .bind(fed.cast_signed())
    .bind(met.cast_signed())
    .fetch_one(&mut *tx)
    .await?;
    let is_known = feed.is_last && job.counters.matched_is_exact;
    let unmet: i64 = if is_known { row.try_get::<i64, _>("unmet")?.max(0) } else { 0 };
    let are_gone = row.try_get("has_lost_events")?;
    if unmet > 0 {
        sqlx::query(
            "/* replay_jobs::feed::add_unmet */
            UPDATE replay_destinations SET skipped = skipped + $4
            WHERE job_id = $1 AND integration_id = $2 AND destination = $3",
        )
        .bind(feed.job_id.uuid())
        .bind(feed.integration_id.uuid())
        .bind(feed.destination)
        .bind(unmet)
        .execute(&mut *tx)
        .await?;
    }
    let (succeeded, gone) = if are_gone { (0, unmet) } else { (unmet, 0) };
    sqlx::query(
        "/* replay_jobs::feed::advance */
        UPDATE replay_jobs
        SET fed = fed + $2, skipped_unfinished = skipped_unfinished + $3, skipped_succeeded = skipped_succeeded + $4,
            skipped_gone = skipped_gone + $5, credit = GREATEST(credit - $2, 0), state = 'Running',
            started_at = COALESCE(started_at, now()), updated_at = now()
        WHERE id = $1",
    )
    .bind(feed.job_id.uuid())
    .bind(fed.cast_signed())
    .bind(skipped.unfinished.cast_signed())
    .bind(skipped.succeeded.cast_signed() + succeeded)
    .bind(skipped.gone.cast_signed() + gone)
    .execute(tx)
    .await?;
    Ok(())
}

fn uuids(events: &[EventId]) -> Vec<Uuid> {
    events.iter().map(|event| event.uuid()).collect()
}

/// The bounds of the events, which prune the partitions.
fn bounds(events: &[EventId]) -> (Uuid, Uuid) {
    let ids = || events.iter().map(|event| event.uuid());
    (ids().min().unwrap_or_default(), ids().max().unwrap_or_default())
}
