//! The destinations that an integration has, locked for a transaction that writes deliveries.

use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::RowState;
use sqlx::PgConnection;

use crate::error::Result;

/// Returns the names of a live integration's destinations and keeps them from changing until the transaction ends; `None`
/// when the integration is gone.
pub(crate) async fn lock(tx: &mut PgConnection, id: IntegrationId) -> Result<Option<Vec<String>>> {
    let destinations = sqlx::query_scalar(
        "/* destinations::lock */
        SELECT ARRAY(SELECT value ->> 'name' FROM json_array_elements(spec -> 'destinations'))
        FROM integrations WHERE id = $1 AND deleted_at IS NULL FOR SHARE",
    )
    .bind(id.uuid())
    .fetch_optional(tx)
    .await?;
    Ok(destinations)
}

/// As [`lock`]; `None` also when the integration is disabled, so that nothing is delivered any more.
pub(crate) async fn lock_active(tx: &mut PgConnection, id: IntegrationId) -> Result<Option<Vec<String>>> {
    let destinations = sqlx::query_scalar(
        "/* destinations::lock_active */
        SELECT ARRAY(SELECT value ->> 'name' FROM json_array_elements(spec -> 'destinations'))
        FROM integrations WHERE id = $1 AND deleted_at IS NULL AND state <> $2 FOR SHARE",
    )
    .bind(id.uuid())
    .bind(RowState::Disabled.as_str())
    .fetch_optional(tx)
    .await?;
    Ok(destinations)
}
