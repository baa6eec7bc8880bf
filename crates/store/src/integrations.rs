//! The `integrations` rows: read by the data plane, written from files by `dev` and `apply` (and by the controller).
//!
//! A write is fenced: an older generation, or a writer of an older epoch, cannot overwrite a newer row. The unique
//! indexes on live routes and names are the arbiters of who owns them. Work for a destination that a write removes ends
//! in the same commit as failed, so that nothing waits for ever.

use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::{IntegrationRow, RowState};
use sqlx::postgres::{PgListener, PgRow};
use sqlx::{PgConnection, Row};

use crate::audit;
use crate::columns::Columns;
use crate::database::Database;
use crate::deliveries::{self, end};
use crate::error::{Error, Result};

pub mod epoch;
pub mod retire;

/// The names of the destinations in a row's spec, as an array.
macro_rules! destination_names {
    () => {
        "ARRAY(SELECT value ->> 'name' FROM json_array_elements(spec -> 'destinations'))"
    };
}

/// The channel that a changed row notifies.
pub const CHANGED: &str = "grapnel_integrations";

/// The outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpsertOutcome {
    Applied,
    /// A newer generation or a newer writer was there before.
    Superseded,
    /// Another live integration holds the route.
    RouteTaken,
    /// Another live row holds the namespace and name.
    NameTaken,
}

/// Every live row.
pub async fn load_all(db: &Database) -> Result<Vec<IntegrationRow>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* integrations::load_all */
            SELECT id, uid, namespace, name, generation, writer_epoch, provider, route, display_name, state,
                spec::text AS spec, secrets
            FROM integrations WHERE deleted_at IS NULL",
        )
        .fetch_all(db.pool())
        .await?;
        rows.iter().map(integration_row).collect()
    })
    .await
}

/// A row that may have been retired.
#[derive(Debug)]
pub struct FoundRow {
    pub row: IntegrationRow,
    pub deleted: bool,
}

/// The row with an id, also when it was retired.
pub async fn find(db: &Database, id: IntegrationId) -> Result<Option<FoundRow>> {
    db.bounded(async {
        let row = sqlx::query(
            "/* integrations::find */
            SELECT id, uid, namespace, name, generation, writer_epoch, provider, route, display_name, state,
                spec::text AS spec, secrets, deleted_at IS NOT NULL AS deleted
            FROM integrations WHERE id = $1",
        )
        .bind(id.uuid())
        .fetch_optional(db.pool())
        .await?;
        row.map(|row| Ok(FoundRow { deleted: row.try_get("deleted")?, row: integration_row(&row)? }))
            .transpose()
    })
    .await
}

fn integration_row(row: &PgRow) -> Result<IntegrationRow> {
    let id = row.id("id", IntegrationId::new)?;
    let state = RowState::parse(row.try_get("state")?);
    Ok(IntegrationRow {
        id,
        uid: row.try_get("uid")?,
        namespace: row.try_get("namespace")?,
        name: row.try_get("name")?,
        generation: row.try_get("generation")?,
        writer_epoch: row.try_get("writer_epoch")?,
        provider: row.try_get("provider")?,
        route: row.try_get("route")?,
        display_name: row.try_get("display_name")?,
        state: state.ok_or(Error::Corrupt { table: "integrations", column: "state", id: id.uuid() })?,
        spec: row.try_get("spec")?,
        secrets: row.try_get("secrets")?,
    })
}

/// Hears of changed rows. It reconnects by itself; what it missed meanwhile is found by polling.
#[derive(Debug)]
pub struct ChangeListener(PgListener);

impl ChangeListener {
    /// Returns when a row has changed.
    pub async fn changed(&mut self) -> Result<()> {
        self.0.recv().await?;
        Ok(())
    }
}

/// Begins to listen for changed rows.
pub async fn listen(db: &Database) -> Result<ChangeListener> {
    db.bounded(async {
        let mut listener = PgListener::connect_with(db.pool()).await?;
        listener.listen(CHANGED).await?;
        Ok(ChangeListener(listener))
    })
    .await
}

