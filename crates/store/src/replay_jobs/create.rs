//! The creation of a job.

use grapnel_core::ids::ReplayJobId;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use sqlx::types::Json;

use super::plan::{self, PlannedDestination, ReplayPlan};
use super::{ReplayJob, read};
use crate::audit::{Requester, insert_audit_entries};
use crate::database::Database;
use crate::error::{Error, Result};

/// The jobs that may be unfinished at a time, of everybody: each costs the feeder a look.
const MAX_UNFINISHED: i64 = 200;

/// A replay that is to be created.
#[derive(Debug, Clone)]
pub struct NewReplayJob {
    pub plan: ReplayPlan,
    /// As the caller said.
    pub requested_by: Option<String>,
    /// Who was authenticated.
    pub requester: Requester,
}

/// Creates a job, which begins by itself; `None` when there are too many unfinished ones. It is audited.
pub async fn create(db: &Database, new: &NewReplayJob) -> Result<Option<ReplayJob>> {
    db.bounded(async {
        let mut tx = db.pool().begin().await?;
        let created = create_in(&mut tx, new).await?;
        tx.commit().await?;
        Ok(created)
    })
    .await
}

pub(super) async fn create_in(tx: &mut PgConnection, new: &NewReplayJob) -> Result<Option<ReplayJob>> {
    let unfinished: i64 = sqlx::query_scalar(
        "/* replay_jobs::count_unfinished */ SELECT count(*) FROM replay_jobs WHERE finished_at IS NULL",
    )
    .fetch_one(&mut *tx)
    .await?;
    if unfinished >= MAX_UNFINISHED {
        return Ok(None);
    }
    let id = ReplayJobId::generate();
    insert(tx, id, new).await?;
    insert_destinations(tx, id, &new.plan.destinations).await?;
    let created = read::lock(tx, id).await?;
    let missing = || Error::Corrupt { table: "replay_jobs", column: "id", id: id.uuid() };
    created.map(Some).ok_or_else(missing)
}

/// Deletes jobs that ended so many days ago, and returns how many.
pub async fn forget_ended(db: &Database, days: i32) -> Result<u64> {
    db.bounded(async {
        let done = sqlx::query(
            "/* replay_jobs::forget_ended */ DELETE FROM replay_jobs WHERE finished_at < now() - make_interval(days => $1)",
        )
        .bind(days)
        .execute(db.pool())
        .await?;
        Ok(done.rows_affected())
    })
    .await
}

async fn insert(tx: &mut PgConnection, id: ReplayJobId, new: &NewReplayJob) -> Result<()> {
    let (plan, spec) = (&new.plan, &new.plan.spec);
    sqlx::query(concat!(
        "/* replay_jobs::insert */
        WITH created AS (
            INSERT INTO replay_jobs (
                id, namespace, integration_ids, is_of_namespace, spec, received_after, received_before, rate_per_second,
                max_deliveries, reason, matched, matched_is_exact, requested_by, actor
            )
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
            RETURNING id, integration_ids, spec, matched, matched_is_exact, requested_by, actor
        )
        ",
        insert_audit_entries!(
            "SELECT uuidv7_now(), 'integration'::audit_entity, integration_id, 'replay.created', actor,
            (jsonb_build_object('replayId', id, 'spec', spec, 'matched', matched, 'matchedIsExact', matched_is_exact,
                'requestedBy', requested_by) || $15::jsonb)::json
        FROM created, unnest(integration_ids) AS integration_id"
        )
    ))
    .bind(id.uuid())
    .bind(&plan.namespace)
    .bind(plan.integration_ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
    .bind(plan.is_of_namespace)
    .bind(Json(spec))
    .bind(spec.received_after.map(|time| time.to_sqlx()))
    .bind(spec.received_before.to_sqlx())
    .bind(spec.rate_per_second.cast_signed())
    .bind(spec.max_deliveries.cast_signed())
    .bind(&spec.reason)
    .bind(plan.matched().cast_signed())
    .bind(plan.is_exact)
    .bind(&new.requested_by)
    .bind(&new.requester.actor)
    .bind(new.requester.details())
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_destinations(
    tx: &mut PgConnection,
    id: ReplayJobId,
    destinations: &[PlannedDestination],
) -> Result<()> {
    sqlx::query(
        "/* replay_jobs::insert_destinations */
        INSERT INTO replay_destinations (job_id, integration_id, destination, matched, first_event)
        SELECT $1, * FROM unnest($2::uuid[], $3::text[], $4::bigint[], $5::uuid[])",
    )
    .bind(id.uuid())
    .bind(destinations.iter().map(|one| one.integration_id.uuid()).collect::<Vec<_>>())
    .bind(destinations.iter().map(|one| one.name.as_str()).collect::<Vec<_>>())
    .bind(destinations.iter().map(|one| one.matched.cast_signed()).collect::<Vec<_>>())
    .bind(destinations.iter().map(|one| plan::bare(one.oldest)).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}
