//! The lease of the one process that looks for lost messages and publishes what was held. Two at once would only do the same
//! work twice.

use std::time::Duration;

use uuid::Uuid;

use crate::database::Database;
use crate::error::Result;

/// Takes the lease if it is free, or renews it; returns whether `holder` has it now. Costs a reader when another has it.
pub async fn hold(db: &Database, holder: Uuid, lease: Duration) -> Result<bool> {
    db.bounded(async {
        let done = sqlx::query(
            "/* dispatcher_lease::hold */
            UPDATE dispatcher_lease SET holder = $1, held_until = now() + make_interval(secs => $2)
            WHERE holder = $1 OR held_until < now()",
        )
        .bind(holder)
        .bind(lease.as_secs_f64())
        .execute(db.pool())
        .await?;
        Ok(done.rows_affected() == 1)
    })
    .await
}

/// Gives the lease up, so that another process need not wait for its end.
pub async fn release(db: &Database, holder: Uuid) -> Result<()> {
    db.bounded(async {
        sqlx::query(
            "/* dispatcher_lease::release */
            UPDATE dispatcher_lease SET held_until = now() WHERE holder = $1",
        )
        .bind(holder)
        .execute(db.pool())
        .await?;
        Ok(())
    })
    .await
}
