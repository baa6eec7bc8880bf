//! The `integrations` rows: read by the data plane, written by the controller, and from files by `dev` and `apply`.
//!
//! A write is fenced: an older generation, or a writer of an older epoch, cannot overwrite a newer row. The unique
//! indexes on live routes and names decide who owns them. A write that removes a destination records that in the same commit;
//! the deliveries to it end after it.

use std::io;
use std::time::Instant;

use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::{IntegrationRow, RowState};
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::{PgListener, PgRow};
use tokio::time::timeout;

use crate::audit;
use crate::columns::Columns;
use crate::database::{Database, PING_DEADLINE};
use crate::deliveries;
use crate::destinations;
use crate::error::{Error, Result};
use crate::sessions::Sessions;

pub mod endpoints;
pub mod epoch;
pub mod gone;
pub mod freed_route;
pub mod retire;
pub mod purge;
pub mod waiting;
pub mod status;

/// The channel on which a changed row notifies.
const CHANGE_CHANNEL: &str = "grapnel_integrations";

/// The outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpsertOutcome {
    Applied,
    /// A newer generation or a newer writer was there before.
    Superseded,
    /// Another live integration holds the route.
    RouteTaken,
    /// The route was freed by another namespace, and stays its own until then.
    RouteKept {
        until: Timestamp,
    },
    /// Another live row holds the namespace and name.
    NameTaken,
}

/// Returns every live row.
pub async fn load_all(db: &Database) -> Result<Vec<IntegrationRow>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* integrations::load_all */
            SELECT id, uid, namespace, name, generation, writer_epoch, provider, route, display_name, state,
                spec::text AS spec, secrets, endpoints::text AS endpoints,
                ARRAY(SELECT key FROM jsonb_each(gone) WHERE value = to_jsonb(generation)) AS gone
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
pub struct StoredRow {
    pub row: IntegrationRow,
    pub deleted: bool,
}

/// Returns the row with an id, even if it was retired.
pub async fn find(db: &Database, id: IntegrationId) -> Result<Option<StoredRow>> {
    db.bounded(async {
        let row = sqlx::query(
            "/* integrations::find */
            SELECT id, uid, namespace, name, generation, writer_epoch, provider, route, display_name, state,
                spec::text AS spec, secrets, endpoints::text AS endpoints, deleted_at IS NOT NULL AS deleted,
                ARRAY(SELECT key FROM jsonb_each(gone) WHERE value = to_jsonb(generation)) AS gone
            FROM integrations WHERE id = $1",
        )
        .bind(id.uuid())
        .fetch_optional(db.pool())
        .await?;
        row.map(|row| Ok(StoredRow { deleted: row.try_get("deleted")?, row: integration_row(&row)? }))
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
        gone: row.try_get("gone")?,
        endpoints: row.try_get("endpoints")?,
    })
}

/// A listener for changed rows. It ends with its connection: what was changed after that is found only by reading all rows once another
/// one listens.
#[derive(Debug)]
pub struct ChangeListener {
    listener: PgListener,
    sessions: Sessions,
    began: Instant,
}

impl ChangeListener {
    /// Returns when a row has changed. Fails when the connection is lost, and when the session may be on another server than the writers.
    pub async fn changed(&mut self) -> Result<()> {
        tokio::select! {
            notified = self.listener.try_recv() => match notified? {
                Some(_) => Ok(()),
                None => Err(lost()),
            },
            () = self.sessions.until_distrusted(self.began) => Err(Error::ReadOnly),
        }
    }

    /// Checks that notifications can still arrive. Nothing else is sent on the connection, so a router may have forgotten it.
    pub async fn check(&mut self) -> Result<()> {
        let asked = sqlx::query("/* integrations::check */ SELECT 1").execute(&mut self.listener);
        match timeout(PING_DEADLINE, asked).await {
            Ok(answered) => answered.map(drop).map_err(Error::from),
            Err(_elapsed) => Err(lost()),
        }
    }
}

fn lost() -> Error {
    Error::Unavailable(sqlx::Error::Io(io::ErrorKind::ConnectionAborted.into()))
}

