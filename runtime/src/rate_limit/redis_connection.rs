//! A connection to Redis that is made on demand, shared, and replaced after any failure.
//!
//! The library's own manager reconnects only after errors that it regards as a broken connection. A missing response is not
//! one of them, so a connection that hangs (its machine is gone, a router dropped it) would be used indefinitely.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult};
use secrecy::{ExposeSecret, SecretString};

#[derive(Clone)]
pub(super) struct RedisConnection {
    client: Client,
    config: AsyncConnectionConfig,
    connection: Arc<Mutex<Option<MultiplexedConnection>>>,
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
    pub(super) fn new(url: &SecretString, deadline: Duration) -> anyhow::Result<Self> {
        // The error would repeat the URL, and with it the password.
        let client =
            Client::open(url.expose_secret()).map_err(|_| anyhow::anyhow!("REDIS_URL: not a Redis URL"))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(deadline * 2))
            .set_response_timeout(Some(deadline));
        Ok(Self { client, config, connection: Arc::default() })
    }

    fn current(&self) -> MutexGuard<'_, Option<MultiplexedConnection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the current connection or makes a new one.
    pub(super) async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        if let Some(connection) = &*self.current() {
            return Ok(connection.clone());
        }
        let connection = self.client.get_multiplexed_async_connection_with_config(&self.config).await?;
        *self.current() = Some(connection.clone());
        Ok(connection)
    }

    /// Drops the connection after a failure: the next use connects again.
    pub(super) fn reset(&self) {
        *self.current() = None;
    }
}
