//! A connection that a busy writer keeps between its statements.
//!
//! Returning a connection to the pool costs a round trip, which a writer that needs it again at once can save. After an
//! error that is not about the rows, the connection is closed: it may be broken, or in the middle of an answer.

use sqlx::PgConnection;
use sqlx::pool::PoolConnection;
use sqlx::postgres::Postgres;
use tokio::time::timeout;

use crate::database::{DEADLINE, Database};
use crate::error::{Error, Result};

/// One connection of a pool, kept between uses.
#[derive(Debug)]
pub struct DedicatedConnection {
    db: Database,
    kept: Option<PoolConnection<Postgres>>,
}

impl DedicatedConnection {
    /// Makes a handle that takes a connection on first use.
    pub fn new(db: Database) -> Self {
        Self { db, kept: None }
    }

    /// Returns the kept connection, or a new one.
    pub(crate) async fn get(&mut self) -> Result<&mut PgConnection> {
        let connection = match self.kept.take() {
            Some(connection) => connection,
            None => self.db.pool().acquire().await?,
        };
        Ok(self.kept.insert(connection))
    }

    /// Ends a use: closes the connection when the result shows that it may not be usable.
    pub(crate) fn keep_if_usable<T>(&mut self, result: &Result<T>) {
        if let Err(error) = result
            && !error.is_data_error()
            && let Some(connection) = self.kept.take()
        {
            // Detached, so that the pool opens another in its place; closing is the drop.
            drop(connection.detach());
            if error.is_connection_lost() || matches!(error, Error::Deadline) {
                self.db.forget_idle();
            }
        }
    }
}

/// Bounds a statement on a kept connection.
pub(crate) async fn within_deadline<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(DEADLINE, work).await.unwrap_or(Err(Error::Deadline))
}