/// Begins to listen for changed rows.
pub async fn listen(db: &Database) -> Result<ChangeListener> {
    db.bounded(async {
        let began = Instant::now();
        let mut listener = PgListener::connect_with(db.pool()).await?;
        // A connection that it replaced by itself would have missed changes, and nobody would know.
        listener.eager_reconnect(false);
        listener.listen(CHANGE_CHANNEL).await?;
        Ok(ChangeListener { listener, sessions: db.sessions().clone(), began })
    })
    .await
}

/// Writes the row of an applied object. Deliveries to destinations that it no longer has are given up: here when they are few,
/// in the background otherwise.
pub async fn upsert(
    db: &Database,
    row: &IntegrationRow,
    destinations: &[String],
    actor: &str,
) -> Result<UpsertOutcome> {
    let (outcome, is_removal) = db.bounded(write(db, row, destinations, actor)).await?;
    if is_removal {
        deliveries::end_while_waiting(db, row.id).await;
    }
    Ok(outcome)
}

/// Writes a row and returns whether that removed a destination.
async fn write(
    db: &Database,
    row: &IntegrationRow,
    kept: &[String],
    actor: &str,
) -> Result<(UpsertOutcome, bool)> {
    let mut tx = db.pool().begin().await?;
    let is_held = freed_route::is_held(&mut tx, row.id, &row.route).await?;
    let mut removed = destinations::lock_for_write(&mut tx, row.id).await?;
    removed.retain(|name| !kept.contains(name));
    let applied = sqlx::query(
        "/* integrations::upsert */
        INSERT INTO integrations AS old (
            id, uid, namespace, name, generation, writer_epoch, provider, route, display_name, state, spec, secrets, endpoints
        )
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::json, $12, $13::json)
        ON CONFLICT (id) DO UPDATE
        SET uid = $2, namespace = $3, name = $4, generation = $5, writer_epoch = $6, provider = $7, route = $8,
            display_name = $9, state = $10, spec = $11::json, secrets = $12, endpoints = $13::json, updated_at = now(),
            deleted_at = NULL
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
    .bind(&row.endpoints)
    .execute(&mut *tx)
    .await;
    match applied {
        Ok(done) if done.rows_affected() == 0 => return Ok((UpsertOutcome::Superseded, false)),
        Ok(_) => {}
        Err(error) => return Ok((taken_by_another(error)?, false)),
    }
    if !is_held && let Some(until) = freed_route::take(&mut tx, &row.route, &row.namespace).await? {
        return Ok((UpsertOutcome::RouteKept { until }, false));
    }
    for destination in &removed {
        deliveries::record_removal(&mut tx, row.id, Some(destination)).await?;
    }
    audit::integration_changed(&mut tx, row.id, "integration.applied", actor, row.generation).await?;
    tx.commit().await?;
    Ok((UpsertOutcome::Applied, !removed.is_empty()))
}

/// Maps the violation of a unique index to its outcome.
fn taken_by_another(error: sqlx::Error) -> Result<UpsertOutcome> {
    match error.as_database_error().and_then(|database| database.constraint()) {
        Some("integrations_live_route") => Ok(UpsertOutcome::RouteTaken),
        Some("integrations_live_name") => Ok(UpsertOutcome::NameTaken),
        _ => Err(error.into()),
    }
}

/// Retires a row: its history stays, its route is free again, its unfinished deliveries are given up. Returns whether there was
/// a live row with this id.
pub async fn remove(db: &Database, id: IntegrationId, actor: &str) -> Result<bool> {
    let retired = db.bounded(async {
        let mut tx = db.pool().begin().await?;
        let given_up = retire::retire_in(&mut tx, id, None, actor, &audit::ObjectEnd::default()).await?;
        tx.commit().await?;
        Ok(given_up.is_some())
    });
    let is_retired = retired.await?;
    if is_retired {
        deliveries::end_while_waiting(db, id).await;
    }
    Ok(is_retired)
}

/// Empties the secrets of retired rows that an older process has retired. Returns how many.
pub async fn forget_secrets(db: &Database) -> Result<u64> {
    db.bounded(async {
        let done = sqlx::query(
            "/* integrations::forget_secrets */
            UPDATE integrations SET secrets = '' WHERE deleted_at IS NOT NULL AND secrets <> ''",
        )
        .execute(db.pool())
        .await?;
        Ok(done.rows_affected())
    })
    .await
}

/// Replaces a row's secrets, sealed under another key, unless the row was written meanwhile. Returns whether it did.
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