/// Writes the row of an applied object and ends the work for destinations that it no longer has.
pub async fn upsert(
    db: &Database,
    row: &IntegrationRow,
    destinations: &[String],
    actor: &str,
) -> Result<UpsertOutcome> {
    db.bounded(async {
        let mut tx = db.pool().begin().await?;
        let applied = sqlx::query(
            "/* integrations::upsert */
            INSERT INTO integrations AS old (
                id, uid, namespace, name, generation, writer_epoch, provider, route, display_name, state, spec, secrets
            )
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::json, $12)
            ON CONFLICT (id) DO UPDATE
            SET uid = $2, namespace = $3, name = $4, generation = $5, writer_epoch = $6, provider = $7, route = $8,
                display_name = $9, state = $10, spec = $11::json, secrets = $12, updated_at = now(), deleted_at = NULL
            WHERE old.generation <= $5 AND old.writer_epoch <= $6",
        )
        .bind(row.id.uuid())
        .bind(&row.uid)
        .bind(&row.namespace)
        .bind(&row.name)
        .bind(row.generation)
        .bind(row.writer_epoch)
        .bind(&row.provider)
        .bind(&row.route)
        .bind(&row.display_name)
        .bind(row.state.as_str())
        .bind(&row.spec)
        .bind(&row.secrets)
        .execute(&mut *tx)
        .await;
        match applied {
            Ok(done) if done.rows_affected() == 0 => return Ok(UpsertOutcome::Superseded),
            Ok(_) => {}
            Err(error) => return claimed_by_another(error),
        }
        deliveries::end_removed(&mut tx, row.id, destinations, end::DESTINATION_REMOVED).await?;
        audit::integration_changed(&mut tx, row.id, "integration.applied", actor, row.generation).await?;
        tx.commit().await?;
        Ok(UpsertOutcome::Applied)
    })
    .await
}

/// Turns the violation of a claim's unique index into its outcome.
fn claimed_by_another(error: sqlx::Error) -> Result<UpsertOutcome> {
    match error.as_database_error().and_then(|database| database.constraint()) {
        Some("integrations_live_route") => Ok(UpsertOutcome::RouteTaken),
        Some("integrations_live_name") => Ok(UpsertOutcome::NameTaken),
        _ => Err(error.into()),
    }
}

/// Retires a row: its history stays, its route is free again, its unfinished work ends as failed.
/// Answers whether there was a live row with this id.
pub async fn remove(db: &Database, id: IntegrationId, actor: &str) -> Result<bool> {
    db.bounded(async {
        let mut tx = db.pool().begin().await?;
        let generation: Option<i64> = sqlx::query_scalar(
            "/* integrations::remove */
            WITH forgotten AS (DELETE FROM captured_secrets WHERE integration_id = $1)
            UPDATE integrations SET deleted_at = now(), updated_at = now()
            WHERE id = $1 AND deleted_at IS NULL RETURNING generation",
        )
        .bind(id.uuid())
        .fetch_optional(&mut *tx)
        .await?;
        let Some(generation) = generation else {
            return Ok(false);
        };
        deliveries::end_removed(&mut tx, id, &[], end::INTEGRATION_REMOVED).await?;
        audit::integration_changed(&mut tx, id, "integration.removed", actor, generation).await?;
        tx.commit().await?;
        Ok(true)
    })
    .await
}

/// Seals a row's secrets anew under another key, unless the row was written meanwhile.
pub async fn reseal(db: &Database, id: IntegrationId, old: &[u8], new: &[u8]) -> Result<bool> {
    db.bounded(async {
        let done = sqlx::query(
            "/* integrations::reseal */
            UPDATE integrations SET secrets = $3 WHERE id = $1 AND secrets = $2",
        )
        .bind(id.uuid())
        .bind(old)
        .bind(new)
        .execute(db.pool())
        .await?;
        Ok(done.rows_affected() == 1)
    })
    .await
}

/// The names of a live integration's destinations, which cannot change until the transaction ends; `None` when it is gone.
pub(crate) async fn lock_destinations(
    tx: &mut PgConnection,
    id: IntegrationId,
) -> Result<Option<Vec<String>>> {
    let destinations = sqlx::query_scalar(concat!(
        "/* integrations::lock_destinations */
        SELECT ",
        destination_names!(),
        "
        FROM integrations WHERE id = $1 AND deleted_at IS NULL FOR SHARE"
    ))
    .bind(id.uuid())
    .fetch_optional(tx)
    .await?;
    Ok(destinations)
}

/// As [`lock_destinations`]; `None` also when the integration is disabled, so that nothing is delivered any more.
pub(crate) async fn lock_active_destinations(
    tx: &mut PgConnection,
    id: IntegrationId,
) -> Result<Option<Vec<String>>> {
    let destinations = sqlx::query_scalar(concat!(
        "/* integrations::lock_active_destinations */
        SELECT ",
        destination_names!(),
        "
        FROM integrations WHERE id = $1 AND deleted_at IS NULL AND state <> $2 FOR SHARE"
    ))
    .bind(id.uuid())
    .bind(RowState::Disabled.as_str())
    .fetch_optional(tx)
    .await?;
    Ok(destinations)
}
