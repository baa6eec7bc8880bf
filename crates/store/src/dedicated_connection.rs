//! A connection that a busy writer keeps between its statements.
//!
//! Returning a connection to the pool costs a round trip, which a writer that needs it again at once can save. After an
//! error that is not about the rows, the connection is closed: it may be broken, or in the middle of an answer. So is one that is as
//! old as another that was found to be read-only.

use std::time::Instant;

use sqlx::PgConnection;
use sqlx::pool::PoolConnection;
use sqlx::postgres::Postgres;

use crate::database::Database;
use crate::error::Result;

/// One connection of a pool, kept between uses.
#[derive(Debug)]
pub struct DedicatedConnection {
    db: Database,
    kept: Option<KeptConnection>,
}

#[derive(Debug)]
struct KeptConnection {
    connection: PoolConnection<Postgres>,
    /// It was trusted then.
    since: Instant,
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
        let mut kept = match self.kept.take() {
            Some(kept) if db.sessions().are_trusted_since(kept.since) => kept,
            outdated => {
                if let Some(outdated) = outdated {
                    outdated.close();
                }
                KeptConnection { since: Instant::now(), connection: db.pool().acquire().await? }
            }
        };
        let result = db.bounded(work(&mut kept.connection)).await;
        match &result {
            Err(error) if !error.is_data_error() => kept.close(),
            _ => self.kept = Some(kept),
        }
        result
    }
}

impl KeptConnection {
    /// Closes the connection, which is the drop. It is detached, so that the pool opens another in its place.
    fn close(self) {
        drop(self.connection.detach());
    }
}
