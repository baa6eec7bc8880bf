//! The end of an integration whose object is deleted: it refuses webhooks while its deliveries are sent, then it is
//! retired and the remaining deliveries are given up.
//!
//! Every step is fenced like a write of the row, and can be repeated from any point.

use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::{FILE_UID_PREFIX, RowState};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::audit::{self, ObjectEnd};
use crate::columns::Columns;
use crate::database::Database;
use crate::deliveries;
use crate::error::Result;

/// The identity of a live row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveRow {
    pub id: IntegrationId,
    pub uid: String,
    pub namespace: String,
    pub name: String,
}

/// Returns every live row that came from an applied object.
pub async fn live(db: &Database) -> Result<Vec<LiveRow>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* integrations::retire::live */
            SELECT id, uid, namespace, name FROM integrations WHERE deleted_at IS NULL AND NOT starts_with(uid, $1)",
        )
        .bind(FILE_UID_PREFIX)
        .fetch_all(db.pool())
        .await?;
        rows.iter().map(live_row).collect()
    })
    .await
}

/// Returns the live row that holds a namespace and name.
pub async fn holder_of_name(db: &Database, namespace: &str, name: &str) -> Result<Option<LiveRow>> {
    db.bounded(async {
        let row = sqlx::query(
            "/* integrations::retire::holder_of_name */
            SELECT id, uid, namespace, name FROM integrations
            WHERE namespace = $1 AND name = $2 AND deleted_at IS NULL",
        )
        .bind(namespace)
        .bind(name)
        .fetch_optional(db.pool())
        .await?;
        row.as_ref().map(live_row).transpose()
    })
    .await
}

fn live_row(row: &PgRow) -> Result<LiveRow> {
    Ok(LiveRow {
        id: row.id("id", IntegrationId::new)?,
        uid: row.try_get("uid")?,
        namespace: row.try_get("namespace")?,
        name: row.try_get("name")?,
    })
}

/// Makes an integration refuse webhooks while the accepted ones are still delivered. Returns whether it does now.
pub async fn start_draining(db: &Database, id: IntegrationId, writer_epoch: i64) -> Result<bool> {
    db.bounded(async {
        let done = sqlx::query(
            "/* integrations::retire::start_draining */
            UPDATE integrations SET state = $2, writer_epoch = $3, updated_at = now()
            WHERE id = $1 AND deleted_at IS NULL AND writer_epoch <= $3",
        )
        .bind(id.uuid())
        .bind(RowState::Draining.as_str())
        .bind(writer_epoch)
        .execute(db.pool())
        .await?;
        Ok(done.rows_affected() == 1)
    })
    .await
}

/// The unfinished deliveries that are counted: to know that there are more takes no time, to know how many more does.
pub const COUNTED: i64 = 100_000;

/// Returns the number of unfinished deliveries of an integration; a number above [`COUNTED`] means that there are more.
pub async fn open_deliveries(db: &Database, id: IntegrationId) -> Result<i64> {
    db.bounded(async { count_open(&mut *db.pool().acquire().await?, id).await }).await
}

async fn count_open(connection: &mut PgConnection, id: IntegrationId) -> Result<i64> {
    let count = sqlx::query_scalar(
        "/* integrations::retire::count_open */
        SELECT count(*) FROM (
            SELECT FROM deliveries WHERE integration_id = $1 AND finished_at IS NULL LIMIT $2
        ) AS open",
    )
    .bind(id.uuid())
    .bind(COUNTED + 1)
    .fetch_one(connection)
    .await?;
    Ok(count)
}

/// The outcome of retiring a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetireOutcome {
    /// It is retired now, and this many deliveries are given up; a number above [`COUNTED`] means that there are more.
    Now { given_up: i64 },
    /// There was no live row: it was retired before.
    Before,
    /// A newer leader wrote the row.
    Superseded,
}

/// Retires a row: its history stays, its route is free again, its secrets are gone. Its unfinished deliveries are given up:
/// here when they are few, in the background otherwise.
pub async fn retire(
    db: &Database,
    id: IntegrationId,
    writer_epoch: i64,
    actor: &str,
    end: &ObjectEnd,
) -> Result<RetireOutcome> {
    let retired = db.bounded(async {
        let mut tx = db.pool().begin().await?;
        let newest: Option<i64> = sqlx::query_scalar(
            "/* integrations::retire::retire */
            SELECT writer_epoch FROM integrations WHERE id = $1 AND deleted_at IS NULL FOR UPDATE",
        )
        .bind(id.uuid())
        .fetch_optional(&mut *tx)
        .await?;
        if newest.is_some_and(|newest| newest > writer_epoch) {
            return Ok(RetireOutcome::Superseded);
        }
        let Some(given_up) = retire_in(&mut tx, id, Some(writer_epoch), actor, end).await? else {
            return Ok(RetireOutcome::Before);
        };
        tx.commit().await?;
        Ok(RetireOutcome::Now { given_up })
    });
    let outcome = retired.await?;
    if matches!(outcome, RetireOutcome::Now { .. }) {
        deliveries::end_while_waiting(db, id).await;
    }
    Ok(outcome)
}

/// Retires a row in a transaction and returns the number of deliveries that are given up; `None` when there is no live
/// row. A row from a file has no writer's epoch.
pub(super) async fn retire_in(
    tx: &mut PgConnection,
    id: IntegrationId,
    writer_epoch: Option<i64>,
    actor: &str,
    end: &ObjectEnd,
) -> Result<Option<i64>> {
    let generation: Option<i64> = sqlx::query_scalar(
        "/* integrations::retire::retire_in */
        WITH forgotten AS (DELETE FROM captured_secrets WHERE integration_id = $1),
            unreported AS (DELETE FROM integration_statuses WHERE integration_id = $1)
        UPDATE integrations
        SET deleted_at = now(), updated_at = now(), secrets = '', writer_epoch = COALESCE($2::bigint, writer_epoch)
        WHERE id = $1 AND deleted_at IS NULL
        RETURNING generation",
    )
    .bind(id.uuid())
    .bind(writer_epoch)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(generation) = generation else { return Ok(None) };
    let given_up = count_open(tx, id).await?;
    deliveries::record_removal(tx, id, None).await?;
    audit::integration_removed(tx, id, actor, generation, end).await?;
    Ok(Some(given_up))
}
