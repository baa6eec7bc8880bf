//! The connection of a round. Its advisory lock lets one process at a time have one, and nobody waits for it: a statement that
//! waits keeps an old snapshot, for which the concurrent commands of the round would wait in turn.

use sqlx::postgres::PgQueryResult;
use sqlx::{Executor, PgConnection};

use crate::database::Database;
use crate::error::Result;

/// The number of the advisory lock.
const ROUND_LOCK: i64 = 0x6772_6170_6e65_6c02;

/// A connection that is closed at the end, and gives its lock back by that.
pub(super) struct Session(PgConnection);

impl Session {
    /// Returns `None` when another process has the lock.
    pub(super) async fn begin(db: &Database) -> Result<Option<Self>> {
        db.bounded(async {
            let mut connection = db.pool().acquire().await?.detach();
            let is_locked: bool =
                sqlx::query_scalar("/* retention::session::begin */ SELECT pg_try_advisory_lock($1)")
                    .bind(ROUND_LOCK)
                    .fetch_one(&mut connection)
                    .await?;
            if !is_locked {
                return Ok(None);
            }
            let mut session = Self(connection);
            session.execute("SET lock_timeout = '1s'").await?;
            Ok(Some(session))
        })
        .await
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    /// Executes a command by itself: a concurrent one cannot be a part of a transaction.
    pub(super) async fn execute(&mut self, command: &str) -> Result<PgQueryResult> {
        Ok(self.0.execute(command).await?)
    }
}
