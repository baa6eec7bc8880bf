//! The destinations that an integration has, locked for a transaction that writes deliveries.

use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::RowState;
use sqlx::{PgConnection, Row};

use crate::error::Result;

/// The destinations of a live integration.
pub(crate) struct LockedDestinations {
    pub(crate) names: Vec<String>,
    /// Whether the integration is disabled, so that nothing is delivered any more.
    pub(crate) is_disabled: bool,
}

/// Returns the destinations of an integration that is about to be written, and locks its row; none when there is no live one.
pub(crate) async fn lock_for_write(tx: &mut PgConnection, id: IntegrationId) -> Result<Vec<String>> {
    let names = sqlx::query_scalar(
        "/* destinations::lock_for_write */
        SELECT ARRAY(SELECT value ->> 'name' FROM json_array_elements(spec -> 'destinations'))
        FROM integrations WHERE id = $1 AND deleted_at IS NULL FOR UPDATE",
    )
    .bind(id.uuid())
    .fetch_optional(tx)
    .await?;
    Ok(names.unwrap_or_default())
}

/// Returns a live integration's destinations and keeps them from changing until the transaction ends; `None` when the
/// integration is gone.
pub(crate) async fn lock(tx: &mut PgConnection, id: IntegrationId) -> Result<Option<LockedDestinations>> {
    let row = sqlx::query(
        "/* destinations::lock */
        SELECT ARRAY(SELECT value ->> 'name' FROM json_array_elements(spec -> 'destinations')) AS names,
            state = $2 AS is_disabled
        FROM integrations WHERE id = $1 AND deleted_at IS NULL FOR SHARE",
    )
    .bind(id.uuid())
    .bind(RowState::Disabled.as_str())
    .fetch_optional(tx)
    .await?;
    row.map(|row| {
        Ok(LockedDestinations { names: row.try_get("names")?, is_disabled: row.try_get("is_disabled")? })
    })
    .transpose()
}
