//! Replay requests. Who changes them is `store/replay.rs`.

use jiff_sqlx::Timestamp;
use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::instant::id_floor;
use super::page::{Page, PageRequest, Position, Total};
use super::snapshot::Snapshot;
use super::{CLOCK_SLACK_MILLISECONDS, Instant, known};
use crate::database::Database;
use crate::error::Result;

/// An operator's request to deliver an event again.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayRequest {
    pub id: Uuid,
    pub event_id: Uuid,
    /// The only destination that is delivered to; null is all of the event's.
    #[schema(required)]
    pub destination: Option<String>,
    pub requested_by: String,
    pub reason: String,
    pub status: ReplayStatus,
    pub created_at: Instant,
    /// When the request was completed or failed.
    #[schema(required)]
    pub processed_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
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
    pub const ALL: [Self; 4] = [Self::Queued, Self::Dispatched, Self::Completed, Self::Failed];

    /// As the API and the statements have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Dispatched => "dispatched",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct ReplayFilter {
    pub event_id: Option<Uuid>,
    pub status: Option<ReplayStatus>,
}

macro_rules! columns {
    () => {
        "r.id, r.event_id, r.destination, r.requested_by, r.reason, r.status::text AS status, r.created_at,
        r.processed_at"
    };
}

// $1 the event, $2 the smallest id that a replay of it can have, $3 the status. Unfinished requests have an index,
// which a comparison with a literal leads the planner to.
macro_rules! filters {
    () => {
        "($1::uuid IS NULL OR r.event_id = $1 AND r.id >= $2)
        AND ($3::text IS NULL OR r.status::text = $3)
        AND ($3::text IS NULL OR $3 NOT IN ('queued', 'dispatched') OR r.status IN ('queued', 'dispatched'))"
    };
}

const LIST: &str = concat!(
    "/* views::list_replay_requests */ SELECT ",
    columns!(),
    " FROM replay_requests r WHERE ",
    filters!(),
    " AND ($4::uuid IS NULL OR r.id < $4) ORDER BY r.id DESC LIMIT $5 OFFSET $6"
);

const COUNT: &str = concat!(
    "/* views::count_replay_requests */ SELECT count(*) FROM (SELECT FROM replay_requests r WHERE ",
    filters!(),
    " LIMIT 10001) AS counted"
);

/// One page of replay requests, the latest first.
pub async fn list_replay_requests(
    db: &Database,
    filter: &ReplayFilter,
    request: PageRequest,
) -> Result<Page<ReplayRequest>> {
    db.bounded(async {
        let oldest = filter.event_id.map(|event_id| id_floor(event_id, CLOCK_SLACK_MILLISECONDS));
        let status = filter.status.map(ReplayStatus::as_str);
        let mut snapshot = Snapshot::take(db).await?;
        let rows = sqlx::query(LIST)
            .bind(filter.event_id)
            .bind(oldest)
            .bind(status)
            .bind(request.after_id())
            .bind(request.limit())
            .bind(request.offset())
            .fetch_all(snapshot.connection())
            .await?;
        let counted = sqlx::query_scalar(COUNT)
            .bind(filter.event_id)
            .bind(oldest)
            .bind(status)
            .fetch_one(snapshot.connection())
            .await?;
        snapshot.release().await?;
        let replays = rows.iter().map(replay_of).collect::<Result<Vec<_>>>()?;
        Ok(request.page(replays, Total::of(counted), |replay| Position { key: 0, id: replay.id }))
    })
    .await
}

const LOAD: &str = concat!(
    "/* views::load_replay_request */ SELECT ",
    columns!(),
    " FROM replay_requests r WHERE r.id = $1"
);

/// One replay request.
pub async fn load_replay_request(db: &Database, id: Uuid) -> Result<Option<ReplayRequest>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let row = sqlx::query(LOAD).bind(id).fetch_optional(snapshot.connection()).await?;
        snapshot.release().await?;
        row.as_ref().map(replay_of).transpose()
    })
    .await
}

fn replay_of(row: &PgRow) -> Result<ReplayRequest> {
    let id: Uuid = row.try_get("id")?;
    let status: &str = row.try_get("status")?;
    let status = ReplayStatus::ALL.into_iter().find(|known| known.as_str() == status);
    let processed_at: Option<Timestamp> = row.try_get("processed_at")?;
    Ok(ReplayRequest {
        id,
        event_id: row.try_get("event_id")?,
        destination: row.try_get("destination")?,
        requested_by: row.try_get("requested_by")?,
        reason: row.try_get("reason")?,
        status: known(status, "replay_requests", "status", id)?,
        created_at: row.try_get::<Timestamp, _>("created_at")?.into(),
        processed_at: processed_at.map(Instant::from),
    })
}
