//! The end of a job: what it leaves when it is cancelled, and when it has nothing left to do or pauses itself.

use grapnel_core::ids::ReplayJobId;
use grapnel_core::replay::ReplayState;
use grapnel_core::replay::pace::{RECENT_ATTEMPTS, RecentAttempts};
use sqlx::{PgConnection, Row};

use crate::audit::insert_audit_entries;
use crate::deliveries::end::{end_deliveries, run_end};
use crate::error::Result;
use crate::replay_jobs::ReplayJob;

/// Why a job paused itself, or failed.
const TOO_MANY_FAILURES: &str = "TooManyFailures";
pub(in crate::replay_jobs) const LIMIT_REACHED: &str = "LimitReached";

/// Deliveries of a cancelled job that one turn ends.
const END_BATCH: i64 = 500;

/// The last error of a delivery that waited for a retry when its job was cancelled.
const CANCELLED: &str = "the replay was cancelled";

/// Ends a job that has nothing left to do, or pauses one whose attempts mostly fail. Returns the state that it is in then.
pub(super) async fn next_state(
    tx: &mut PgConnection,
    job: &ReplayJob,
    recent: RecentAttempts,
) -> Result<ReplayState> {
    let row = sqlx::query(
        "/* replay_jobs::turn::what_is_left */
        SELECT EXISTS (SELECT FROM replay_deliveries WHERE job_id = $1) AS is_under_way,
            EXISTS (SELECT FROM replay_destinations WHERE job_id = $1 AND NOT is_done) AS has_more",
    )
    .bind(job.id.uuid())
    .fetch_one(&mut *tx)
    .await?;
    let is_idle = !row.try_get::<bool, _>("is_under_way")?;
    let is_over = is_idle && !row.try_get::<bool, _>("has_more")?;
    let failures = recent.failures();
    let (state, reason, message) = match job.state {
        ReplayState::Cancelling if is_idle => (ReplayState::Cancelled, None, None),
        state if state.is_feeding() && is_over => match job.state_reason.as_deref() {
            Some(LIMIT_REACHED) => (ReplayState::Failed, job.state_reason.clone(), job.state_message.clone()),
            _ => (ReplayState::Completed, None, None),
        },
        state if state.is_feeding() && recent.are_mostly_failures() => {
            let message = format!("{failures} of the last {RECENT_ATTEMPTS} attempts failed");
            (ReplayState::Paused, Some(TOO_MANY_FAILURES.to_owned()), Some(message))
        }
        state => return Ok(state),
    };
    set_state(tx, job.id, state, reason.as_deref(), message.as_deref()).await?;
    Ok(state)
}

/// Sets a state that nobody asked for.
pub(in crate::replay_jobs) async fn set_state(
    tx: &mut PgConnection,
    id: ReplayJobId,
    state: ReplayState,
    reason: Option<&str>,
    message: Option<&str>,
) -> Result<()> {
    let action = if state == ReplayState::Paused { "replay.paused" } else { "replay.finished" };
    sqlx::query(concat!(
        "/* replay_jobs::turn::set_state */
        WITH changed AS (
            UPDATE replay_jobs
            SET state = $2, state_reason = $3, state_message = $4, updated_at = now(),
                finished_at = CASE WHEN $5 THEN now() END
            WHERE id = $1
            RETURNING *
        )
        ",
        insert_audit_entries!(
            "SELECT uuidv7_now(), 'integration'::audit_entity, integration_id, $6::text, 'system',
            json_build_object('replayId', id, 'state', state, 'reason', state_reason, 'message', state_message, 'fed', fed,
                'skipped', skipped_unfinished + skipped_succeeded + skipped_gone, 'succeeded', succeeded, 'failed', failed)
        FROM changed, unnest(integration_ids) AS integration_id"
        )
    ))
    .bind(id.uuid())
    .bind(state.as_str())
    .bind(reason)
    .bind(message)
    .bind(state.is_final())
    .bind(action)
    .execute(tx)
    .await?;
    Ok(())
}

/// Ends deliveries that wait for a retry, or for their destination: they had ended before the replay.
pub(super) async fn end_waiting(tx: &mut PgConnection, id: ReplayJobId) -> Result<()> {
    let statement = sqlx::query(end_deliveries!(
        "replay_jobs::turn::end_waiting",
        "SELECT d.event_id, d.destination FROM replay_deliveries r
                JOIN deliveries d ON d.event_id = r.event_id AND d.destination = r.destination
                WHERE r.job_id = $2 AND d.due_at > now()
                LIMIT $3 FOR UPDATE OF d"
    ))
    .bind(CANCELLED)
    .bind(id.uuid())
    .bind(END_BATCH);
    let batch = run_end(tx, statement).await?;
    if batch.selected > 0 {
        sqlx::query(
            "/* replay_jobs::turn::look_again */
            UPDATE replay_deliveries r SET look_at = now()
            FROM deliveries d
            WHERE r.job_id = $1 AND r.look_at > now()
                AND d.event_id = r.event_id AND d.destination = r.destination AND d.finished_at IS NOT NULL",
        )
        .bind(id.uuid())
        .execute(tx)
        .await?;
    }
    Ok(())
}
