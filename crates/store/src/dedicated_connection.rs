//! A connection that a busy writer keeps between its statements.
//!
//! Returning a connection to the pool costs a round trip, which a writer that needs it again at once can save. After an
//! error that is not about the rows, the connection is closed: it may be broken, or in the middle of an answer.

use sqlx::PgConnection;
use sqlx::pool::PoolConnection;
use sqlx::postgres::Postgres;

use crate::database::Database;
use crate::error::Result;

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

    /// Bounds a use of the connection. Afterwards closes it when the result shows that it may not be usable, and the idle
    /// ones too when it was lost.
    pub(crate) async fn bounded<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T>,
    ) -> Result<T> {
        let db = self.db.clone();
        let mut connection = match self.kept.take() {
            Some(connection) => connection,
            None => db.pool().acquire().await?,
        };
        let result = db.bounded(work(&mut connection)).await;
        match &result {
            // Detached, so that the pool opens another in its place; closing is the drop.
            Err(error) if !error.is_data_error() => drop(connection.detach()),
            _ => self.kept = Some(connection),
        }
        result
    }
}
