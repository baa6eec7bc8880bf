//! The addresses of the Services that an integration delivers to. They change while its spec does not, and whatever keeps a new
//! spec from being registered, those of the registered one are followed.

use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::FILE_UID_PREFIX;
use sqlx::Row;

use crate::columns::Columns;
use crate::database::Database;
use crate::error::Result;

/// The stored addresses of a live row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEndpoints {
    pub id: IntegrationId,
    pub namespace: String,
    /// As the row has it.
    pub endpoints: String,
}

/// Returns the addresses of every live row of an applied object that delivers to a Service.
pub async fn load(db: &Database) -> Result<Vec<StoredEndpoints>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* integrations::endpoints::load */
            SELECT id, namespace, endpoints::text AS endpoints FROM integrations
            WHERE endpoints IS NOT NULL AND deleted_at IS NULL AND NOT starts_with(uid, $1)",
        )
        .bind(FILE_UID_PREFIX)
        .fetch_all(db.pool())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(StoredEndpoints {
                    id: row.id("id", IntegrationId::new)?,
                    namespace: row.try_get("namespace")?,
                    endpoints: row.try_get("endpoints")?,
                })
            })
            .collect()
    })
    .await
}

/// Replaces the addresses of a row, unless it was written meanwhile, for other Services perhaps, or by a newer leader. Returns
/// whether it did.
pub async fn replace(db: &Database, old: &StoredEndpoints, new: &str, writer_epoch: i64) -> Result<bool> {
    db.bounded(async {
        let done = sqlx::query(
            "/* integrations::endpoints::replace */
            UPDATE integrations SET endpoints = $3::json, writer_epoch = $4
            WHERE id = $1 AND endpoints::text = $2 AND deleted_at IS NULL AND writer_epoch <= $4",
        )
        .bind(old.id.uuid())
        .bind(&old.endpoints)
        .bind(new)
        .bind(writer_epoch)
        .execute(db.pool())
        .await?;
        Ok(done.rows_affected() == 1)
    })
    .await
}
