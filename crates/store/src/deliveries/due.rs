//! The reads of the dispatcher: deliveries that are due, and deliveries that lost their message. Those that are held are in
//! [`super::held`].
//!
//! Each statement marks the rows that it takes as queued before they are published, under SKIP LOCKED, so that any number
//! of dispatchers can work in parallel. A row that is then never published is found again after the requeue bound, like
//! any lost message.

use std::time::Duration;

use grapnel_core::hint::{self, Hint};
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
///
/// Deliveries that were queued together share messages, and `queued_at` tells which these are: it is the time of their
/// transaction. Counted are the fewest messages that they can have. A queue can have more: of a version that published a message for
/// each, and of deliveries that have ended. So nothing counts as lost that is not, and what is lost may be found only when the queue
/// has become shorter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueBacklog {
    pub queue: DeliveryQueue,
    /// The messages that the queue should have, for queued deliveries that no worker holds.
    pub queued: i64,
    /// Those that have waited longer than the bound.
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
pub(super) const MAX_READ: i64 = 200_000;

/// The deliveries that one message can have, as an argument.
fn message_limit() -> i64 {
    hint::MAX_IDS.get() as i64
}

/// Returns those of the queues that may have lost messages.
pub async fn backlogs(db: &Database, queues: &[DeliveryQueue], bound: Duration) -> Result<Vec<QueueBacklog>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* deliveries::backlogs */
            SELECT q.integration_id, q.destination, b.queued, b.overdue, now() - make_interval(secs => $3) AS overdue_before
            FROM unnest($1::uuid[], $2::text[]) AS q (integration_id, destination)
            CROSS JOIN LATERAL (
                SELECT sum(messages)::bigint AS queued,
                    (sum(messages) FILTER (WHERE queued_at < now() - make_interval(secs => $3)))::bigint AS overdue
                FROM (
                    SELECT queued_at, (count(*) + $5 - 1) / $5 AS messages
                    FROM (
                        SELECT queued_at, lease_until FROM deliveries
                        WHERE integration_id = q.integration_id AND destination = q.destination AND finished_at IS NULL
                        ORDER BY event_id LIMIT $4
                    ) AS d
                    WHERE d.queued_at IS NOT NULL AND (d.lease_until IS NULL OR d.lease_until <= now())
                    GROUP BY queued_at
                ) AS together
            ) AS b
            WHERE b.overdue > 0",
        )
        .bind(queues.iter().map(|queue| queue.integration_id.uuid()).collect::<Vec<_>>())
        .bind(queues.iter().map(|queue| &*queue.destination).collect::<Vec<_>>())
        .bind(bound.as_secs_f64())
        .bind(MAX_READ)
        .bind(message_limit())
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

/// Returns how many deliveries of each queue are queued or held by a worker, among the oldest `most` that have not ended.
pub async fn queued_counts(
    db: &Database,
    queues: &[DeliveryQueue],
    most: i64,
) -> Result<Vec<(DeliveryQueue, u64)>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* deliveries::queued_counts */
            SELECT q.integration_id, q.destination, b.queued
            FROM unnest($1::uuid[], $2::text[]) AS q (integration_id, destination)
            CROSS JOIN LATERAL (
                SELECT count(*) AS queued
                FROM (
                    SELECT queued_at FROM deliveries
                    WHERE integration_id = q.integration_id AND destination = q.destination AND finished_at IS NULL
                    ORDER BY event_id LIMIT $3
                ) AS d
                WHERE d.queued_at IS NOT NULL
            ) AS b",
        )
        .bind(queues.iter().map(|queue| queue.integration_id.uuid()).collect::<Vec<_>>())
        .bind(queues.iter().map(|queue| &*queue.destination).collect::<Vec<_>>())
        .bind(most)
        .fetch_all(db.pool())
        .await?;
        let count = |row: &PgRow| {
            Ok((delivery_queue(row)?, u64::try_from(row.try_get::<i64, _>("queued")?).unwrap_or_default()))
        };
        rows.iter().map(count).collect()
    })
    .await
}

/// The deliveries of a queue that lost their messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostDeliveries {
    /// Until when they were queued.
    pub queued_through: Timestamp,
    pub count: i64,
}

/// Returns the deliveries of a backlog that lost so many messages. None when they have ended meanwhile.
///
/// A queue is first in, first out: what it has are the messages that were queued last. A dispatcher that stopped in the middle of
/// this work may have left older events that were queued later.
pub async fn find_lost(
    db: &Database,
    backlog: &QueueBacklog,
    messages: i64,
) -> Result<Option<LostDeliveries>> {
    db.bounded(async {
        let row = sqlx::query(
            "/* deliveries::find_lost */
            SELECT max(queued_at) AS queued_through, sum(least(deliveries, ($5 - messages_before) * $6))::bigint AS count
            FROM (
                SELECT queued_at, deliveries, sum(messages) OVER (ORDER BY queued_at) - messages AS messages_before
                FROM (
                    SELECT queued_at, count(*) AS deliveries, (count(*) + $6 - 1) / $6 AS messages
                    FROM (
                        SELECT queued_at, lease_until FROM deliveries
                        WHERE integration_id = $1 AND destination = $2 AND finished_at IS NULL
                        ORDER BY event_id LIMIT $3
                    ) AS oldest
                    WHERE queued_at < $4 AND (lease_until IS NULL OR lease_until <= now())
                    GROUP BY queued_at
                ) AS together
            ) AS in_order
            WHERE messages_before < $5",
        )
        .bind(backlog.queue.integration_id.uuid())
        .bind(&backlog.queue.destination)
        .bind(MAX_READ)
        .bind(backlog.overdue_before.to_sqlx())
        .bind(messages)
        .bind(message_limit())
        .fetch_one(db.pool())
        .await?;
        match row.optional_time("queued_through")? {
            Some(queued_through) => {
                Ok(Some(LostDeliveries { queued_through, count: row.try_get("count")? }))
            }
            None => Ok(None),
        }
    })
    .await
}

/// Takes deliveries of one queue that lost their messages, oldest first, to publish them again. Each is taken once, by any
/// process, however long that takes.
pub async fn take_lost(
    db: &Database,
    queue: &DeliveryQueue,
    queued_through: Timestamp,
    limit: i64,
) -> Result<Vec<RequeuedDelivery>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* deliveries::take_lost */
            WITH lost AS MATERIALIZED (
                SELECT event_id, destination FROM deliveries
                WHERE integration_id = $1 AND destination = $2 AND finished_at IS NULL
                    AND queued_at <= $3
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
        .bind(queue.integration_id.uuid())
        .bind(&queue.destination)
        .bind(queued_through.to_sqlx())
        .bind(limit)
        .fetch_all(db.pool())
        .await?;
        rows.iter().map(requeued).collect()
    })
    .await
}
