//! The `integrations` rows: read by the data plane, written from files by `dev` and `apply` (and by the controller).
//!
//! A write is fenced: an older generation, or a writer of an older epoch, cannot overwrite a newer row. The unique
//! indexes on live routes and names are the arbiters of who owns them. Work for a destination that a write removes ends
//! in the same commit as failed, so that nothing waits for ever.

use grapnel_core::integration::IntegrationRow;
use sqlx::postgres::{PgListener, PgPool, PgRow};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

pub mod epoch;
pub mod retire;

/// The channel that a changed row notifies.
pub const CHANGED: &str = "grapnel_integrations";

/// The last error of work that nobody can do any more.
const DESTINATION_REMOVED: &str = "the destination was removed";
const INTEGRATION_REMOVED: &str = "the integration was removed";

/// What a write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Applied,
    /// A newer generation or a newer writer was there before.
    Superseded,
    /// Another live integration holds the route.
    RouteTaken,
    /// Another live row holds the namespace and name.
    NameTaken,
}

/// Every live row.
pub async fn load_all(pool: &PgPool) -> sqlx::Result<Vec<IntegrationRow>> {
    let rows = sqlx::query(
        "/* integrations::load_all */
        SELECT id, uid, namespace, name, generation, writer_epoch, provider, route, display_name, state,
            spec::text AS spec, secrets
        FROM integrations WHERE deleted_at IS NULL",
    )
    .fetch_all(pool)
    .await?;
    rows.iter().map(integration_row).collect()
}

/// A row that may have been retired.
#[derive(Debug)]
pub struct Found {
    pub row: IntegrationRow,
    pub deleted: bool,
}

/// The row with an id, also when it was retired.
pub async fn find(pool: &PgPool, id: Uuid) -> sqlx::Result<Option<Found>> {
    let row = sqlx::query(
        "/* integrations::find */
        SELECT id, uid, namespace, name, generation, writer_epoch, provider, route, display_name, state,
            spec::text AS spec, secrets, deleted_at IS NOT NULL AS deleted
        FROM integrations WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(pool)
    .await?;
    row.map(|row| Ok(Found { deleted: row.try_get("deleted")?, row: integration_row(&row)? })).transpose()
}

fn integration_row(row: &PgRow) -> sqlx::Result<IntegrationRow> {
    Ok(IntegrationRow {
        id: row.try_get("id")?,
        uid: row.try_get("uid")?,
        namespace: row.try_get("namespace")?,
        name: row.try_get("name")?,
        generation: row.try_get("generation")?,
        writer_epoch: row.try_get("writer_epoch")?,
        provider: row.try_get("provider")?,
        route: row.try_get("route")?,
        display_name: row.try_get("display_name")?,
        state: row.try_get("state")?,
        spec: row.try_get("spec")?,
        secrets: row.try_get("secrets")?,
    })
}

/// A connection that hears of changed rows. It reconnects by itself; what it missed meanwhile is found by polling.
pub async fn listen(pool: &PgPool) -> sqlx::Result<PgListener> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANGED).await?;
    Ok(listener)
}

/// Writes the row of an applied object and ends the work for destinations that it no longer has.
pub async fn upsert(
    pool: &PgPool,
    row: &IntegrationRow,
    destinations: &[String],
    actor: &str,
) -> sqlx::Result<Written> {
    let mut tx = pool.begin().await?;
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
    .bind(row.id)
    .bind(&row.uid)
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(row.generation)
    .bind(row.writer_epoch)
    .bind(&row.provider)
    .bind(&row.route)
    .bind(&row.display_name)
    .bind(&row.state)
    .bind(&row.spec)
    .bind(&row.secrets)
    .execute(&mut *tx)
    .await;
    match applied {
        Ok(done) if done.rows_affected() == 0 => return Ok(Written::Superseded),
        Ok(_) => {}
        Err(error) => return taken(error),
    }
    end_work(&mut tx, row.id, destinations, DESTINATION_REMOVED).await?;
    audit(&mut tx, row.id, "integration.applied", actor, row.generation).await?;
    tx.commit().await?;
    Ok(Written::Applied)
}

/// Turns the violation of a claim's unique index into its outcome.
fn taken(error: sqlx::Error) -> sqlx::Result<Written> {
    match error.as_database_error().and_then(|database| database.constraint()) {
        Some("integrations_live_route") => Ok(Written::RouteTaken),
        Some("integrations_live_name") => Ok(Written::NameTaken),
        _ => Err(error),
    }
}

