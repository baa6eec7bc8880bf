//! The connections of a process for claims, which are kept between claims as a [`DedicatedConnection`] is.
//!
//! A pool tests each connection that returns to it, twice: once for us, with a deadline, and once for itself. A calm worker claims one
//! delivery at a time, so it would ask PostgreSQL three times for each.

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::PgConnection;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::database::{ACQUIRE_DEADLINE, Database};
use crate::dedicated_connection::DedicatedConnection;
use crate::error::{Error, Result};

/// A few connections for claims. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClaimConnections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Database,
    /// As many as the pool has connections, so that nobody waits there for one that is kept here.
    permits: Semaphore,
    /// The one that was used last is used next: the others may be idle.
    idle: Mutex<Vec<DedicatedConnection>>,
}

impl ClaimConnections {
    /// Makes so many connections beside those of a process. Each connects on first use.
    pub fn new(db: &Database, count: u32) -> Self {
        let permits = Semaphore::new(usize::try_from(count).unwrap_or(Semaphore::MAX_PERMITS));
        Self(Arc::new(Inner { db: db.for_claims(count), permits, idle: Mutex::default() }))
    }

    /// Bounds a use of a connection, and the wait for it. An error that is not about the rows ends the others that are idle too: what broke one broke
    /// them, and each would fail its next user.
    pub(crate) async fn bounded<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T>,
    ) -> Result<T> {
        let _permit = match timeout(ACQUIRE_DEADLINE, self.0.permits.acquire()).await {
            Ok(Ok(permit)) => permit,
            _ => return Err(Error::Unavailable(sqlx::Error::PoolTimedOut)),
        };
        let kept = self.idle(Vec::pop);
        let mut connection = kept.unwrap_or_else(|| DedicatedConnection::new(self.0.db.clone()));
        let result = connection.bounded(work).await;
        match &result {
            Err(error) if !error.is_data_error() => self.idle(Vec::clear),
            _ => self.idle(|idle| idle.push(connection)),
        }
        result
    }

    fn idle<T>(&self, change: impl FnOnce(&mut Vec<DedicatedConnection>) -> T) -> T {
        change(&mut self.0.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
