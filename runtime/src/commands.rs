//! The commands of the binary: the parts of each role, and the order in which they stop.

pub mod api;
pub mod worker;
pub mod dev;
pub mod apply;
pub mod providers;
pub mod verify;

use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_store::Database;
use grapnel_store::migrate;

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
