//! Takes deliveries over whose claimant is dead, before their leases end.

use grapnel_core::ids::ClaimantId;

use super::due::{MAX_READ, RequeuedDelivery, requeued};
use super::held::DeliveryQueue;
use crate::database::Database;
use crate::error::Result;

/// Ends the leases that these claimants hold on deliveries of one queue: they are marked as queued, and are to be published. A result
/// that comes later is refused. Fewer than `limit` mean that there are no more.
///
/// No index has the leases, since each claim would have to write to it. What a worker holds was taken from the front of the queue, so
/// it is among the oldest unfinished deliveries, unless many older ones are held; then it waits for the end of its lease.
pub async fn take_abandoned(
    db: &Database,
    queue: &DeliveryQueue,
    claimants: &[ClaimantId],
    limit: i64,
) -> Result<Vec<RequeuedDelivery>> {
    let (lowest, highest): (Vec<_>, Vec<_>) = claimants
        .iter()
        .map(|claimant| claimant.leases())
        .map(|(lowest, highest)| (lowest.uuid(), highest.uuid()))
        .unzip();
    db.bounded(async {
        let rows = sqlx::query(
            "/* deliveries::take_abandoned */
            WITH abandoned AS MATERIALIZED (
                SELECT d.event_id, d.destination, d.lease_id
                FROM (
                    SELECT event_id, destination, lease_id, lease_until FROM deliveries
                    WHERE integration_id = $1 AND destination = $2 AND finished_at IS NULL
                    ORDER BY event_id LIMIT $5
                ) AS d
                JOIN unnest($3::uuid[], $4::uuid[]) AS dead (lowest, highest)
                    ON d.lease_id BETWEEN dead.lowest AND dead.highest AND d.lease_until > now()
                LIMIT $6
            )
            UPDATE deliveries d
            SET queued_at = now(), lease_id = NULL, lease_until = NULL, updated_at = now()
            FROM abandoned
            WHERE d.event_id = abandoned.event_id AND d.destination = abandoned.destination
                AND d.event_id = ANY(ARRAY(SELECT event_id FROM abandoned))
                AND d.lease_id = abandoned.lease_id AND d.lease_until > now()
            RETURNING d.integration_id, d.destination, d.event_id, d.replay_request_id",
        )
        .bind(queue.integration_id.uuid())
        .bind(&queue.destination)
        .bind(lowest)
        .bind(highest)
        .bind(MAX_READ)
        .bind(limit)
        .fetch_all(db.pool())
        .await?;
        rows.iter().map(requeued).collect()
    })
    .await
}
