//! Jobs that are made for Kubernetes objects.
//!
//! An object makes one job, however often it is applied: the job is found by the object's uid. One that was deleted and applied anew has another
//! uid, and makes no second job while the row of the first is there, unless its spec or its `runId` is another.

use grapnel_core::ids::ReplayJobId;
use grapnel_core::replay::{DesiredState, ReplaySpec};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::create::{NewReplayJob, create_in};
use super::plan::{PlanOutcome, ReplayTarget, plan};
use super::request::{RequestOutcome, request_in, set_rate_in};
use super::{ReplayJob, read};
use crate::audit::Requester;
use crate::columns::Columns;
use crate::database::Database;
use crate::error::Result;
use crate::views::IntegrationRef;

/// An object, as its job is made from it.
#[derive(Debug, Clone)]
pub struct ObjectReplay {
    pub uid: Uuid,
    pub namespace: String,
    pub name: String,
    /// The name of an integration in the namespace.
    pub integration: String,
    pub spec: ReplaySpec,
    /// Of what cannot be changed in the spec, in any form that the caller keeps to.
    pub spec_hash: String,
    pub run_id: Option<String>,
    pub desired_state: DesiredState,
    /// Whether it only asks what would be fed.
    pub is_dry_run: bool,
    pub expected_count: Option<u64>,
    /// The actor of the entries in the audit trail.
    pub requester: Requester,
}

/// What has become of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum ObjectReplayOutcome {
    Created(Box<ReplayJob>),
    /// It has its job already.
    Existing(Box<ReplayJob>),
    /// Another object of this name has made a job of the same spec.
    RanAlready(ReplayJobId),
    /// There is no such integration in the namespace.
    UnknownIntegration,
    /// The integration is disabled: nothing is delivered.
    Disabled,
    /// The integration has no destination of this name.
    UnknownDestination(String),
    /// More deliveries match than the spec allows: so many, at least.
    LimitExceeded(u64),
    /// So many match, and others were expected.
    UnexpectedCount {
        matched: u64,
        is_exact: bool,
    },
    /// So many match, and none was made: it is a dry run.
    Counted {
        matched: u64,
        is_exact: bool,
    },
    /// Too many jobs are unfinished: it may be tried again later.
    TooMany,
}

/// Makes the job of an object, if it has none yet.
pub async fn create_for_object(db: &Database, object: &ObjectReplay) -> Result<ObjectReplayOutcome> {
    if let Some(job) = read::find_by_object(db, object.uid).await? {
        return Ok(ObjectReplayOutcome::Existing(Box::new(job)));
    }
    if let Some(id) = find_run(db, object).await?.filter(|_| !object.is_dry_run) {
        return Ok(ObjectReplayOutcome::RanAlready(id));
    }
    let integration =
        IntegrationRef::Name { namespace: object.namespace.clone(), name: object.integration.clone() };
    let plan = match plan(db, &ReplayTarget::Integration(integration), object.spec.clone()).await? {
        PlanOutcome::Planned(plan) => *plan,
        PlanOutcome::UnknownIntegration => return Ok(ObjectReplayOutcome::UnknownIntegration),
        PlanOutcome::UnknownDestination(name) => return Ok(ObjectReplayOutcome::UnknownDestination(name)),
        PlanOutcome::Disabled => return Ok(ObjectReplayOutcome::Disabled),
        PlanOutcome::TooManyDestinations(_) => return Ok(ObjectReplayOutcome::TooMany),
    };
    let (matched, is_exact) = (plan.matched(), plan.is_exact);
    if object.is_dry_run {
        return Ok(ObjectReplayOutcome::Counted { matched, is_exact });
    }
    if plan.is_over_limit() {
        return Ok(ObjectReplayOutcome::LimitExceeded(matched));
    }
    if object.expected_count.is_some_and(|expected| !plan.is_as_expected(expected)) {
        return Ok(ObjectReplayOutcome::UnexpectedCount { matched, is_exact });
    }
    let new = NewReplayJob { plan, requested_by: None, requester: object.requester.clone() };
    db.bounded(async {
        let mut tx = db.pool().begin().await?;
        // Two passes over the same object wait for each other here.
        sqlx::query(
            "/* replay_jobs::lock_object */ SELECT pg_advisory_xact_lock(hashtextextended($1::text, 0))",
        )
        .bind(object.uid.to_string())
        .execute(&mut *tx)
        .await?;
        if let Some(job) = read::find_by_object_in(&mut tx, object.uid).await? {
            return Ok(ObjectReplayOutcome::Existing(Box::new(job)));
        }
        let Some(job) = create_in(&mut tx, &new).await? else { return Ok(ObjectReplayOutcome::TooMany) };
        mark(&mut tx, job.id, object).await?;
        let job = match request_in(&mut tx, job, object.desired_state, &object.requester).await? {
            RequestOutcome::Done(job) | RequestOutcome::TooLate(job) => job,
            RequestOutcome::Unknown => return Ok(ObjectReplayOutcome::TooMany),
        };
        tx.commit().await?;
        Ok(ObjectReplayOutcome::Created(job))
    })
    .await
}

