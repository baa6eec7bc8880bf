//! A database of one test, and the SQL that tests send to it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection, Postgres, Transaction};
use tokio::time::{Instant, sleep};

use crate::environment::{Environment, next_number};
use crate::process::run_to_end;
use crate::services::{TestServices, run_quietly};
use crate::wait::WAIT_TIMEOUT;

/// A database of one test. It is dropped with the value, unless its services are.
pub struct TestDatabase {
    name: String,
    url: String,
    /// The server that has to drop it.
    drop_at: Option<String>,
    pool: PgPool,
}

impl TestDatabase {
    /// Creates a migrated database: a copy of one that `grapnel migrate` made once for all tests, which is ten times as
    /// fast as migrating.
    pub async fn create(services: &TestServices, grapnel: &Path) -> Self {
        let mut admin = connect(services).await;
        let template = template_name();
        execute(&mut admin, "SELECT pg_advisory_lock(hashtext('grapnel test template'))").await;
        let found = format!("SELECT count(*) FROM pg_database WHERE datname = '{template}'");
        let found: i64 = sqlx::query_scalar(&found).fetch_one(&mut admin).await.expect("the databases");
        if found == 0 {
            create_template(services, &mut admin, &template, grapnel).await;
        }
        execute(&mut admin, "SELECT pg_advisory_unlock_all()").await;
        let name = new_name();
        execute(&mut admin, &format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log")).await;
        Self::open(services, name)
    }

    /// Creates a database without a schema.
    pub async fn create_empty(services: &TestServices) -> Self {
        let name = new_name();
        execute(&mut connect(services).await, &format!("CREATE DATABASE {name}")).await;
        Self::open(services, name)
    }

    fn open(services: &TestServices, name: String) -> Self {
        let url = services.database_url_of(&name);
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy(&url).expect("a URL");
        let drop_at = (!services.are_own()).then(|| services.database_url.clone());
        Self { name, url, drop_at, pool }
    }

    /// Returns a name that no other database of the tests has.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn secret_url(&self) -> SecretString {
        self.url.clone().into()
    }

    /// Applies the migrations up to a version, as the release did that had it.
    pub async fn migrate_to(&self, version: i64) {
        let mut migrator = Migrator::new(migrations()).await.expect("the migrations");
        migrator.migrations.to_mut().retain(|migration| migration.version <= version);
        migrator.run(&self.pool).await.expect("apply the migrations");
    }

    /// Executes statements, and returns how many rows they affected.
    pub async fn execute(&self, sql: &str) -> u64 {
        let executed = sqlx::raw_sql(sql).execute(&self.pool).await;
        executed.unwrap_or_else(|error| panic!("{sql}: {error}")).rows_affected()
    }

    /// Returns the number that a query selects.
    pub async fn count(&self, sql: &str) -> i64 {
        self.try_count(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Waits until the number is the expected one, also while the database does not respond.
    pub async fn wait_for_count(&self, sql: &str, expected: i64) {
        let mut last = None;
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while Instant::now() < deadline {
            last = self.try_count(sql).await.ok();
            if last == Some(expected) {
                return;
            }
            sleep(Duration::from_millis(25)).await;
        }
        panic!("{sql}: {last:?} instead of {expected}");
    }

    async fn try_count(&self, sql: &str) -> sqlx::Result<i64> {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await
    }

    /// Returns the text in the only row of a query, which selects one column of type text.
    pub async fn text(&self, sql: &str) -> Option<String> {
        let selected = sqlx::query_scalar(sql).fetch_one(&self.pool).await;
        selected.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Returns the texts of a query that selects one column of type text.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let selected = sqlx::query_scalar(sql).fetch_all(&self.pool).await;
        selected.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Returns the rows of a query as JSON objects, in their order.
    pub async fn rows(&self, sql: &str) -> Vec<Value> {
        let rows = self.texts(&format!("SELECT row_to_json(selected)::text FROM ({sql}) selected")).await;
        rows.iter().map(|row| serde_json::from_str(row).expect("JSON")).collect()
    }

    /// Begins a transaction, for the locks that it holds.
    pub async fn begin(&self) -> TestTransaction {
        TestTransaction(self.pool.begin().await.expect("a transaction"))
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Some(server) = &self.drop_at {
            let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
            run_quietly(Command::new("psql").args(["-q", "-d", server, "-c", &drop]));
        }
    }
}

/// An open transaction. It is rolled back when dropped.
pub struct TestTransaction(Transaction<'static, Postgres>);

impl TestTransaction {
    pub async fn execute(&mut self, sql: &str) {
        assert!(self.try_execute(sql).await, "{sql}");
    }

    /// Executes statements, and returns whether they succeeded.
    pub async fn try_execute(&mut self, sql: &str) -> bool {
        sqlx::raw_sql(sql).execute(&mut *self.0).await.is_ok()
    }

    pub async fn commit(self) {
        self.0.commit().await.expect("commit the transaction");
    }

    pub async fn rollback(self) {
        self.0.rollback().await.expect("roll the transaction back");
    }
}

async fn connect(services: &TestServices) -> PgConnection {
    PgConnection::connect(&services.database_url).await.expect("connect to PostgreSQL")
}

async fn execute(admin: &mut PgConnection, sql: &str) {
    let executed = sqlx::raw_sql(sql).execute(admin).await;
    executed.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn create_template(services: &TestServices, admin: &mut PgConnection, template: &str, grapnel: &Path) {
    // It has another name until it is complete: a test may end at any moment.
    execute(admin, &format!("DROP DATABASE IF EXISTS {template}_new WITH (FORCE)")).await;
    execute(admin, &format!("CREATE DATABASE {template}_new")).await;
    let url = services.database_url_of(&format!("{template}_new"));
    let migrated = run_to_end(grapnel, &["migrate"], &Environment::new([("DATABASE_URL", &url)])).await;
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    let mut made = PgConnection::connect(&url).await.expect("connect to the template");
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations")
        .fetch_one(&mut made)
        .await
        .expect("a count");
    made.close().await.expect("a closed connection");
    assert_eq!(
        count as usize,
        migration_files().len(),
        "{} is older than the migrations: build it",
        grapnel.display()
    );
    execute(admin, &format!("ALTER DATABASE {template}_new RENAME TO {template}")).await;
}

fn migrations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations")
}

fn migration_files() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(migrations()).expect("the migrations");
    let files = folder.map(|entry| entry.expect("a file").path());
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|end| end == "sql")).collect();
    files.sort();
    files
}

fn new_name() -> String {
    format!("grapnel_test_{}_{}", std::process::id(), next_number())
}

/// Returns a name that depends on the migrations, and on the day, since partitions are created ahead of it.
fn template_name() -> String {
    let digest = migration_files()
        .iter()
        .fold(Sha256::new(), |digest, file| digest.chain_update(std::fs::read(file).expect("a migration")));
    let day = jiff::Timestamp::now().strftime("%Y%m%d").to_string();
    format!("grapnel_template_{day}_{}", &hex::encode(digest.finalize())[..12])
}
