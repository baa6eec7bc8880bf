//! Applies the migrations that are embedded in the binary.
//!
//! Idempotent, and safe to run from several processes at once: sqlx takes an advisory lock around the whole run.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::Context;
use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use tokio::time::{Instant, sleep};

use grapnel_core::error_chain::chain;

use crate::database::Database;

/// The pause between two attempts to reach a database that does not answer yet.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Every migration, in order. A file is never edited once it was released.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "initial", include_str!("../../../migrations/0001_initial.sql")),
    (2, "previous secrets", include_str!("../../../migrations/0002_previous_secrets.sql")),
    (3, "delivery status order", include_str!("../../../migrations/0003_delivery_status_order.sql")),
    (4, "housekeeping", include_str!("../../../migrations/0004_housekeeping.sql")),
    (5, "held deliveries", include_str!("../../../migrations/0005_held_deliveries.sql")),
    (6, "freed routes", include_str!("../../../migrations/0006_freed_routes.sql")),
    (7, "requests", include_str!("../../../migrations/0007_requests.sql")),
    (8, "filters", include_str!("../../../migrations/0008_filters.sql")),
    (9, "claimants", include_str!("../../../migrations/0009_claimants.sql")),
    (10, "unsent and gone", include_str!("../../../migrations/0010_unsent_and_gone.sql")),
    (11, "service endpoints", include_str!("../../../migrations/0011_service_endpoints.sql")),
    (12, "event search", include_str!("../../../migrations/0012_event_search.sql")),
    (13, "failed by destination", include_str!("../../../migrations/0013_failed_by_destination.sql")),
    (14, "attempts of integration", include_str!("../../../migrations/0014_attempts_of_integration.sql")),
    (15, "traffic", include_str!("../../../migrations/0015_traffic.sql")),
    (16, "erasure", include_str!("../../../migrations/0016_erasure.sql")),
    (17, "replay jobs", include_str!("../../../migrations/0017_replay_jobs.sql")),
    (18, "console sessions", include_str!("../../../migrations/0018_console_sessions.sql")),
    (19, "integration statuses", include_str!("../../../migrations/0019_integration_statuses.sql")),
    (20, "packed headers", include_str!("../../../migrations/0020_packed_headers.sql")),
    (21, "keys of days", include_str!("../../../migrations/0021_keys_of_days.sql")),
    (
        22,
        "shared entries of attempts",
        include_str!("../../../migrations/0022_shared_entries_of_attempts.sql"),
    ),
];

/// The schema version that this binary was written for.
pub const REQUIRED_VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].0;

fn migrator() -> Migrator {
    let migrations = MIGRATIONS.iter().map(|(version, description, sql)| {
        let (description, sql) = (Cow::Borrowed(*description), Cow::Borrowed(*sql));
        Migration::new(*version, description, MigrationType::Simple, sql, false)
    });
    // An older binary must be able to run beside a newer schema while a rollout is under way.
    Migrator { migrations: migrations.collect(), ignore_missing: true, locking: true, no_tx: false }
}

/// Applies the missing migrations and returns the version after them.
pub async fn run(db: &Database) -> anyhow::Result<i64> {
    migrator().run(db.pool()).await.context("apply migrations")?;
    super::partitions::ensure(db).await.context("create partitions")?;
    current_version(db).await
}

/// Waits until the database answers, or fails with its last error once the time has passed. A database that is new with
/// its installation may take minutes, and one that does not exist yet looks like one that is down.
pub async fn wait_for_answer(db: &Database, longest: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + longest;
    loop {
        let Err(error) = db.pool().acquire().await else { return Ok(()) };
        if Instant::now() + RETRY_AFTER > deadline {
            return Err(error).context("connect to PostgreSQL");
        }
        tracing::info!(error = chain(&error), "the database does not answer yet");
        sleep(RETRY_AFTER).await;
    }
}

/// Returns the version that is applied; 0 is an empty database.
pub async fn current_version(db: &Database) -> anyhow::Result<i64> {
    let mut connection = db.pool().acquire().await.context("connect to PostgreSQL")?;
    if table_is_missing(&mut connection).await? {
        return Ok(0);
    }
    let applied = connection.list_applied_migrations().await.context("list applied migrations")?;
    Ok(applied.iter().map(|migration| migration.version).max().unwrap_or(0))
}

async fn table_is_missing(connection: &mut sqlx::PgConnection) -> anyhow::Result<bool> {
    let found: Option<String> = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations')::text")
        .fetch_one(connection)
        .await
        .context("look for the migrations table")?;
    Ok(found.is_none())
}

/// Fails unless the schema is new enough for this binary.
pub async fn require(db: &Database) -> anyhow::Result<()> {
    let version = current_version(db).await?;
    anyhow::ensure!(
        version >= REQUIRED_VERSION,
        "the database has schema version {version} and version {REQUIRED_VERSION} is needed: run `grapnel migrate`"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_is_listed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files
            .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
            .map(|path| {
                (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
            })
            .collect();
        files.sort();
        let listed = MIGRATIONS.iter().map(|(version, description, sql)| {
            (format!("{version:04}_{}.sql", description.replace(' ', "_")), (*sql).to_owned())
        });
        assert_eq!(files, listed.collect::<Vec<_>>());
    }
}
