//! The state of the objects, as the controller reported it: for those who do not ask the API server.
//!
//! A report says nothing to the data plane, and nobody waits for it. It is fenced like a write of the row: a lower epoch writes nothing, and what
//! was removed has no state. A report that says nothing new does not touch its row; when everything was last found reported is in a row of its own.

use grapnel_core::ids::IntegrationId;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;

use crate::columns::Batch;
use crate::database::Database;
use crate::error::Result;

/// The state of an object. Its texts are bounded by the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectStatus {
    /// The generation of the spec that it is about.
    pub observed_generation: Option<i64>,
    /// Absent where the object has no such condition.
    pub ready: Option<ReadyCondition>,
    pub workers: WorkerNumbers,
    /// What keeps the number of workers from following the backlog alone.
    pub limited_by: Option<String>,
    /// JSON text: the last change of the number of workers, as in the object.
    pub last_scaling: Option<String>,
    /// JSON text: all conditions, as in the object.
    pub conditions: String,
}

/// The condition Ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyCondition {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    pub reason: String,
    pub message: String,
    /// Since when it has this status.
    pub since: Timestamp,
}

/// How many workers there are; what was not observed is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerNumbers {
    /// How many the scaler asked for.
    pub desired: Option<i32>,
    /// Pods that exist.
    pub existing: Option<i32>,
    /// Pods that are ready.
    pub ready: Option<i32>,
}

/// What is reported about an integration.
#[derive(Debug, Clone, Copy)]
pub struct StatusReport<'a> {
    pub id: IntegrationId,
    pub status: &'a ObjectStatus,
    /// Deliveries in the queues; `None`: they could not be read.
    pub backlog: Option<i64>,
}

// What is the same is left out before the conflict, which would lock the row. Always in the same order, so that two writers cannot deadlock.
const REPORT: &str = "/* integrations::status::report */
    INSERT INTO integration_statuses AS known (
        integration_id, writer_epoch, observed_generation, ready, ready_reason, ready_message, ready_since, desired_workers, workers,
        ready_workers, limited_by, backlog, last_scaling, conditions
    )
    SELECT reported.id, $1, reported.observed_generation, reported.ready, reported.ready_reason, reported.ready_message,
        reported.ready_since, reported.desired_workers, reported.workers, reported.ready_workers, reported.limited_by, reported.backlog,
        reported.last_scaling::json, reported.conditions::json
    FROM unnest(
        $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::int[], $9::int[], $10::int[], $11::text[],
        $12::bigint[], $13::text[], $14::text[]
    ) AS reported (
        id, observed_generation, ready, ready_reason, ready_message, ready_since, desired_workers, workers, ready_workers, limited_by,
        backlog, last_scaling, conditions
    )
    JOIN integrations ON integrations.id = reported.id AND integrations.deleted_at IS NULL AND integrations.writer_epoch <= $1
    LEFT JOIN integration_statuses AS before ON before.integration_id = reported.id
    WHERE before.integration_id IS NULL OR (
        before.observed_generation, before.ready, before.ready_reason, before.ready_message, before.ready_since, before.desired_workers,
        before.workers, before.ready_workers, before.limited_by, before.backlog, before.last_scaling::text, before.conditions::text
    ) IS DISTINCT FROM (
        reported.observed_generation, reported.ready, reported.ready_reason, reported.ready_message, reported.ready_since,
        reported.desired_workers, reported.workers, reported.ready_workers, reported.limited_by, reported.backlog, reported.last_scaling,
        reported.conditions
    )
    ORDER BY reported.id
    ON CONFLICT (integration_id) DO UPDATE SET
        writer_epoch = excluded.writer_epoch,
        reported_at = now(),
        observed_generation = excluded.observed_generation,
        ready = excluded.ready,
        ready_reason = excluded.ready_reason,
        ready_message = excluded.ready_message,
        ready_since = excluded.ready_since,
        desired_workers = excluded.desired_workers,
        workers = excluded.workers,
        ready_workers = excluded.ready_workers,
        limited_by = excluded.limited_by,
        backlog = excluded.backlog,
        last_scaling = excluded.last_scaling,
        conditions = excluded.conditions
    WHERE known.writer_epoch <= excluded.writer_epoch";

/// Reports states, at most one of each integration. Those of integrations that have no live row are left out.
pub async fn report(db: &Database, writer_epoch: i64, reports: &[StatusReport<'_>]) -> Result<()> {
    let batch = Batch(reports);
    db.bounded(async {
        sqlx::query(REPORT)
            .bind(writer_epoch)
            .bind(batch.column(|report| report.id.uuid()))
            .bind(batch.column(|report| report.status.observed_generation))
            .bind(batch.column(|report| report.status.ready.as_ref().map(|ready| ready.status.as_str())))
            .bind(batch.column(|report| report.status.ready.as_ref().map(|ready| ready.reason.as_str())))
            .bind(batch.column(|report| report.status.ready.as_ref().map(|ready| ready.message.as_str())))
            .bind(batch.column(|report| report.status.ready.as_ref().map(|ready| ready.since.to_sqlx())))
            .bind(batch.column(|report| report.status.workers.desired))
            .bind(batch.column(|report| report.status.workers.existing))
            .bind(batch.column(|report| report.status.workers.ready))
            .bind(batch.column(|report| report.status.limited_by.as_deref()))
            .bind(batch.column(|report| report.backlog))
            .bind(batch.column(|report| report.status.last_scaling.as_deref()))
            .bind(batch.column(|report| report.status.conditions.as_str()))
            .execute(db.pool())
            .await?;
        Ok(())
    })
    .await
}

/// Notes that everything is reported as of now.
pub async fn confirm(db: &Database, writer_epoch: i64) -> Result<()> {
    db.bounded(async {
        sqlx::query(
            "/* integrations::status::confirm */
            INSERT INTO status_confirmed AS known (writer_epoch, confirmed_at) VALUES ($1, now())
            ON CONFLICT (only_row) DO UPDATE SET writer_epoch = excluded.writer_epoch, confirmed_at = now()
            WHERE known.writer_epoch <= excluded.writer_epoch",
        )
        .bind(writer_epoch)
        .execute(db.pool())
        .await?;
        Ok(())
    })
    .await
}

/// Removes the states of retired rows, which an older process has left. Returns how many.
pub async fn forget_retired(db: &Database) -> Result<u64> {
    db.bounded(async {
        let done = sqlx::query(
            "/* integrations::status::forget_retired */
            DELETE FROM integration_statuses AS known USING integrations
            WHERE integrations.id = known.integration_id AND integrations.deleted_at IS NOT NULL",
        )
        .execute(db.pool())
        .await?;
        Ok(done.rows_affected())
    })
    .await
}