/// Returns the job that an earlier object of this name has made of the same spec.
async fn find_run(db: &Database, object: &ObjectReplay) -> Result<Option<ReplayJobId>> {
    db.bounded(async {
        let row = sqlx::query(
            "/* replay_jobs::find_run */
            SELECT id FROM replay_jobs
            WHERE object_namespace = $1 AND object_name = $2 AND spec_hash = $3 AND run_id IS NOT DISTINCT FROM $4
            ORDER BY id LIMIT 1",
        )
        .bind(&object.namespace)
        .bind(&object.name)
        .bind(&object.spec_hash)
        .bind(object.run_id.as_deref())
        .fetch_optional(db.pool())
        .await?;
        Ok(row.map(|row| row.id("id", ReplayJobId::new)).transpose()?)
    })
    .await
}

/// Records which object a job was made for, and what was taken over from it.
async fn mark(tx: &mut PgConnection, id: ReplayJobId, object: &ObjectReplay) -> Result<()> {
    sqlx::query(
        "/* replay_jobs::mark_object */
        UPDATE replay_jobs
        SET object_uid = $2, object_namespace = $3, object_name = $4, spec_hash = $5, run_id = $6, object_desired_state = $7,
            object_rate = rate_per_second
        WHERE id = $1",
    )
    .bind(id.uuid())
    .bind(object.uid)
    .bind(&object.namespace)
    .bind(&object.name)
    .bind(&object.spec_hash)
    .bind(object.run_id.as_deref())
    .bind(object.desired_state.as_str())
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes over what an object says of state and rate, where that is not what it said before: what others asked of the job meanwhile stays.
/// Returns the job as it is now; `None` when the object has none.
pub async fn follow_object(
    db: &Database,
    uid: Uuid,
    desired: DesiredState,
    rate_per_second: u32,
    requester: &Requester,
) -> Result<Option<ReplayJob>> {
    db.bounded(async {
        let mut tx = db.pool().begin().await?;
        let Some((job, taken_over)) = lock_by_object(&mut tx, uid).await? else { return Ok(None) };
        if taken_over.rate_per_second != Some(rate_per_second) {
            set_rate_in(&mut tx, job.clone(), rate_per_second, requester).await?;
        }
        if taken_over.state != Some(desired) {
            request_in(&mut tx, job, desired, requester).await?;
        }
        sqlx::query(
            "/* replay_jobs::follow_object */
            UPDATE replay_jobs SET object_desired_state = $2, object_rate = $3
            WHERE object_uid = $1 AND (object_desired_state, object_rate) IS DISTINCT FROM ($2, $3)",
        )
        .bind(uid)
        .bind(desired.as_str())
        .bind(rate_per_second.cast_signed())
        .execute(&mut *tx)
        .await?;
        let job = read::find_by_object_in(&mut tx, uid).await?;
        tx.commit().await?;
        Ok(job)
    })
    .await
}

/// Cancels the job of an object that is deleted, unless it has ended. Its row stays, for an object that is applied anew.
pub async fn forget_object(db: &Database, uid: Uuid, requester: &Requester) -> Result<()> {
    db.bounded(async {
        let mut tx = db.pool().begin().await?;
        if let Some((job, _)) = lock_by_object(&mut tx, uid).await? {
            request_in(&mut tx, job, DesiredState::Cancelled, requester).await?;
        }
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// What was taken over from an object.
struct TakenOver {
    state: Option<DesiredState>,
    rate_per_second: Option<u32>,
}

async fn lock_by_object(tx: &mut PgConnection, uid: Uuid) -> Result<Option<(ReplayJob, TakenOver)>> {
    let row = sqlx::query(concat!(
        "/* replay_jobs::lock_by_object */ SELECT j.object_desired_state, j.object_rate, ",
        read::columns!(),
        " FROM replay_jobs j WHERE j.object_uid = $1 FOR UPDATE"
    ))
    .bind(uid)
    .fetch_optional(tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let state: Option<&str> = row.try_get("object_desired_state")?;
    let taken_over = TakenOver {
        state: state.and_then(DesiredState::parse),
        rate_per_second: row.try_get::<Option<i32>, _>("object_rate")?.map(i32::unsigned_abs),
    };
    Ok(Some((read::replay_job(&row)?, taken_over)))
}
