//! What operators, and the objects that jobs are made for, ask of a job.

use grapnel_core::ids::ReplayJobId;
use grapnel_core::replay::{DesiredState, ReplayState};
use sqlx::PgConnection;

use super::{ReplayJob, read};
use crate::audit::{Requester, insert_audit_entries};
use crate::database::Database;
use crate::error::Result;

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum RequestOutcome {
    /// The job as it is now.
    Done(Box<ReplayJob>),
    /// The job as it is: what was asked for is no longer possible.
    TooLate(Box<ReplayJob>),
    Unknown,
}

/// Asks a job to go on, to pause or to end. It does so at once; what it has fed goes on. What it does already changes nothing.
pub async fn request_state(
    db: &Database,
    id: ReplayJobId,
    desired: DesiredState,
    requester: &Requester,
) -> Result<RequestOutcome> {
    db.bounded(async {
        let mut tx = db.pool().begin().await?;
        let Some(job) = read::lock(&mut tx, id).await? else { return Ok(RequestOutcome::Unknown) };
        let outcome = request_in(&mut tx, job, desired, requester).await?;
        tx.commit().await?;
        Ok(outcome)
    })
    .await
}

/// Does the same to a job that is locked.
pub(super) async fn request_in(
    tx: &mut PgConnection,
    job: ReplayJob,
    desired: DesiredState,
    requester: &Requester,
) -> Result<RequestOutcome> {
    let Some(next) = job.state.after(desired) else { return Ok(RequestOutcome::TooLate(Box::new(job))) };
    if next == job.state && desired == job.desired_state {
        return Ok(RequestOutcome::Done(Box::new(job)));
    }
    // A job that is resumed is judged by what it does from then on.
    sqlx::query(
        "/* replay_jobs::request_state */
        UPDATE replay_jobs
        SET desired_state = $2, state = $3, state_reason = NULL, state_message = NULL, updated_at = now(),
            recent_attempts = CASE WHEN state = 'Paused' THEN 0 ELSE recent_attempts END,
            credit = CASE WHEN state = 'Paused' THEN 0 ELSE credit END,
            credited_at = CASE WHEN state = 'Paused' THEN now() ELSE credited_at END
        WHERE id = $1",
    )
    .bind(job.id.uuid())
    .bind(desired.as_str())
    .bind(next.as_str())
    .execute(&mut *tx)
    .await?;
    if next != job.state {
        let action = match next {
            ReplayState::Paused => "replay.paused",
            ReplayState::Cancelling => "replay.cancelled",
            _ => "replay.resumed",
        };
        audit(tx, job.id, action, requester, None).await?;
    }
    let job = read::lock(tx, job.id).await?;
    Ok(job.map_or(RequestOutcome::Unknown, |job| RequestOutcome::Done(Box::new(job))))
}

/// Changes the rate of a job, in deliveries per second. The caller has checked it.
pub async fn set_rate(
    db: &Database,
    id: ReplayJobId,
    rate_per_second: u32,
    requester: &Requester,
) -> Result<RequestOutcome> {
    db.bounded(async {
        let mut tx = db.pool().begin().await?;
        let Some(job) = read::lock(&mut tx, id).await? else { return Ok(RequestOutcome::Unknown) };
        let outcome = set_rate_in(&mut tx, job, rate_per_second, requester).await?;
        tx.commit().await?;
        Ok(outcome)
    })
    .await
}

pub(super) async fn set_rate_in(
    tx: &mut PgConnection,
    mut job: ReplayJob,
    rate_per_second: u32,
    requester: &Requester,
) -> Result<RequestOutcome> {
    if job.rate_per_second == rate_per_second {
        return Ok(RequestOutcome::Done(Box::new(job)));
    }
    if job.state.is_final() || job.state == ReplayState::Cancelling {
        return Ok(RequestOutcome::TooLate(Box::new(job)));
    }
    // What was saved up at the old rate is of no use at the new one.
    sqlx::query(
        "/* replay_jobs::set_rate */
        UPDATE replay_jobs SET rate_per_second = $2, credit = 0, updated_at = now() WHERE id = $1",
    )
    .bind(job.id.uuid())
    .bind(rate_per_second.cast_signed())
    .execute(&mut *tx)
    .await?;
    audit(tx, job.id, "replay.rate_changed", requester, Some(rate_per_second)).await?;
    job.rate_per_second = rate_per_second;
    Ok(RequestOutcome::Done(Box::new(job)))
}

async fn audit(
    tx: &mut PgConnection,
    id: ReplayJobId,
    action: &str,
    requester: &Requester,
    rate_per_second: Option<u32>,
) -> Result<()> {
    sqlx::query(concat!(
        "/* replay_jobs::audit */ ",
        insert_audit_entries!(
            "SELECT uuidv7_now(), 'integration'::audit_entity, integration_id, $2::text, $3::text,
            (jsonb_strip_nulls(jsonb_build_object('replayId', j.id, 'ratePerSecond', $5::int)) || $4::jsonb)::json
        FROM replay_jobs j, unnest(j.integration_ids) AS integration_id WHERE j.id = $1"
        )
    ))
    .bind(id.uuid())
    .bind(action)
    .bind(&requester.actor)
    .bind(requester.details())
    .bind(rate_per_second.map(u32::cast_signed))
    .execute(tx)
    .await?;
    Ok(())
}