/// Retires a row: its history stays, its route is free again, its unfinished work ends as failed.
/// Answers whether there was a live row with this id.
pub async fn remove(pool: &PgPool, id: Uuid, actor: &str) -> sqlx::Result<bool> {
    let mut tx = pool.begin().await?;
    let generation: Option<i64> = sqlx::query_scalar(
        "/* integrations::remove */
        WITH forgotten AS (DELETE FROM captured_secrets WHERE integration_id = $1)
        UPDATE integrations SET deleted_at = now(), updated_at = now()
        WHERE id = $1 AND deleted_at IS NULL RETURNING generation",
    )
    .bind(id)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(generation) = generation else {
        return Ok(false);
    };
    end_work(&mut tx, id, &[], INTEGRATION_REMOVED).await?;
    audit(&mut tx, id, "integration.removed", actor, generation).await?;
    tx.commit().await?;
    Ok(true)
}

/// Seals a row's secrets anew under another key, unless the row was written meanwhile.
pub async fn reseal(pool: &PgPool, id: Uuid, old: &[u8], new: &[u8]) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "/* integrations::reseal */
        UPDATE integrations SET secrets = $3 WHERE id = $1 AND secrets = $2",
    )
    .bind(id)
    .bind(old)
    .bind(new)
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends the work for a destination that its integration no longer has, or whose integration is gone; answers whether it
/// was so.
///
/// A write ends such work itself, but an api that has not heard of it yet may store one more event for the destinations
/// that it knows.
pub async fn end_work_if_removed(pool: &PgPool, id: Uuid, destination: &str) -> sqlx::Result<bool> {
    let mut tx = pool.begin().await?;
    let row = sqlx::query(
        "/* integrations::end_work_if_removed */
        SELECT ARRAY(SELECT d->>'name' FROM json_array_elements(spec->'destinations') AS d) AS destinations
        FROM integrations WHERE id = $1 AND deleted_at IS NULL
        FOR SHARE",
    )
    .bind(id)
    .fetch_optional(&mut *tx)
    .await?;
    let configured: Option<Vec<String>> = row.map(|row| row.try_get("destinations")).transpose()?;
    match configured {
        Some(kept) if kept.iter().any(|name| name == destination) => return Ok(false),
        Some(kept) => end_work(&mut tx, id, &kept, DESTINATION_REMOVED).await?,
        None => end_work(&mut tx, id, &[], INTEGRATION_REMOVED).await?,
    }
    tx.commit().await?;
    Ok(true)
}

/// Fails the unfinished deliveries to all destinations but the kept ones. Replays that wait for them are settled too.
pub(super) async fn end_work(
    tx: &mut PgConnection,
    id: Uuid,
    kept: &[String],
    reason: &str,
) -> sqlx::Result<()> {
    let replays: Vec<Uuid> = sqlx::query_scalar(
        "/* integrations::end_work */
        WITH ended AS (
            UPDATE deliveries
            SET status = 'failed', finished_at = now(), due_at = NULL, queued_at = NULL, lease_id = NULL,
                lease_until = NULL, last_error = $3, updated_at = now()
            WHERE integration_id = $1 AND finished_at IS NULL AND destination <> ALL($2)
            RETURNING event_id, destination, replay_request_id
        ), audited AS (
            INSERT INTO audit_entries (id, entity_type, entity_id, action, actor, details)
            SELECT uuidv7_now(), 'event', event_id, 'event.failed', 'system',
                json_build_object('destination', destination, 'error', $3)
            FROM ended
        )
        SELECT DISTINCT replay_request_id FROM ended WHERE replay_request_id IS NOT NULL",
    )
    .bind(id)
    .bind(kept)
    .bind(reason)
    .fetch_all(&mut *tx)
    .await?;
    crate::replays::settle(tx, &replays).await
}

/// Adds an entry of an integration's lifecycle.
pub(super) async fn audit(
    tx: &mut PgConnection,
    id: Uuid,
    action: &str,
    actor: &str,
    generation: i64,
) -> sqlx::Result<()> {
    sqlx::query(
        "/* integrations::audit */
        INSERT INTO audit_entries (id, entity_type, entity_id, action, actor, details)
        VALUES (uuidv7_now(), 'integration', $1, $2, $3, json_build_object('generation', $4::bigint))",
    )
    .bind(id)
    .bind(action)
    .bind(actor)
    .bind(generation)
    .execute(tx)
    .await?;
    Ok(())
}
