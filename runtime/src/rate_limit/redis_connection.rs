//! A connection to Redis that is made on demand, shared, and replaced after any failure.
//!
//! The library's own manager reconnects only after errors that it regards as a broken connection. A missing response is not
//! one of them, so a connection that hangs (its machine is gone, a router dropped it) would be used indefinitely.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult};
use secrecy::{ExposeSecret, SecretString};

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct RedisConnection(Arc<Shared>);

struct Shared {
    client: Client,
    config: AsyncConnectionConfig,
    connection: Mutex<Option<MultiplexedConnection>>,
}

// Not derived: the client's own `Debug` shows the password.
impl std::fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisConnection")
    }
}

impl RedisConnection {
    /// Redis must answer within `deadline` and accept a connection within twice that; otherwise it counts as unavailable.
    ///
    /// # Errors
    /// Not a Redis URL.
    pub(crate) fn new(url: &SecretString, deadline: Duration) -> anyhow::Result<Self> {
        // The error would repeat the URL, and with it the password.
        let client =
            Client::open(url.expose_secret()).map_err(|_| anyhow::anyhow!("REDIS_URL: not a Redis URL"))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(deadline * 2))
            .set_response_timeout(Some(deadline));
        Ok(Self(Arc::new(Shared { client, config, connection: Mutex::default() })))
    }

    fn current(&self) -> MutexGuard<'_, Option<MultiplexedConnection>> {
        self.0.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the current connection or makes a new one.
    pub(crate) async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        if let Some(connection) = &*self.current() {
            return Ok(connection.clone());
        }
        let connection = self.0.client.get_multiplexed_async_connection_with_config(&self.0.config).await?;
        *self.current() = Some(connection.clone());
        Ok(connection)
    }

    /// Drops the connection after a failure: the next use connects again.
    pub(crate) fn reset(&self) {
        *self.current() = None;
    }
}
