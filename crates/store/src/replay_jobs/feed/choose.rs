//! Chooses what is fed of what was found before. The deliveries stay locked until the end of the transaction.

use std::collections::BTreeSet;

use grapnel_core::ids::EventId;
use grapnel_core::replay::ReplaySelect;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::{Feed, bounds, uuids};
use crate::columns::Columns;
use crate::deliveries::{is_filtered, never};
use crate::error::Result;
use crate::replay_jobs::ReplayJob;

/// What was met and is not fed, and why.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Skipped {
    pub(super) unfinished: u64,
    pub(super) succeeded: u64,
    pub(super) gone: u64,
}

/// Locks what is to be fed, adds the deliveries that there are none of, and leaves out what has changed since it was found. Returns the events in
/// their order.
pub(super) async fn choose(
    tx: &mut PgConnection,
    job: &ReplayJob,
    feed: &Feed<'_>,
    events: Vec<EventId>,
    skipped: &mut Skipped,
) -> Result<Vec<EventId>> {
    if events.is_empty() {
        return Ok(events);
    }
    if job.spec.select == ReplaySelect::Missing {
        let added = add(tx, feed, &events).await?;
        let still_there = unerased(tx, &events).await?;
        let gone = events.iter().filter(|event| !still_there.contains(event)).count();
        skipped.gone += gone as u64;
        skipped.unfinished += (events.len() - gone - added.len()) as u64;
        return Ok(events.into_iter().filter(|event| added.contains(event)).collect());
    }
    let locked = lock_deliveries(tx, feed, &events).await?;
    // By a statement of its own: an erasure that held the deliveries is seen.
    let unerased = unerased(tx, &events).await?;
    let mut wanted = Vec::with_capacity(events.len());
    for event in events {
        let delivery = locked.iter().find(|delivery| delivery.event_id == event);
        match delivery {
            None => skipped.gone += 1,
            Some(_) if !unerased.contains(&event) => skipped.gone += 1,
            Some(delivery) if !delivery.is_finished => skipped.unfinished += 1,
            Some(delivery) if !delivery.is_wanted(job) => skipped.succeeded += 1,
            Some(_) => wanted.push(event),
        }
    }
    Ok(wanted)
}

struct LockedDelivery {
    event_id: EventId,
    is_finished: bool,
    is_filtered: bool,
    has_failed: bool,
    /// Whether it has ended since the job was created.
    is_new: bool,
}

impl LockedDelivery {
    fn is_wanted(&self, job: &ReplayJob) -> bool {
        match job.spec.select {
            ReplaySelect::Failed => self.has_failed,
            ReplaySelect::Filtered => self.is_filtered,
            ReplaySelect::All => self.has_failed || !self.is_filtered && !self.is_new,
            ReplaySelect::Missing => false,
        }
    }
}

async fn lock_deliveries(
    tx: &mut PgConnection,
    feed: &Feed<'_>,
    events: &[EventId],
) -> Result<Vec<LockedDelivery>> {
    let (first, last) = bounds(events);
    let rows = sqlx::query(concat!(
        "/* replay_jobs::feed::lock_deliveries */
        SELECT d.event_id, d.finished_at IS NOT NULL AS is_finished, ",
        is_filtered!(),
        " AS is_filtered, d.status = 'failed' AS has_failed,
            COALESCE(d.finished_at >= (SELECT created_at FROM replay_jobs WHERE id = $5), false) AS is_new
        FROM deliveries d
        WHERE d.event_id = ANY($1) AND d.event_id BETWEEN $2 AND $3 AND d.destination = $4
        ORDER BY d.event_id FOR UPDATE"
    ))
    .bind(uuids(events))
    .bind(first)
    .bind(last)
    .bind(feed.destination)
    .bind(feed.job_id.uuid())
    .fetch_all(tx)
    .await?;
    let delivery = |row: &PgRow| {
        Ok(LockedDelivery {
            event_id: row.id("event_id", EventId::new)?,
            is_finished: row.try_get("is_finished")?,
            is_filtered: row.try_get("is_filtered")?,
            has_failed: row.try_get("has_failed")?,
            is_new: row.try_get("is_new")?,
        })
    };
    rows.iter().map(delivery).collect()
}

/// Returns those of the events whose content is there.
async fn unerased(tx: &mut PgConnection, events: &[EventId]) -> Result<BTreeSet<EventId>> {
    let (first, last) = bounds(events);
    let rows = sqlx::query(
        "/* replay_jobs::feed::unerased */
        SELECT id FROM events WHERE id = ANY($1) AND id BETWEEN $2 AND $3 AND erased_at IS NULL",
    )
    .bind(uuids(events))
    .bind(first)
    .bind(last)
    .fetch_all(tx)
    .await?;
    rows.iter().map(|row| Ok(row.id("id", EventId::new)?)).collect()
}

/// Adds the deliveries that there are none of, and returns their events. They are held until they are taken, in the same transaction.
async fn add(tx: &mut PgConnection, feed: &Feed<'_>, events: &[EventId]) -> Result<BTreeSet<EventId>> {
    let (first, last) = bounds(events);
    // An erasure locks the event, and would not see these deliveries.
    let rows = sqlx::query(concat!(
        "/* replay_jobs::feed::add */
        WITH there AS MATERIALIZED (
            SELECT id, erased_at FROM events WHERE id = ANY($1) AND id BETWEEN $2 AND $3 ORDER BY id FOR SHARE
        )
        INSERT INTO deliveries (event_id, destination, integration_id, due_at, updated_at)
        SELECT id, $4, $5, ",
        never!(),
        ", now() FROM there WHERE erased_at IS NULL
        ON CONFLICT DO NOTHING
        RETURNING event_id"
    ))
    .bind(uuids(events))
    .bind(first)
    .bind(last)
    .bind(feed.destination)
    .bind(feed.integration_id.uuid())
    .fetch_all(tx)
    .await?;
    rows.iter().map(|row| Ok(row.id("event_id", EventId::new)?)).collect()
}
