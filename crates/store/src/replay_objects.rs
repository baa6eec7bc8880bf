//! Which Kubernetes objects have jobs that go on. What is done for an object is in [`crate::replay_jobs`].

use sqlx::Row;
use uuid::Uuid;

use crate::database::Database;
use crate::error::Result;

/// An object whose job goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedObject {
    pub uid: Uuid,
    pub namespace: String,
    pub name: String,
}

/// Returns the objects whose jobs were neither cancelled nor have ended. Their number is bounded by that of unfinished jobs.
pub async fn unfinished(db: &Database) -> Result<Vec<UnfinishedObject>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* replay_objects::unfinished */
            SELECT object_uid, object_namespace, object_name FROM replay_jobs
            WHERE finished_at IS NULL AND state <> 'Cancelling' AND object_uid IS NOT NULL",
        )
        .fetch_all(db.pool())
        .await?;
        let mut objects = Vec::with_capacity(rows.len());
        for row in rows {
            objects.push(UnfinishedObject {
                uid: row.try_get("object_uid")?,
                namespace: row.try_get("object_namespace")?,
                name: row.try_get("object_name")?,
            });
        }
        Ok(objects)
    })
    .await
}
