//! Delivery attempts.

use jiff_sqlx::Timestamp;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use utoipa::ToSchema;
use uuid::Uuid;

use super::page::{Page, PageRequest, Position, Total};
use super::snapshot::Snapshot;
use super::{Instant, known};
use crate::database::Database;
use crate::error::Result;

/// One HTTP request of a delivery.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    pub id: Uuid,
    pub event_id: Uuid,
    pub integration_id: Uuid,
    pub destination: String,
    /// Counts from 1 within the delivery, replays included.
    #[schema(minimum = 1)]
    pub attempt_no: i32,
    pub status: AttemptStatus,
    /// Null when there was no answer.
    #[schema(required)]
    pub http_status: Option<i16>,
    /// The beginning of the receiver's answer.
    #[schema(required)]
    pub response_body: Option<String>,
    #[schema(required)]
    pub error_message: Option<String>,
    #[schema(minimum = 0)]
    pub duration_ms: i32,
    pub created_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttemptStatus {
    Success,
    Failed,
}

/// What a job says of a finished attempt beyond the attempt itself.
#[derive(Debug, Clone)]
pub(super) struct FinishedAttempt {
    pub(super) attempt: Attempt,
    pub(super) triggered_by: String,
    pub(super) scheduled_at: Instant,
    pub(super) started_at: Instant,
}

#[derive(Debug, Clone, Default)]
pub struct AttemptFilter {
    pub event_id: Option<Uuid>,
    pub status: Option<AttemptStatus>,
}

macro_rules! columns {
    () => {
        "a.id, a.event_id, a.integration_id, a.destination, a.attempt_no, a.succeeded, a.http_status,
        a.response_body, a.error_message, a.duration_ms, a.triggered_by, a.scheduled_at, a.started_at"
    };
}

// With the event's id one partition is read, by its primary key. Without it the heads of all partitions are merged
// along the index on the id, or on the id of those that failed.
const LIST: &str = concat!(
    "/* views::list_attempts */ SELECT ",
    columns!(),
    " FROM delivery_attempts a
    WHERE ($1::uuid IS NULL OR a.event_id = $1)
        AND ($2::boolean IS NULL OR a.succeeded = $2)
        AND ($3::uuid IS NULL OR a.id < $3)
    ORDER BY a.id DESC LIMIT $4 OFFSET $5"
);

const COUNT: &str = "/* views::count_attempts */
    SELECT count(*) FROM (
        SELECT FROM delivery_attempts a
        WHERE ($1::uuid IS NULL OR a.event_id = $1) AND ($2::boolean IS NULL OR a.succeeded = $2)
        LIMIT 10001
    ) AS counted";

/// One page of attempts, the latest first.
pub async fn list_attempts(
    db: &Database,
    filter: &AttemptFilter,
    request: PageRequest,
) -> Result<Page<Attempt>> {
    db.bounded(async {
        let succeeded = filter.status.map(|status| status == AttemptStatus::Success);
        let mut snapshot = Snapshot::take(db).await?;
        let rows = sqlx::query(LIST)
            .bind(filter.event_id)
            .bind(succeeded)
            .bind(request.after_id())
            .bind(request.limit())
            .bind(request.offset())
            .fetch_all(snapshot.connection())
            .await?;
        let counted = sqlx::query_scalar(COUNT)
            .bind(filter.event_id)
            .bind(succeeded)
            .fetch_one(snapshot.connection())
            .await?;
        snapshot.release().await?;
        let attempts = rows.iter().map(|row| Ok(attempt_of(row)?.attempt)).collect::<Result<Vec<_>>>()?;
        Ok(request.page(attempts, Total::of(counted), |attempt| Position { key: 0, id: attempt.id }))
    })
    .await
}

const OF_EVENT: &str = concat!(
    "/* views::attempts_of_event */ SELECT ",
    columns!(),
    " FROM delivery_attempts a WHERE a.event_id = $1 ORDER BY a.id DESC LIMIT $2"
);

/// The latest attempts of an event, in the order in which they were made.
pub(super) async fn attempts_of_event(
    connection: &mut PgConnection,
    event_id: Uuid,
    limit: i64,
) -> Result<Vec<FinishedAttempt>> {
    let rows = sqlx::query(OF_EVENT).bind(event_id).bind(limit).fetch_all(connection).await?;
    rows.iter().rev().map(attempt_of).collect()
}

fn attempt_of(row: &PgRow) -> Result<FinishedAttempt> {
    let id: Uuid = row.try_get("id")?;
    let succeeded: bool = row.try_get("succeeded")?;
    Ok(FinishedAttempt {
        attempt: Attempt {
            id,
            event_id: row.try_get("event_id")?,
            integration_id: row.try_get("integration_id")?,
            destination: row.try_get("destination")?,
            attempt_no: row.try_get("attempt_no")?,
            status: if succeeded { AttemptStatus::Success } else { AttemptStatus::Failed },
            http_status: row.try_get("http_status")?,
            response_body: row.try_get("response_body")?,
            error_message: row.try_get("error_message")?,
            duration_ms: row.try_get("duration_ms")?,
            // The list is in the order of the ids, so their time is the one to show.
            created_at: known(Instant::of_id(id), "delivery_attempts", "id", id)?,
        },
        triggered_by: row.try_get("triggered_by")?,
        scheduled_at: row.try_get::<Timestamp, _>("scheduled_at")?.into(),
        started_at: row.try_get::<Timestamp, _>("started_at")?.into(),
    })
}
