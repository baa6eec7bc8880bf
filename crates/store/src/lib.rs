//! PostgreSQL: the only truth, and the only module that speaks SQL.
//!
//! One file for each step that touches the database. Every statement is static text. The hot statements (ingest, claim,
//! record) are group commits: one multi-row statement for everything that waits. All but `read` and `replay` are written
//! by the flow itself; those two serve the management routes.

use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::time::timeout;

pub mod migrate;
pub mod partitions;
pub mod dedicated_connection;

pub mod events;
pub mod deliveries;
pub mod replays;
pub mod integrations;
pub mod captured_secrets;
pub mod secret_uses;
pub mod views;

/// A connection that cannot be had within this is an outage.
const ACQUIRE_DEADLINE: Duration = Duration::from_secs(5);

/// How long a use of the pool may take before its connection counts as hanging: its machine may have vanished, and TCP
/// alone would wait for a quarter of an hour, or for ever.
const DEADLINE: Duration = Duration::from_secs(10);

/// A connection that goes back to the pool answers within this or is closed.
const PING_DEADLINE: Duration = Duration::from_secs(2);

/// No statement of ours is meant to take this long; a stuck one must not hold locks for ever.
const STATEMENT_TIMEOUT: &str = "30s";

/// Whether the text is a URL of PostgreSQL. The library would read any scheme.
pub fn is_url(text: &str) -> bool {
    let has_scheme = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
    has_scheme && PgConnectOptions::from_str(text).is_ok()
}

/// A pool that connects on first use, so that a process starts and waits while PostgreSQL is away.
pub fn pool(database_url: &SecretString, role: &str, max_connections: u32) -> anyhow::Result<PgPool> {
    Ok(connect_lazily(options(database_url, role)?, max_connections))
}

/// A pool for claims alone: their commits do not wait for the disk. A claim that a crash of PostgreSQL loses is only
/// made again, and its result is refused.
pub fn claim_pool(database_url: &SecretString, max_connections: u32) -> anyhow::Result<PgPool> {
    let options = options(database_url, "claim")?.options([("synchronous_commit", "off")]);
    Ok(connect_lazily(options, max_connections))
}

fn options(database_url: &SecretString, role: &str) -> anyhow::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(database_url.expose_secret())
        .map_err(|_| anyhow::anyhow!("DATABASE_URL: not a PostgreSQL URL"))?
        .application_name(&format!("grapnel-{role}"))
        // Tables are planned while their partitions are nearly empty, and a sequential scan chosen then is ruinous an
        // hour later; every statement of ours has an index. A generic plan prunes partitions when it runs, and saves
        // planning over all of them each time.
        .options([
            ("enable_seqscan", "off"),
            ("plan_cache_mode", "force_generic_plan"),
            // Compiling a statement costs more than running any of ours.
            ("jit", "off"),
            ("statement_timeout", STATEMENT_TIMEOUT),
        ]);
    Ok(options)
}

fn connect_lazily(options: PgConnectOptions, max_connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_DEADLINE)
        .max_lifetime(Duration::from_secs(1800))
        // A ping before each use costs a round trip; a dead connection shows itself and is retried by its user.
        .test_before_acquire(false)
        // The pool itself pings a connection that goes back, but waits for ever, and the place of one that hangs would
        // be gone with it.
        .after_release(|connection, _| {
            Box::pin(async {
                timeout(PING_DEADLINE, connection.ping()).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
                Ok(true)
            })
        })
        .connect_lazy_with(options)
}

/// Bounds a use of the pool, and lets the pool learn from its failure.
pub async fn bounded<T>(pool: &PgPool, work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let result = timeout(DEADLINE, work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
    if let Err(error) = &result
        && is_outage(error)
    {
        forget_idle(pool);
    }
    result
}

/// Closes the connections that wait in the pool. What broke one (a restart, a failover, a network that forgot them) broke
/// the others too, and each would fail its next user.
pub fn forget_idle(pool: &PgPool) {
    while let Some(idle) = pool.try_acquire() {
        drop(idle.detach());
    }
}

/// Whether the error says that the connection is gone, or hangs.
pub fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        // Class 08 is a lost connection, 57P0x a server that shuts down or starts.
        sqlx::Error::Database(database) => {
            database.code().is_some_and(|code| code.starts_with("08") || code.starts_with("57P"))
        }
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut => {
            true
        }
        _ => false,
    }
}

/// Whether the error says that the rows themselves are at fault (bad data, a violated constraint), so that sending them
/// again cannot help, and not that PostgreSQL is away.
pub fn is_data_error(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|database| database.code());
    code.is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
}
