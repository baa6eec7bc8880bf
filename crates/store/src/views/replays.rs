//! Replay requests. [`crate::replays`] has what changes them.

use grapnel_core::ids::{EventId, IntegrationId, ReplayId};
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::CLOCK_SKEW_MILLISECONDS;
use super::id_time::id_floor;
use super::list_page::{ListStatements, list_page};
use super::owners::bare;
use super::page::{Page, PageRequest, Position};
use super::snapshot::Snapshot;
use crate::columns::Columns;
use crate::database::Database;
use crate::error::{Error, Result};

/// An operator's request to deliver an event again.
#[derive(Debug)]
pub struct ReplayRequestRow {
    pub id: ReplayId,
    pub event_id: EventId,
    /// The only destination that is delivered to; `None` is all of the event's.
    pub destination: Option<String>,
    pub requested_by: String,
    pub reason: String,
    pub status: ReplayStatus,
    pub created_at: Timestamp,
    /// When the request was completed or failed.
    pub processed_at: Option<Timestamp>,
}

/// The status of a replay request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayStatus {
    /// Stored; a delivery waits to be handed to its queue.
    Queued,
    /// Every delivery was handed to its queue.
    Dispatched,
    /// Every delivery succeeded.
    Completed,
    /// No delivery is unfinished, and one failed.
    Failed,
}

impl ReplayStatus {
    /// All statuses.
    pub const ALL: [Self; 4] = [Self::Queued, Self::Dispatched, Self::Completed, Self::Failed];

    /// The stored form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Dispatched => "dispatched",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// The requests that a list has. Absent filters restrict nothing.
#[derive(Debug, Clone, Default)]
pub struct ReplayFilter {
    pub event_id: Option<EventId>,
    pub status: Option<ReplayStatus>,
    /// Only of events of these integrations: those that the caller may see.
    pub visible: Option<Vec<IntegrationId>>,
}

// $1 the event, $2 the smallest id that a replay of it can have, $3 the status, $4 the integrations. Unfinished requests have an index; the
// comparison with literals lets the planner prove that it applies.
pub(super) const LIST: ListStatements = ListStatements {
    list: "/* views::list_replay_requests */
        SELECT r.id, r.event_id, r.destination, r.requested_by, r.reason, r.status::text AS status, r.created_at,
            r.processed_at
        FROM replay_requests r
        WHERE ($1::uuid IS NULL OR r.event_id = $1 AND r.id >= $2)
            AND ($3::text IS NULL OR r.status::text = $3)
            AND ($3::text IS NULL OR $3 NOT IN ('queued', 'dispatched') OR r.status IN ('queued', 'dispatched'))
            AND ($4::uuid[] IS NULL OR (SELECT e.integration_id FROM events e WHERE e.id = r.event_id) = ANY($4))
            AND ($5::uuid IS NULL OR r.id < $5)
        ORDER BY r.id DESC LIMIT $6 OFFSET $7",
    count: "/* views::count_replay_requests */
        SELECT count(*) FROM (
            SELECT FROM replay_requests r
            WHERE ($1::uuid IS NULL OR r.event_id = $1 AND r.id >= $2)
                AND ($3::text IS NULL OR r.status::text = $3)
                AND ($3::text IS NULL OR $3 NOT IN ('queued', 'dispatched') OR r.status IN ('queued', 'dispatched'))
                AND ($4::uuid[] IS NULL OR (SELECT e.integration_id FROM events e WHERE e.id = r.event_id) = ANY($4))
            LIMIT 10001
        ) AS counted",
    sorted_by_time: false,
};

/// Reads one page of replay requests, the latest first.
pub async fn list_replay_requests(
    db: &Database,
    filter: &ReplayFilter,
    request: PageRequest,
) -> Result<Page<ReplayRequestRow>> {
    let event_id = filter.event_id.map(EventId::uuid);
    let oldest = event_id.map(|event_id| id_floor(event_id, CLOCK_SKEW_MILLISECONDS));
    let status = filter.status.map(ReplayStatus::as_str);
    list_page(
        db,
        LIST,
        request,
        |statement| statement.bind(event_id).bind(oldest).bind(status).bind(bare(filter.visible.as_deref())),
        replay_request_row,
        |replay| Position { key: 0, id: replay.id.uuid() },
    )
    .await
}

const LOAD: &str = "/* views::load_replay_request */
    SELECT r.id, r.event_id, r.destination, r.requested_by, r.reason, r.status::text AS status, r.created_at,
        r.processed_at
    FROM replay_requests r
    WHERE r.id = $1";

/// Reads one replay request.
pub async fn load_replay_request(db: &Database, id: ReplayId) -> Result<Option<ReplayRequestRow>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let row = sqlx::query(LOAD).bind(id.uuid()).fetch_optional(snapshot.connection()).await?;
        snapshot.release().await?;
        row.as_ref().map(replay_request_row).transpose()
    })
    .await
}

fn replay_request_row(row: &PgRow) -> Result<ReplayRequestRow> {
    let id = row.id("id", ReplayId::new)?;
    let corrupt = || Error::Corrupt { table: "replay_requests", column: "status", id: id.uuid() };
    Ok(ReplayRequestRow {
        id,
        event_id: row.id("event_id", EventId::new)?,
        destination: row.try_get("destination")?,
        requested_by: row.try_get("requested_by")?,
        reason: row.try_get("reason")?,
        status: ReplayStatus::parse(row.try_get("status")?).ok_or_else(corrupt)?,
        created_at: row.time("created_at")?,
        processed_at: row.optional_time("processed_at")?,
    })
}
