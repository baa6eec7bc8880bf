//! The claimants: sessions of workers, each together with a connection to RabbitMQ. The leases of one whose session and connection
//! have both ended need not run to their end.
//!
//! A session is seen by its advisory lock, which PostgreSQL releases when it ends. Its number is random and used once, so a lock that
//! is free stays free.

use grapnel_core::ids::{ClaimantId, IntegrationId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tokio::time::timeout;

use crate::columns::Columns;
use crate::database::{DEADLINE, Database};
use crate::error::{Error, Result};

/// Claimants that one look finds; the others are found when these are done.
const MAX_FOUND: i64 = 1_000;

/// A claimant as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimantRow {
    pub id: ClaimantId,
    /// The number of its session's advisory lock.
    pub session: i64,
    /// The exclusive queue of its connection.
    pub presence: String,
    /// The one that it works for; `None`: all.
    pub integration_id: Option<IntegrationId>,
    /// It has stopped sending.
    pub is_given_up: bool,
}

/// What a session was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// It holds its lock, on the server that others ask.
    Held,
    /// It is on a standby: the lock is there, and others do not see it.
    OnStandby,
    /// Statements reach another session than the one with the lock: there is a pooler in between that hands out sessions by the
    /// transaction, or releases their locks.
    Shared,
}

/// A session of its own that holds an advisory lock until it ends.
#[derive(Debug)]
pub struct ClaimantSession {
    connection: PgConnection,
    number: i64,
}

impl ClaimantSession {
    /// Begins a session that takes the lock with this number, twice: see [`ClaimantSession::check`].
    pub async fn begin(db: &Database, number: i64) -> Result<Self> {
        db.bounded(async {
            let mut connection = db.pool().acquire().await?.detach();
            let is_locked: bool = sqlx::query_scalar(
                "/* claimants::begin */ SELECT pg_try_advisory_lock($1) AND pg_try_advisory_lock($1)",
            )
            .bind(number)
            .fetch_one(&mut connection)
            .await?;
            if !is_locked {
                return Err(Error::Unavailable(sqlx::Error::PoolTimedOut));
            }
            Ok(Self { connection, number })
        })
        .await
    }

    /// Checks that the session still holds its lock. An error means that it has ended.
    ///
    /// Only an unlock tells whether a session holds an advisory lock. It holds it twice, so that it is never free meanwhile.
    pub async fn check(&mut self) -> Result<SessionState> {
        let row = sqlx::query(
            "/* claimants::check */
            SELECT pg_advisory_unlock($1) AND pg_try_advisory_lock($1) AS is_held, pg_is_in_recovery() AS is_standby",
        )
        .bind(self.number)
        .fetch_one(&mut self.connection);
        let row = timeout(DEADLINE, row).await.map_err(|_elapsed| Error::Deadline)??;
        Ok(match (row.try_get("is_held")?, row.try_get("is_standby")?) {
            (false, _) => SessionState::Shared,
            (true, true) => SessionState::OnStandby,
            (true, false) => SessionState::Held,
        })
    }
}

/// Stores a claimant before it claims.
pub async fn register(db: &Database, claimant: &ClaimantRow) -> Result<()> {
    db.bounded(async {
        sqlx::query(
            "/* claimants::register */
            INSERT INTO claimants (id, session, presence, integration_id) VALUES ($1, $2, $3, $4)
            ON CONFLICT (id) DO NOTHING",
        )
        .bind(claimant.id.stored())
        .bind(claimant.session)
        .bind(&claimant.presence)
        .bind(claimant.integration_id.map(IntegrationId::uuid))
        .execute(db.pool())
        .await?;
        Ok(())
    })
    .await
}

/// Notes that claimants have stopped sending, so that others need not find out.
pub async fn give_up(db: &Database, ids: &[ClaimantId]) -> Result<()> {
    db.bounded(async {
        sqlx::query("/* claimants::give_up */ UPDATE claimants SET is_given_up = true WHERE id = ANY($1)")
            .bind(stored(ids))
            .execute(db.pool())
            .await?;
        Ok(())
    })
    .await
}

/// Removes claimants that have no leases any more.
pub async fn remove(db: &Database, ids: &[ClaimantId]) -> Result<()> {
    db.bounded(async {
        sqlx::query("/* claimants::remove */ DELETE FROM claimants WHERE id = ANY($1)")
            .bind(stored(ids))
            .execute(db.pool())
            .await?;
        Ok(())
    })
    .await
}

/// Returns the claimants whose session has ended, and those that have given up.
pub async fn without_session(db: &Database) -> Result<Vec<ClaimantRow>> {
    db.bounded(async {
        // A lock that is free is taken until the end of the statement, and shared, so that others may look at the same time.
        let rows = sqlx::query(
            "/* claimants::without_session */
            SELECT id, session, presence, integration_id, is_given_up
            FROM claimants
            WHERE is_given_up OR pg_try_advisory_xact_lock_shared(session)
            LIMIT $1",
        )
        .bind(MAX_FOUND)
        .fetch_all(db.pool())
        .await?;
        rows.iter().map(claimant_row).collect()
    })
    .await
}

fn claimant_row(row: &PgRow) -> Result<ClaimantRow> {
    Ok(ClaimantRow {
        id: ClaimantId::from_stored(row.try_get("id")?),
        session: row.try_get("session")?,
        presence: row.try_get("presence")?,
        integration_id: row.optional_id("integration_id", IntegrationId::new)?,
        is_given_up: row.try_get("is_given_up")?,
    })
}

fn stored(ids: &[ClaimantId]) -> Vec<i64> {
    ids.iter().map(|id| id.stored()).collect()
}
