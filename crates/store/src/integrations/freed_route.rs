//! The routes that were freed lately. Until [`KEPT_DAYS`] have passed only the namespace that had a route may claim it again:
//! its providers go on posting to it, and whoever waited for it would receive that.
//!
//! A trigger of the database records them, whoever frees a route.

use grapnel_core::ids::IntegrationId;
use jiff::Timestamp;
use sqlx::PgConnection;

use crate::columns::Columns;
use crate::error::Result;

/// How long a freed route stays its namespace's.
pub const KEPT_DAYS: i32 = 7;

/// Returns whether a live row has this route already.
pub(super) async fn is_held(tx: &mut PgConnection, id: IntegrationId, route: &str) -> Result<bool> {
    let held = sqlx::query_scalar(
        "/* integrations::freed_route::is_held */
        SELECT EXISTS (SELECT FROM integrations WHERE id = $1 AND route = $2 AND deleted_at IS NULL)",
    )
    .bind(id.uuid())
    .bind(route)
    .fetch_one(tx)
    .await?;
    Ok(held)
}

/// Takes a route that was just written, and returns until when it is another namespace's, if it is. To be called after the
/// write, in its transaction: the write waits for one that frees the route, and only a statement after it sees what that
/// one recorded.
pub(super) async fn take(tx: &mut PgConnection, route: &str, namespace: &str) -> Result<Option<Timestamp>> {
    sqlx::query(
        "/* integrations::freed_route::take */
        DELETE FROM freed_routes WHERE route = $1 AND namespace = $2 OR freed_at <= now() - make_interval(days => $3)",
    )
    .bind(route)
    .bind(namespace)
    .bind(KEPT_DAYS)
    .execute(&mut *tx)
    .await?;
    let kept = sqlx::query(
        "/* integrations::freed_route::take, check */
        SELECT freed_at + make_interval(days => $2) AS kept_until FROM freed_routes WHERE route = $1",
    )
    .bind(route)
    .bind(KEPT_DAYS)
    .fetch_optional(tx)
    .await?;
    Ok(kept.map(|row| row.time("kept_until")).transpose()?)
}
