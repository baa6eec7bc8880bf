//! Deliveries that are held: they wait for their destination, in PostgreSQL and not in its queue.
//!
//! A held delivery is due at a time that never comes. It is behind everything that is due, so holding a million costs nobody else
//! anything, and a version that does not know about it leaves it alone. It is released when its destination can have it.

use grapnel_core::ids::IntegrationId;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::due::{RequeuedDelivery, requeued};
use crate::columns::Columns;
use crate::database::Database;
use crate::error::Result;

/// The `due_at` of a held delivery, exactly as the index deliveries_held has it.
macro_rules! never {
    () => {
        "'9999-01-01 00:00:00+00'::timestamptz"
    };
}
pub(crate) use never;

/// Queues that one look finds; the others are found when these are done.
const MAX_QUEUES: i64 = 10_000;

/// The destination of some deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryQueue {
    pub integration_id: IntegrationId,
    pub destination: String,
}

pub(super) fn delivery_queue(row: &PgRow) -> Result<DeliveryQueue> {
    Ok(DeliveryQueue {
        integration_id: row.id("integration_id", IntegrationId::new)?,
        destination: row.try_get("destination")?,
    })
}

/// A statement that finds the distinct queues of the deliveries for which a condition holds: it jumps from one to the next in the
/// index that has this condition, so its cost grows with the queues and not with the deliveries.
macro_rules! distinct_queues {
    ($name:literal, $($condition:tt)+) => {
        concat!(
            "/* ",
            $name,
            " */
            WITH RECURSIVE queues AS (
                (
                    SELECT integration_id, destination FROM deliveries
                    WHERE ",
            $($condition)+,
            "
                    ORDER BY integration_id, destination LIMIT 1
                )
                UNION ALL
                SELECT next.integration_id, next.destination
                FROM queues CROSS JOIN LATERAL (
                    SELECT d.integration_id, d.destination FROM deliveries d
                    WHERE ",
            $($condition)+,
            " AND (d.integration_id, d.destination) > (queues.integration_id, queues.destination)
                    ORDER BY d.integration_id, d.destination LIMIT 1
                ) AS next
            )
            SELECT integration_id, destination FROM queues LIMIT $1"
        )
    };
}

/// Returns the queues that deliveries are held for.
pub async fn held_queues(db: &Database) -> Result<Vec<DeliveryQueue>> {
    const HELD: &str = distinct_queues!("deliveries::held_queues", concat!("due_at = ", never!()));
    queues(db, HELD).await
}

/// Returns the queues that have unfinished deliveries.
pub async fn open_queues(db: &Database) -> Result<Vec<DeliveryQueue>> {
    const OPEN: &str = distinct_queues!("deliveries::open_queues", "finished_at IS NULL");
    queues(db, OPEN).await
}

async fn queues(db: &Database, statement: &'static str) -> Result<Vec<DeliveryQueue>> {
    db.bounded(async {
        let rows = sqlx::query(statement).bind(MAX_QUEUES).fetch_all(db.pool()).await?;
        rows.iter().map(delivery_queue).collect()
    })
    .await
}

/// Releases held deliveries of a queue, oldest first: they are marked as queued, and are to be published.
pub async fn release(db: &Database, queue: &DeliveryQueue, limit: i64) -> Result<Vec<RequeuedDelivery>> {
    db.bounded(async {
        let rows = sqlx::query(concat!(
            "/* deliveries::release */
            WITH released AS MATERIALIZED (
                SELECT event_id, destination FROM deliveries
                WHERE integration_id = $1 AND destination = $2 AND due_at = ",
            never!(),
            "
                ORDER BY event_id
                LIMIT $3
                FOR UPDATE SKIP LOCKED
            )
            UPDATE deliveries d
            SET queued_at = now(), due_at = NULL, updated_at = now()
            FROM released
            WHERE d.event_id = released.event_id AND d.destination = released.destination
                AND d.event_id = ANY(ARRAY(SELECT event_id FROM released))
            RETURNING d.integration_id, d.destination, d.event_id, d.replay_request_id"
        ))
        .bind(queue.integration_id.uuid())
        .bind(&queue.destination)
        .bind(limit)
        .fetch_all(db.pool())
        .await?;
        rows.iter().map(requeued).collect()
    })
    .await
}
