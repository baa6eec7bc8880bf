//! The commands of the binary: the parts of each role, and the order in which they stop.

pub mod api;
pub mod manage;
pub mod worker;
pub mod dev;
pub mod apply;
pub mod providers;
pub mod verify;
pub mod filter;

use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_store::Database;
use grapnel_store::migrate;
use tokio_util::sync::CancellationToken;

/// How often a process that waits for the schema checks it.
const SCHEMA_POLL: Duration = Duration::from_secs(1);

/// How long one check may take.
const SCHEMA_DEADLINE: Duration = Duration::from_secs(10);

/// Waits until the migrations have run. Pods of a new version wait here for the migration job.
async fn wait_for_schema(db: &Database) {
    loop {
        let reason = match tokio::time::timeout(SCHEMA_DEADLINE, migrate::require(db)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&*error),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::info!(reason, "waiting for the database");
        tokio::time::sleep(SCHEMA_POLL).await;
    }
}

/// Why a process is not ready whose sessions with PostgreSQL only read.
const READ_ONLY: &str = "PostgreSQL accepts no writes";

/// How often a process checks whether PostgreSQL accepts writes.
const DATABASE_POLL: Duration = Duration::from_secs(1);

/// Finds out that PostgreSQL accepts no writes, and that it does again, also while nothing is written.
async fn watch_database(db: Database, stop: CancellationToken) {
    loop {
        if let Err(error) = db.ping().await {
            tracing::debug!(error = %chain(&error), "the database cannot be used");
        }
        metrics::gauge!("grapnel_postgres_read_only").set(u8::from(db.is_read_only()));
        if stop.run_until_cancelled(tokio::time::sleep(DATABASE_POLL)).await.is_none() {
            return;
        }
    }
}
