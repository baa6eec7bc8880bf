//! The traffic of one integration over time, for charts.

use std::time::Duration;

use grapnel_core::ids::IntegrationId;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::snapshot::Snapshot;
use crate::database::Database;
use crate::error::Result;

/// What happened in one part of a window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeriesPart {
    /// Its number in the window.
    pub number: usize,
    pub accepted: i64,
    pub refused: i64,
    pub delivered: i64,
    pub failed: i64,
    /// Attempts by duration, in the buckets of those who count them.
    pub durations: Vec<i64>,
}

const COUNTS: &str = "/* views::series_counts */
    SELECT floor(extract(epoch FROM minute - $2::timestamptz) / $3)::int AS part, sum(accepted) AS accepted, sum(refused) AS refused,
        sum(delivered) AS delivered, sum(failed) AS failed
    FROM traffic_minutes WHERE integration_id = $1 AND minute >= $2 GROUP BY 1 ORDER BY 1";

const DURATIONS: &str = "/* views::series_durations */
    SELECT part, array_agg(attempts ORDER BY number) AS durations
    FROM (
        SELECT floor(extract(epoch FROM minute - $2::timestamptz) / $3)::int AS part, bucket.number, sum(bucket.attempts) AS attempts
        FROM traffic_minutes, unnest(durations) WITH ORDINALITY AS bucket (attempts, number)
        WHERE integration_id = $1 AND minute >= $2
        GROUP BY 1, 2
    ) AS buckets
    GROUP BY part ORDER BY part";

/// Reads what happened to an integration since the beginning of a minute, in parts of this length; those without traffic are missing.
pub async fn load_series(
    db: &Database,
    id: IntegrationId,
    since: Timestamp,
    part: Duration,
) -> Result<Vec<SeriesPart>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let bound =
            |statement| sqlx::query(statement).bind(id.uuid()).bind(since.to_sqlx()).bind(part.as_secs_f64());
        let counts = bound(COUNTS).fetch_all(snapshot.connection()).await?;
        let durations = bound(DURATIONS).fetch_all(snapshot.connection()).await?;
        snapshot.release().await?;
        let number = |row: &PgRow| -> Result<usize> {
            Ok(usize::try_from(row.try_get::<i32, _>("part")?).unwrap_or(0))
        };
        let mut parts = Vec::with_capacity(counts.len());
        for row in &counts {
            parts.push(SeriesPart {
                number: number(row)?,
                accepted: row.try_get("accepted")?,
                refused: row.try_get("refused")?,
                delivered: row.try_get("delivered")?,
                failed: row.try_get("failed")?,
                durations: Vec::new(),
            });
        }
        for row in &durations {
            let number = number(row)?;
            if let Some(part) = parts.iter_mut().find(|part| part.number == number) {
                part.durations = row.try_get("durations")?;
            }
        }
        Ok(parts)
    })
    .await
}
