//! How much waited at one integration and how many workers it had over time, for charts.

use std::time::Duration;

use grapnel_core::ids::IntegrationId;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::snapshot::Snapshot;
use crate::database::Database;
use crate::error::Result;
use crate::worker_minutes::LONGEST_GAP;

/// The most of one part of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerPart {
    /// Its number in the window.
    pub number: usize,
    /// Absent where it could not be read.
    pub backlog: Option<i64>,
    pub desired: Option<i32>,
    pub ready: Option<i32>,
}

// A row holds until the next one, for a time ($5) after its minute, and not beyond now. $4: how many parts there are.
const PARTS: &str = "/* views::worker_series */
    SELECT part, max(backlog) AS backlog, max(desired_workers) AS desired_workers, max(ready_workers) AS ready_workers
    FROM (
        SELECT backlog, desired_workers, ready_workers, extract(epoch FROM minute - $2::timestamptz) AS begins,
            extract(epoch FROM LEAST(
                lead(minute) OVER (ORDER BY minute), minute + interval '1 minute' + $5::float8 * interval '1 second', now()
            ) - $2) AS ends
        FROM worker_minutes WHERE integration_id = $1 AND minute >= $2 - interval '1 minute' - $5 * interval '1 second'
    ) AS known, LATERAL generate_series(
        GREATEST(floor(begins / $3::float8)::int, 0), LEAST(ceil(ends / $3)::int, $4::int) - 1
    ) AS part
    GROUP BY part ORDER BY part";

/// Reads how it was since the beginning of a minute, in `count` parts of this length; those of which nothing was reported are missing.
pub async fn load_worker_series(
    db: &Database,
    id: IntegrationId,
    since: Timestamp,
    part: Duration,
    count: usize,
) -> Result<Vec<WorkerPart>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let rows = sqlx::query(PARTS)
            .bind(id.uuid())
            .bind(since.to_sqlx())
            .bind(part.as_secs_f64())
            .bind(i32::try_from(count).unwrap_or(i32::MAX))
            .bind(LONGEST_GAP.as_secs_f64())
            .fetch_all(snapshot.connection())
            .await?;
        snapshot.release().await?;
        let part = |row: &PgRow| {
            Ok(WorkerPart {
                number: usize::try_from(row.try_get::<i32, _>("part")?).unwrap_or(0),
                backlog: row.try_get("backlog")?,
                desired: row.try_get("desired_workers")?,
                ready: row.try_get("ready_workers")?,
            })
        };
        rows.iter().map(part).collect()
    })
    .await
}
