//! The end of deliveries that can no longer be sent, a batch at a time.

use grapnel_core::ids::{EventId, ReplayId};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row};
use uuid::Uuid;

use crate::error::Result;

/// The last errors of such deliveries.
pub(crate) const DESTINATION_REMOVED: &str = "the destination was removed";
pub(crate) const INTEGRATION_REMOVED: &str = "the integration was removed";
pub(crate) const EVENT_ERASED: &str = "the event was erased";
pub(crate) const RETENTION_ENDED: &str = "the retention of the event ended before it was delivered";

/// A batch of deliveries that has ended.
pub(crate) struct EndedBatch {
    /// The deliveries that were selected, those that have finished meanwhile included.
    pub(crate) selected: i64,
    pub(crate) ended: i64,
    /// The last one that was selected, in the order of destination and event.
    pub(crate) last: Option<(String, EventId)>,
}

/// The statement that fails a selection of unfinished deliveries (`event_id`, `destination`), with an audit entry for each. `$1`
/// is the reason.
///
/// It does not say `finished_at IS NULL`: the planner would read the index deliveries_open instead of the primary key.
macro_rules! end_deliveries {
    ($function:literal, $select:expr) => {
        concat!(
            "/* ",
            $function,
            " */
            WITH selected AS MATERIALIZED (
                ",
            $select,
            "
            ), ended AS (
                UPDATE deliveries d
                SET status = 'failed', finished_at = now(), due_at = NULL, queued_at = NULL, lease_id = NULL,
                    lease_until = NULL, last_error = $1, updated_at = now()
                FROM selected s
                WHERE d.event_id = s.event_id AND d.destination = s.destination
                    AND d.event_id = ANY(ARRAY(SELECT event_id FROM selected))
                    AND d.status NOT IN ('succeeded', 'failed')
                RETURNING d.event_id, d.destination, d.replay_request_id
            ), audited AS (
                ",
            $crate::audit::insert_audit_entries!(
                "SELECT uuidv7_now(), 'event', event_id, 'event.failed', 'system',
                    json_build_object('destination', destination, 'error', $1::text)
                FROM ended"
            ),
            "
            )
            SELECT (SELECT count(*) FROM selected) AS selected, count(*) AS ended,
                (SELECT destination FROM selected ORDER BY destination DESC, event_id DESC LIMIT 1) AS last_destination,
                (SELECT event_id FROM selected ORDER BY destination DESC, event_id DESC LIMIT 1) AS last_event,
                COALESCE(array_agg(DISTINCT replay_request_id) FILTER (WHERE replay_request_id IS NOT NULL), '{}')
                    AS replays
            FROM ended"
        )
    };
}
pub(crate) use end_deliveries;

/// Runs such a statement and settles the replays that waited for the deliveries.
pub(crate) async fn run_end(
    tx: &mut PgConnection,
    statement: Query<'_, Postgres, PgArguments>,
) -> Result<EndedBatch> {
    let row = statement.fetch_one(&mut *tx).await?;
    let replays: Vec<Uuid> = row.try_get("replays")?;
    let replays: Vec<ReplayId> = replays.into_iter().map(ReplayId::new).collect();
    crate::replay_settlement::settle_in(tx, &replays).await?;
    Ok(EndedBatch { selected: row.try_get("selected")?, ended: row.try_get("ended")?, last: last(&row)? })
}

fn last(row: &PgRow) -> Result<Option<(String, EventId)>> {
    let destination: Option<String> = row.try_get("last_destination")?;
    let event: Option<Uuid> = row.try_get("last_event")?;
    Ok(destination.zip(event.map(EventId::new)))
}
