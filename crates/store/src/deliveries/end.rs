//! The end of deliveries that can no longer be sent, because their destination or their integration is gone.

use grapnel_core::ids::{IntegrationId, ReplayId};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::audit::insert_audit_entries;
use crate::database::Database;
use crate::error::Result;

/// The last errors of such deliveries.
pub(crate) const DESTINATION_REMOVED: &str = "the destination was removed";
pub(crate) const INTEGRATION_REMOVED: &str = "the integration was removed";

/// Fails the unfinished deliveries to all destinations but the kept ones, and returns how many. Replays that wait for them
/// are settled too.
pub(crate) async fn end_removed(
    tx: &mut PgConnection,
    id: IntegrationId,
    kept: &[String],
    reason: &str,
) -> Result<i64> {
    let row = sqlx::query(concat!(
        "/* deliveries::end_removed */
        WITH ended AS (
            UPDATE deliveries
            SET status = 'failed', finished_at = now(), due_at = NULL, queued_at = NULL, lease_id = NULL,
                lease_until = NULL, last_error = $3, updated_at = now()
            WHERE integration_id = $1 AND finished_at IS NULL AND destination <> ALL($2)
            RETURNING event_id, destination, replay_request_id
        ), audited AS (
            ",
        insert_audit_entries!(
            "SELECT uuidv7_now(), 'event', event_id, 'event.failed', 'system',
                json_build_object('destination', destination, 'error', $3)
            FROM ended"
        ),
        "
        )
        SELECT count(*) AS count,
            COALESCE(array_agg(DISTINCT replay_request_id) FILTER (WHERE replay_request_id IS NOT NULL), '{}') AS replays
        FROM ended"
    ))
    .bind(id.uuid())
    .bind(kept)
    .bind(reason)
    .fetch_one(&mut *tx)
    .await?;
    let replays: Vec<Uuid> = row.try_get("replays")?;
    crate::replay_settlement::settle_in(tx, &replays.into_iter().map(ReplayId::new).collect::<Vec<_>>())
        .await?;
    Ok(row.try_get("count")?)
}

/// Ends the deliveries to a destination that its integration no longer has, or whose integration is gone; returns whether
/// there was such a reason.
///
/// A write of the integration ends them itself, but an api process that has not read the write yet may store one more
/// event for the old destinations.
pub async fn end_if_removed(db: &Database, id: IntegrationId, destination: &str) -> Result<bool> {
    db.bounded(async {
        let mut tx = db.pool().begin().await?;
        let configured = crate::destinations::lock(&mut tx, id).await?.map(|destinations| destinations.names);
        match configured {
            Some(kept) if kept.iter().any(|name| name == destination) => return Ok(false),
            Some(kept) => end_removed(&mut tx, id, &kept, DESTINATION_REMOVED).await?,
            None => end_removed(&mut tx, id, &[], INTEGRATION_REMOVED).await?,
        };
        tx.commit().await?;
        Ok(true)
    })
    .await
}
