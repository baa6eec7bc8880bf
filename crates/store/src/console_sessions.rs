//! Sessions of the console. What identifies one is the hash of its id, so the table opens no session; the credential is sealed by the caller.

use std::time::Duration;

use sqlx::Row;

use crate::database::Database;
use crate::error::Result;

/// The sessions that one owner may have at a time: with one more, the oldest ends.
const MAX_OF_OWNER: i64 = 50;

/// The rows that one statement drops.
const BATCH: i64 = 1_000;

/// A session that is not over.
#[derive(Debug)]
pub struct ConsoleSession {
    /// Who logged in, as the audit trail names it.
    pub owner: String,
    /// Sealed.
    pub credential: Vec<u8>,
}

/// Begins a session. The oldest of its owner end if there are too many.
pub async fn begin(
    db: &Database,
    id_hash: &[u8; 32],
    session: &ConsoleSession,
    lasts: Duration,
) -> Result<()> {
    db.bounded(async {
        sqlx::query(
            "/* console_sessions::begin */
            WITH surplus AS (
                DELETE FROM console_sessions WHERE id_hash IN (
                    SELECT id_hash FROM console_sessions WHERE owner = $2 ORDER BY created_at DESC OFFSET $5 - 1
                )
            )
            INSERT INTO console_sessions (id_hash, owner, credential, expires_at)
            VALUES ($1, $2, $3, now() + make_interval(secs => $4))",
        )
        .bind(&id_hash[..])
        .bind(&session.owner)
        .bind(&session.credential)
        .bind(lasts.as_secs_f64())
        .bind(MAX_OF_OWNER)
        .execute(db.pool())
        .await?;
        Ok(())
    })
    .await
}

/// Reads a session; `None`: there is none with this id, or it is over.
pub async fn find(db: &Database, id_hash: &[u8; 32]) -> Result<Option<ConsoleSession>> {
    db.bounded(async {
        let row = sqlx::query(
            "/* console_sessions::find */
            SELECT owner, credential FROM console_sessions WHERE id_hash = $1 AND expires_at > now()",
        )
        .bind(&id_hash[..])
        .fetch_optional(db.pool())
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(ConsoleSession { owner: row.try_get("owner")?, credential: row.try_get("credential")? }))
    })
    .await
}

/// Ends a session, whether or not there is one.
pub async fn end(db: &Database, id_hash: &[u8; 32]) -> Result<()> {
    db.bounded(async {
        sqlx::query("/* console_sessions::end */ DELETE FROM console_sessions WHERE id_hash = $1")
            .bind(&id_hash[..])
            .execute(db.pool())
            .await?;
        Ok(())
    })
    .await
}

/// Drops sessions that are over, a bounded number of them. Returns how many.
pub async fn drop_expired(db: &Database) -> Result<u64> {
    db.bounded(async {
        let done = sqlx::query(
            "/* console_sessions::drop_expired */
            DELETE FROM console_sessions WHERE id_hash = ANY(ARRAY(
                SELECT id_hash FROM console_sessions WHERE expires_at <= now() ORDER BY expires_at LIMIT $1
            ))",
        )
        .bind(BATCH)
        .execute(db.pool())
        .await?;
        Ok(done.rows_affected())
    })
    .await
}
