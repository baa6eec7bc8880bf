//! Processing jobs: what was, is and will be attempted for an event. There is no such table; they are a projection.
//!
//! Each attempt is a job that succeeded or failed, under the attempt's id. Each unfinished delivery is one more job for
//! the attempt that comes next: `running` while the delivery is `processing`, else `queued`, be it in the broker or
//! waiting for its time. Its id is made of what it stands for (event, destination, attempt number), so it stays the same
//! until the attempt is recorded and takes its place under an id of its own.

use grapnel_crds::names::queue_name;
use jiff::SignedDuration;
use jiff_sqlx::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, Row};
use utoipa::ToSchema;
use uuid::{Builder, Uuid};

use super::Instant;
use super::attempts::{AttemptStatus, FinishedAttempt};
use crate::error::Result;

/// A scheduled, running or finished attempt.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessingJob {
    /// The attempt's id once it is finished; before, an id made of event, destination and attempt number.
    pub id: Uuid,
    pub event_id: Uuid,
    pub destination: String,
    pub queue_name: String,
    /// `webhook`, `retry` or `replay`.
    #[schema(pattern = "^(webhook|retry|replay)$")]
    pub triggered_by: String,
    pub status: JobStatus,
    #[schema(minimum = 1)]
    pub attempt_no: i32,
    pub scheduled_at: Instant,
    #[schema(required)]
    pub started_at: Option<Instant>,
    #[schema(required)]
    pub completed_at: Option<Instant>,
    #[schema(required)]
    pub error_message: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    Queued,
    Running,
    Succeeded,
    Failed,
}

// An event has at most 16 deliveries. What waits in the broker was scheduled when it was queued.
const UNFINISHED: &str = "/* views::unfinished_jobs */
    SELECT destination, integration_id, status = 'processing' AS is_running, attempts + 1 AS attempt_no, triggered_by,
        COALESCE(due_at, queued_at, updated_at) AS scheduled_at, started_at
    FROM deliveries WHERE event_id = $1 AND finished_at IS NULL ORDER BY destination";

/// All jobs of an event: the finished ones in the order of their attempts, then the unfinished ones.
pub(super) async fn jobs_of_event(
    connection: &mut PgConnection,
    queue_prefix: &str,
    event_id: Uuid,
    attempts: &[FinishedAttempt],
) -> Result<Vec<ProcessingJob>> {
    let rows = sqlx::query(UNFINISHED).bind(event_id).fetch_all(connection).await?;
    let mut jobs: Vec<_> = attempts.iter().map(|finished| finished_job(queue_prefix, finished)).collect();
    for row in &rows {
        let destination: String = row.try_get("destination")?;
        let attempt_no: i32 = row.try_get("attempt_no")?;
        let is_running: bool = row.try_get("is_running")?;
        let started_at: Option<Timestamp> = row.try_get("started_at")?;
        jobs.push(ProcessingJob {
            id: unfinished_job_id(event_id, &destination, attempt_no),
            event_id,
            queue_name: queue_name(queue_prefix, row.try_get::<Uuid, _>("integration_id")?, &destination),
            destination,
            triggered_by: row.try_get("triggered_by")?,
            status: if is_running { JobStatus::Running } else { JobStatus::Queued },
            attempt_no,
            scheduled_at: row.try_get::<Timestamp, _>("scheduled_at")?.into(),
            started_at: started_at.filter(|_| is_running).map(Instant::from),
            completed_at: None,
            error_message: None,
        });
    }
    Ok(jobs)
}

fn finished_job(queue_prefix: &str, finished: &FinishedAttempt) -> ProcessingJob {
    let attempt = &finished.attempt;
    let duration = SignedDuration::from_millis(i64::from(attempt.duration_ms));
    ProcessingJob {
        id: attempt.id,
        event_id: attempt.event_id,
        destination: attempt.destination.clone(),
        queue_name: queue_name(queue_prefix, attempt.integration_id, &attempt.destination),
        triggered_by: finished.triggered_by.clone(),
        status: match attempt.status {
            AttemptStatus::Success => JobStatus::Succeeded,
            AttemptStatus::Failed => JobStatus::Failed,
        },
        attempt_no: attempt.attempt_no,
        scheduled_at: finished.scheduled_at,
        started_at: Some(finished.started_at),
        completed_at: finished.started_at.0.checked_add(duration).ok().map(Instant),
        error_message: attempt.error_message.clone(),
    }
}

/// A version 8 UUID (RFC 9562, section 5.8) of the SHA-256 of the three. A destination's name has no slash.
fn unfinished_job_id(event_id: Uuid, destination: &str, attempt_no: i32) -> Uuid {
    let digest = Sha256::digest(format!("grapnel.dev/job/{event_id}/{destination}/{attempt_no}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_job_id_stands_for_one_attempt() {
        let id = unfinished_job_id(Uuid::nil(), "orders", 1);
        assert_eq!(id, unfinished_job_id(Uuid::nil(), "orders", 1));
        assert_eq!(id.get_version_num(), 8);
        assert_ne!(id, unfinished_job_id(Uuid::nil(), "orders", 2));
        assert_ne!(id, unfinished_job_id(Uuid::nil(), "orders-1", 1));
        assert_ne!(id, unfinished_job_id(Uuid::max(), "orders", 1));
    }
}
