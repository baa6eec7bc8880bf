//! A connection that a hot writer keeps.
//!
//! Returning a connection to the pool costs a round trip, which a writer that needs it again at once need not pay. After
//! an error that is not about the rows the connection is closed: it may be broken, or in the middle of an answer.

use sqlx::PgConnection;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, Postgres};

#[derive(Debug)]
pub struct HotConnection {
    pool: PgPool,
    kept: Option<PoolConnection<Postgres>>,
}

impl HotConnection {
    pub fn new(pool: PgPool) -> Self {
        Self { pool, kept: None }
    }

    /// The kept connection, or a new one.
    pub async fn get(&mut self) -> sqlx::Result<&mut PgConnection> {
        let connection = match self.kept.take() {
            Some(connection) => connection,
            None => self.pool.acquire().await?,
        };
        Ok(self.kept.insert(connection))
    }

    /// Call after each use: drops the connection when the result says that it may not be usable.
    pub fn keep_if_usable<T>(&mut self, result: &sqlx::Result<T>) {
        if let Err(error) = result
            && !super::is_data_error(error)
            && let Some(connection) = self.kept.take()
        {
            // Detached, so that the pool opens another in its place; closing is the drop.
            drop(connection.detach());
            if super::is_outage(error) {
                super::forget_idle(&self.pool);
            }
        }
    }
}
