//! The reads of the dispatcher: deliveries that are due, and deliveries that lost their message. Those that are held are in
//! [`super::held`].
//!
//! Each statement marks the rows that it takes as queued before they are published, under SKIP LOCKED, so that any number
//! of dispatchers can work in parallel. A row that is then never published is found again after the requeue bound, like
//! any lost message.

use std::time::Duration;

use grapnel_core::hint::Hint;
use grapnel_core::ids::{EventId, IntegrationId, ReplayId};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::held::{DeliveryQueue, delivery_queue, never};
use crate::columns::Columns;
use crate::database::Database;
use crate::deliveries::is_being_removed;
use crate::error::Result;

/// A delivery that was marked as queued and is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequeuedDelivery {
    pub hint: Hint,
    pub replay_request_id: Option<ReplayId>,
}

/// How long a delivery waits that is not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It is due again after this time.
    For(Duration),
    /// Until its destination can have it.
    Held,
}

/// A queue with deliveries that were queued longer ago than the bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueBacklog {
    pub queue: DeliveryQueue,
    /// Queued deliveries that no worker holds: the queue should have as many messages.
    pub queued: i64,
    /// The part that has waited longer than the bound.
    pub overdue: i64,
    /// The bound: they were queued before this. By the database's clock, the only one that all processes share.
    pub overdue_before: Timestamp,
}

pub(super) fn requeued(row: &PgRow) -> Result<RequeuedDelivery> {
    let destination: &str = row.try_get("destination")?;
    Ok(RequeuedDelivery {
        hint: Hint {
            integration_id: row.id("integration_id", IntegrationId::new)?,
            destination: destination.into(),
            event_id: row.id("event_id", EventId::new)?,
        },
        replay_request_id: row.optional_id("replay_request_id", ReplayId::new)?,
    })
}

// What is being removed is not queued, and is put aside, so that it is not met again: its removal ends it there.
const TAKE_DUE: &str = concat!(
    "/* deliveries::take_due */
    WITH due AS MATERIALIZED (
        SELECT event_id, destination, ",
    is_being_removed!(),
    " AS is_removed
        FROM deliveries d
        WHERE due_at <= now()
        ORDER BY due_at
        LIMIT $1
        FOR UPDATE SKIP LOCKED
    )
    UPDATE deliveries d
    SET queued_at = CASE WHEN NOT due.is_removed THEN now() END,
        due_at = CASE WHEN due.is_removed THEN 'infinity'::timestamptz END,
        updated_at = now()
    FROM due
    WHERE d.event_id = due.event_id AND d.destination = due.destination
        AND d.event_id = ANY(ARRAY(SELECT event_id FROM due))
    RETURNING d.integration_id, d.destination, d.event_id, d.replay_request_id, due.is_removed"
);

/// The statements that one call runs when it meets removed deliveries.
const TRIES: usize = 16;

/// Takes deliveries that are due, oldest first. Fewer than `limit` mean that there are no more, or many that are being
/// removed.
pub async fn take_due(db: &Database, limit: i64) -> Result<Vec<RequeuedDelivery>> {
    db.bounded(async {
        let mut taken = Vec::new();
        for _ in 0..TRIES {
            let room = limit - taken.len() as i64;
            let rows = sqlx::query(TAKE_DUE).bind(room).fetch_all(db.pool()).await?;
            let found = rows.len() as i64;
            for row in rows {
                if !row.try_get("is_removed")? {
                    taken.push(requeued(&row)?);
                }
            }
            if found < room || taken.len() as i64 == limit {
                break;
            }
        }
        Ok(taken)
    })
    .await
}

