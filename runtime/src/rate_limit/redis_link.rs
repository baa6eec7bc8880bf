//! One connection to Redis, made on demand, shared, and made anew after any failure.
//!
//! The library's own manager makes a new one only after errors that it takes for a broken connection. A missing answer
//! is none of them, so a connection that hangs (its machine vanished, a router forgot it) would be used for ever.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult};
use secrecy::{ExposeSecret, SecretString};

#[derive(Clone)]
pub(super) struct RedisLink {
    client: Client,
    config: AsyncConnectionConfig,
    connection: Arc<Mutex<Option<MultiplexedConnection>>>,
}

// Not derived: the client's would show the password.
impl std::fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisLink")
    }
}

impl RedisLink {
    /// Redis answers within `deadline`, and takes a connection within twice that, or counts as away.
    ///
    /// # Errors
    /// A URL that is not Redis's.
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

    /// The connection that is there, or a new one.
    pub(super) async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        if let Some(connection) = &*self.current() {
            return Ok(connection.clone());
        }
        let connection = self.client.get_multiplexed_async_connection_with_config(&self.config).await?;
        *self.current() = Some(connection.clone());
        Ok(connection)
    }

    /// To be called after a failure: the next use connects.
    pub(super) fn forget(&self) {
        *self.current() = None;
    }
}
