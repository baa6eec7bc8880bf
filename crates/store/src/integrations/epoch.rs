//! The fence against a writer that was replaced: every row of an applied object carries the epoch of the leader that wrote
//! it last, and a lower epoch writes nothing.

use crate::database::Database;
use crate::error::Result;
use grapnel_core::integration::FILE_UID_PREFIX;

/// Returns the highest epoch of any row; 0 when there is no row.
pub async fn highest(db: &Database) -> Result<i64> {
    db.bounded(async {
        sqlx::query_scalar(
            "/* integrations::epoch::highest */
            SELECT COALESCE(max(writer_epoch), 0) FROM integrations",
        )
        .fetch_one(db.pool())
        .await
        .map_err(Into::into)
    })
    .await
}

/// Writes a new leader's epoch to every live row, so that a write of an older leader that is still under way is refused
/// even where the new one has nothing to change. Returns false when a newer leader was there before.
///
/// Rows from files have no leader and are not changed.
pub async fn take_over(db: &Database, epoch: i64) -> Result<bool> {
    db.bounded(async {
        let mut tx = db.pool().begin().await?;
        sqlx::query(
            "/* integrations::epoch::take_over */
            UPDATE integrations SET writer_epoch = $1
            WHERE writer_epoch < $1 AND deleted_at IS NULL AND NOT starts_with(uid, $2)",
        )
        .bind(epoch)
        .bind(FILE_UID_PREFIX)
        .execute(&mut *tx)
        .await?;
        let newest: bool = sqlx::query_scalar(
            "/* integrations::epoch::take_over, check */
            SELECT NOT EXISTS (SELECT FROM integrations WHERE writer_epoch > $1)",
        )
        .bind(epoch)
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(newest)
    })
    .await
}
