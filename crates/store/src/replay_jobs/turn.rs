//! A turn of the feeder: what has become of what a job has fed, and whether it goes on.
//!
//! A job whose row is locked is skipped: somebody else feeds it, or asks something of it.

mod look;
mod end;

use std::collections::HashMap;
use std::time::Duration;

use grapnel_core::ids::{IntegrationId, ReplayJobId};
use grapnel_core::replay::ReplayState;
use grapnel_core::replay::pace::{self, RecentAttempts};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use self::end::{end_waiting, next_state};
use self::look::{Ends, look};
use super::{ReplayJob, read};
use crate::columns::Columns;
use crate::database::Database;
use crate::error::Result;

pub(super) use self::end::{LIMIT_REACHED, set_state};

/// Nobody waits for these locks but another feeder.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '500ms'";

/// What may be fed of a job now.
#[derive(Debug, Clone)]
pub struct Turn {
    pub job: ReplayJob,
    /// How many deliveries its rate and its limit allow.
    pub allowed: u64,
    /// Whether it has fed as many as it may ever feed.
    pub is_at_limit: bool,
    /// Its destinations that are not done.
    pub destinations: Vec<DestinationPosition>,
}

/// How far a job is with one of its destinations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationPosition {
    pub integration_id: IntegrationId,
    pub name: String,
    pub cursor: Option<Uuid>,
    /// Deliveries of all replays that are under way to it.
    pub under_way: usize,
}

/// Returns the jobs that have not ended, the oldest first.
pub async fn unfinished(db: &Database) -> Result<Vec<ReplayJobId>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* replay_jobs::unfinished */ SELECT id FROM replay_jobs WHERE finished_at IS NULL ORDER BY id",
        )
        .fetch_all(db.pool())
        .await?;
        rows.iter().map(|row| Ok(row.id("id", ReplayJobId::new)?)).collect()
    })
    .await
}

/// Counts what has ended of a job, and returns what may be fed of it; `None` when nothing may, or another has it.
pub async fn take_turn(db: &Database, id: ReplayJobId) -> Result<Option<Turn>> {
    db.bounded(async {
        let mut tx = db.begin(BEGIN).await?;
        let Some(locked) = lock(&mut tx, id).await? else { return Ok(None) };
        let Locked { job, since, credit, mut recent } = locked;
        if job.state == ReplayState::Cancelling {
            end_waiting(&mut tx, id).await?;
        }
        let ends = look(&mut tx, id, &mut recent).await?;
        let credit = match job.state.is_feeding() {
            true => pace::credit(credit, since, job.rate_per_second),
            false => 0.0,
        };
        if job.state.is_feeding() || ends != Ends::default() {
            write(&mut tx, id, &ends, credit, recent).await?;
        }
        let state = next_state(&mut tx, &job, recent).await?;
        let turn = match state {
            state if state.is_feeding() => Some(turn(&mut tx, job, credit).await?),
            _ => None,
        };
        tx.commit().await?;
        Ok(turn)
    })
    .await
}

struct Locked {
    job: ReplayJob,
    /// The time since its credit was reckoned.
    since: Duration,
    credit: f64,
    recent: RecentAttempts,
}

async fn lock(tx: &mut PgConnection, id: ReplayJobId) -> Result<Option<Locked>> {
    let row = sqlx::query(concat!(
        "/* replay_jobs::turn::lock */
        SELECT ",
        read::columns!(),
        ", j.credit, j.recent_attempts,
            COALESCE(extract(epoch FROM now() - j.credited_at), 0)::float8 AS since
        FROM replay_jobs j WHERE j.id = $1 AND j.finished_at IS NULL FOR UPDATE SKIP LOCKED"
    ))
    .bind(id.uuid())
    .fetch_optional(tx)
    .await?;
    let locked = |row: PgRow| {
        Ok(Locked {
            job: read::replay_job(&row)?,
            since: Duration::from_secs_f64(row.try_get::<f64, _>("since")?.clamp(0.0, 3600.0)),
            credit: row.try_get("credit")?,
            recent: RecentAttempts::from_stored(row.try_get("recent_attempts")?),
        })
    };
    row.map(locked).transpose()
}

async fn write(
    tx: &mut PgConnection,
    id: ReplayJobId,
    ends: &Ends,
    credit: f64,
    recent: RecentAttempts,
) -> Result<()> {
    sqlx::query(
        "/* replay_jobs::turn::write */
        UPDATE replay_jobs
        SET succeeded = succeeded + $2, failed = failed + $3, credit = $4, credited_at = now(), recent_attempts = $5,
            updated_at = CASE WHEN $2 + $3 > 0 THEN now() ELSE updated_at END
        WHERE id = $1",
    )
    .bind(id.uuid())
    .bind(ends.succeeded)
    .bind(ends.failed)
    .bind(credit)
    .bind(recent.stored())
    .execute(tx)
    .await?;
    Ok(())
}

async fn turn(tx: &mut PgConnection, job: ReplayJob, credit: f64) -> Result<Turn> {
    let rows = sqlx::query(
        "/* replay_jobs::turn::destinations */
        SELECT integration_id, destination, cursor_event FROM replay_destinations
        WHERE job_id = $1 AND NOT is_done
        ORDER BY integration_id, destination",
    )
    .bind(job.id.uuid())
    .fetch_all(&mut *tx)
    .await?;
    let under_way = under_way(tx).await?;
    let position = |row: &PgRow| -> Result<DestinationPosition> {
        let key = (row.id("integration_id", IntegrationId::new)?, row.try_get("destination")?);
        let under_way = under_way.get(&key).copied().unwrap_or_default();
        let (integration_id, name) = key;
        Ok(DestinationPosition { integration_id, name, cursor: row.try_get("cursor_event")?, under_way })
    };
    let destinations = rows.iter().map(position).collect::<Result<Vec<_>>>()?;
    let left = job.spec.max_deliveries.saturating_sub(job.counters.fed);
    // Whole deliveries, and never a negative number of them.
    let allowed = left.min(credit.max(0.0) as u64);
    Ok(Turn { allowed, is_at_limit: left == 0, job, destinations })
}

/// Counts the deliveries of all replays that are under way, by destination. Those that wait for a retry are not.
async fn under_way(tx: &mut PgConnection) -> Result<HashMap<(IntegrationId, String), usize>> {
    let rows = sqlx::query(
        "/* replay_jobs::turn::under_way */
        SELECT r.integration_id, r.destination, count(*) AS under_way
        FROM replay_jobs j JOIN replay_deliveries r ON r.job_id = j.id AND r.look_at <= now()
        WHERE j.finished_at IS NULL
        GROUP BY r.integration_id, r.destination",
    )
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            let key = (row.id("integration_id", IntegrationId::new)?, row.try_get("destination")?);
            Ok((key, usize::try_from(row.try_get::<i64, _>("under_way")?).unwrap_or_default()))
        })
        .collect()
}