/// Returns deliveries that are not published.
pub async fn give_back(db: &Database, hints: &[(&Hint, Wait)]) -> Result<()> {
    let seconds = |wait: &Wait| match wait {
        Wait::For(wait) => Some(wait.as_secs_f64()),
        Wait::Held => None,
    };
    db.bounded(async {
        sqlx::query(concat!(
            "/* deliveries::give_back */
            UPDATE deliveries d
            SET queued_at = NULL, due_at = COALESCE(now() + make_interval(secs => i.wait), ",
            never!(),
            "), updated_at = now()
            FROM unnest($1::uuid[], $2::text[], $3::float8[]) AS i (event_id, destination, wait)
            WHERE d.event_id = i.event_id AND d.destination = i.destination AND d.event_id = ANY($1)
                AND d.queued_at IS NOT NULL
                AND (d.lease_until IS NULL OR d.lease_until <= now())"
        ))
        .bind(hints.iter().map(|(hint, _)| hint.event_id.uuid()).collect::<Vec<_>>())
        .bind(hints.iter().map(|(hint, _)| &*hint.destination).collect::<Vec<_>>())
        .bind(hints.iter().map(|(_, wait)| seconds(wait)).collect::<Vec<_>>())
        .execute(db.pool())
        .await?;
        Ok(())
    })
    .await
}

/// Deliveries of one queue that are read to count its backlog, from the oldest on: more than a queue has messages, and a bound for
/// those that wait in PostgreSQL. Beyond it, a loss is found when the older deliveries have ended.
const MAX_READ: i64 = 200_000;

/// Returns those of the queues that may have lost messages.
pub async fn backlogs(db: &Database, queues: &[DeliveryQueue], bound: Duration) -> Result<Vec<QueueBacklog>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* deliveries::backlogs */
            SELECT q.integration_id, q.destination, b.queued, b.overdue, now() - make_interval(secs => $3) AS overdue_before
            FROM unnest($1::uuid[], $2::text[]) AS q (integration_id, destination)
            CROSS JOIN LATERAL (
                SELECT count(*) AS queued,
                    count(*) FILTER (WHERE d.queued_at < now() - make_interval(secs => $3)) AS overdue
                FROM (
                    SELECT queued_at, lease_until FROM deliveries
                    WHERE integration_id = q.integration_id AND destination = q.destination AND finished_at IS NULL
                    ORDER BY event_id LIMIT $4
                ) AS d
                WHERE d.queued_at IS NOT NULL AND (d.lease_until IS NULL OR d.lease_until <= now())
            ) AS b
            WHERE b.overdue > 0",
        )
        .bind(queues.iter().map(|queue| queue.integration_id.uuid()).collect::<Vec<_>>())
        .bind(queues.iter().map(|queue| &*queue.destination).collect::<Vec<_>>())
        .bind(bound.as_secs_f64())
        .bind(MAX_READ)
        .fetch_all(db.pool())
        .await?;
        let backlog = |row: &PgRow| {
            Ok(QueueBacklog {
                queue: delivery_queue(row)?,
                queued: row.try_get("queued")?,
                overdue: row.try_get("overdue")?,
                overdue_before: row.time("overdue_before")?,
            })
        };
        rows.iter().map(backlog).collect()
    })
    .await
}

/// Takes overdue deliveries of one queue, oldest first, to publish them again. Each of those that were counted is
/// taken once, by any process, however long that takes.
pub async fn take_overdue(
    db: &Database,
    backlog: &QueueBacklog,
    limit: i64,
) -> Result<Vec<RequeuedDelivery>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* deliveries::take_overdue */
            WITH lost AS MATERIALIZED (
                SELECT event_id, destination FROM deliveries
                WHERE integration_id = $1 AND destination = $2 AND finished_at IS NULL
                    AND queued_at < $3
                    AND (lease_until IS NULL OR lease_until <= now())
                ORDER BY event_id
                LIMIT $4
                FOR UPDATE SKIP LOCKED
            )
            UPDATE deliveries d
            SET queued_at = now(), updated_at = now()
            FROM lost
            WHERE d.event_id = lost.event_id AND d.destination = lost.destination
                AND d.event_id = ANY(ARRAY(SELECT event_id FROM lost))
            RETURNING d.integration_id, d.destination, d.event_id, d.replay_request_id",
        )
        .bind(backlog.queue.integration_id.uuid())
        .bind(&backlog.queue.destination)
        .bind(backlog.overdue_before.to_sqlx())
        .bind(limit)
        .fetch_all(db.pool())
        .await?;
        rows.iter().map(requeued).collect()
    })
    .await
}
