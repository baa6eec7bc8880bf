//! Reads of jobs.

use grapnel_core::ids::{IntegrationId, ReplayJobId};
use grapnel_core::replay::{DesiredState, ReplaySpec, ReplayState};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{ReplayCounters, ReplayJob, ReplaySkips};
use crate::columns::Columns;
use crate::database::Database;
use crate::error::{Error, Result};

/// The columns that [`replay_job`] reads, of `replay_jobs j`.
macro_rules! columns {
    () => {
        "j.id, j.namespace, j.integration_ids, j.is_of_namespace, j.spec, j.rate_per_second, j.desired_state, j.state, j.state_reason,
            j.state_message, j.matched, j.matched_is_exact, j.fed, j.skipped_unfinished, j.skipped_succeeded, j.skipped_gone,
            j.succeeded, j.failed, j.requested_by, j.actor, j.created_at, j.started_at, j.finished_at, j.updated_at,
            j.object_name"
    };
}
pub(crate) use columns;

/// Reads a job.
pub async fn load(db: &Database, id: ReplayJobId) -> Result<Option<ReplayJob>> {
    Ok(load_many(db, &[id]).await?.pop())
}

/// Reads jobs, in no order. Those that are not there are left out.
pub async fn load_many(db: &Database, ids: &[ReplayJobId]) -> Result<Vec<ReplayJob>> {
    db.bounded(async {
        let rows = sqlx::query(concat!(
            "/* replay_jobs::load_many */ SELECT ",
            columns!(),
            " FROM replay_jobs j WHERE j.id = ANY($1)"
        ))
        .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<_>>())
        .fetch_all(db.pool())
        .await?;
        rows.iter().map(replay_job).collect()
    })
    .await
}

/// Reads the job that was made for an object with this uid.
pub async fn find_by_object(db: &Database, uid: Uuid) -> Result<Option<ReplayJob>> {
    db.bounded(async {
        let mut connection = db.pool().acquire().await?;
        find_by_object_in(&mut connection, uid).await
    })
    .await
}

pub(super) async fn find_by_object_in(connection: &mut PgConnection, uid: Uuid) -> Result<Option<ReplayJob>> {
    let row = sqlx::query(concat!(
        "/* replay_jobs::find_by_object */ SELECT ",
        columns!(),
        " FROM replay_jobs j WHERE j.object_uid = $1"
    ))
    .bind(uid)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(replay_job).transpose()
}

/// Locks a job until the transaction ends.
pub(super) async fn lock(connection: &mut PgConnection, id: ReplayJobId) -> Result<Option<ReplayJob>> {
    let row = sqlx::query(concat!(
        "/* replay_jobs::lock */ SELECT ",
        columns!(),
        " FROM replay_jobs j WHERE j.id = $1 FOR UPDATE"
    ))
    .bind(id.uuid())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(replay_job).transpose()
}

/// Reads the [`columns`] of a row.
pub(crate) fn replay_job(row: &PgRow) -> Result<ReplayJob> {
    let id = row.id("id", ReplayJobId::new)?;
    let corrupt = |column| move || Error::Corrupt { table: "replay_jobs", column, id: id.uuid() };
    let Json(spec): Json<ReplaySpec> = row.try_get("spec").map_err(|_| corrupt("spec")())?;
    let integration_ids: Vec<Uuid> = row.try_get("integration_ids")?;
    Ok(ReplayJob {
        id,
        namespace: row.try_get("namespace")?,
        integration_ids: integration_ids.into_iter().map(IntegrationId::new).collect(),
        is_of_namespace: row.try_get("is_of_namespace")?,
        spec,
        rate_per_second: row.try_get::<i32, _>("rate_per_second")?.unsigned_abs(),
        desired_state: DesiredState::parse(row.try_get("desired_state")?)
            .ok_or_else(corrupt("desired_state"))?,
        state: ReplayState::parse(row.try_get("state")?).ok_or_else(corrupt("state"))?,
        state_reason: row.try_get("state_reason")?,
        state_message: row.try_get("state_message")?,
        counters: counters(row)?,
        requested_by: row.try_get("requested_by")?,
        actor: row.try_get("actor")?,
        created_at: row.time("created_at")?,
        started_at: row.optional_time("started_at")?,
        finished_at: row.optional_time("finished_at")?,
        updated_at: row.time("updated_at")?,
        object_name: row.try_get("object_name")?,
    })
}

fn counters(row: &PgRow) -> Result<ReplayCounters> {
    let count = |column: &str| -> Result<u64> { Ok(row.try_get::<i64, _>(column)?.unsigned_abs()) };
    let counters = ReplayCounters {
        matched: count("matched")?,
        matched_is_exact: row.try_get("matched_is_exact")?,
        fed: count("fed")?,
        skipped: ReplaySkips {
            unfinished: count("skipped_unfinished")?,
            succeeded: count("skipped_succeeded")?,
            gone: count("skipped_gone")?,
        },
        succeeded: count("succeeded")?,
        failed: count("failed")?,
    };
    Ok(ReplayCounters { matched: counters.matched.max(counters.fed + counters.skipped.sum()), ..counters })
}
