//! PostgreSQL: the only truth, and the only module that speaks SQL.
//!
//! One file for each step that touches the database. Every statement is static text. The hot statements (ingest, claim,
//! record) are group commits: one multi-row statement for everything that waits. All but `read` and `replay` are written
//! by the flow itself; those two serve the management routes.

use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

pub mod migrate;
pub mod partitions;
pub mod hot;
pub mod integrations;
pub mod epoch;
pub mod retire;
pub mod ingest;
pub mod claim;
pub mod record;
pub mod due;
pub mod replay;
pub mod read;

/// A connection that cannot be had within this is an outage.
const ACQUIRE_DEADLINE: Duration = Duration::from_secs(5);

/// No statement of ours is meant to take this long; a stuck one must not hold locks for ever.
const STATEMENT_TIMEOUT: &str = "30s";

/// A pool that connects on first use, so that a process starts and waits while PostgreSQL is away.
pub fn pool(database_url: &SecretString, role: &str, max_connections: u32) -> anyhow::Result<PgPool> {
    let options = PgConnectOptions::from_str(database_url.expose_secret())
        .map_err(|_| anyhow::anyhow!("DATABASE_URL: not a PostgreSQL URL"))?
        .application_name(&format!("grapnel-{role}"))
        // Tables are planned while their partitions are nearly empty, and a sequential scan chosen then is ruinous an
        // hour later; every statement of ours has an index. A generic plan prunes partitions when it runs, and saves
        // planning over all of them each time.
        .options([
            ("enable_seqscan", "off"),
            ("plan_cache_mode", "force_generic_plan"),
            ("statement_timeout", STATEMENT_TIMEOUT),
        ]);
    Ok(PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_DEADLINE)
        .max_lifetime(Duration::from_secs(1800))
        // A ping before each use costs a round trip; a dead connection shows itself and is retried by its user.
        .test_before_acquire(false)
        .connect_lazy_with(options))
}

/// Whether the error says that the rows themselves are at fault (bad data, a violated constraint), so that sending them
/// again cannot help, and not that PostgreSQL is away.
pub fn is_data_error(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|database| database.code());
    code.is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
}
