//! PostgreSQL, Redis and RabbitMQ: shared by the tests, or of one test alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

use super::processes::run_to_end;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Services of their own that tests may have at once: each is three servers, and a server that starts on a machine which
/// is busy with the others takes long.
static OWN: Semaphore = Semaphore::const_new(2);

/// Where the services are, and how to stop and start those that are a test's own.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) database_url: String,
    pub(crate) redis_url: String,
    pub(crate) rabbitmq_url: String,
    pub(crate) management_url: String,
    /// The state directory of services that are a test's own, and their place among those that may be there at once.
    own: Option<(PathBuf, SemaphorePermit<'static>)>,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/services")
}

fn services(arguments: &[&str], state: &Path) -> String {
    let output =
        Command::new(script()).args(arguments).arg("--state").arg(state).output().expect("scripts/services");
    assert!(
        output.status.success(),
        "scripts/services {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Services {
    /// The services that `scripts/test` started.
    pub(crate) fn shared() -> Self {
        let variable = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("{name} is not set: run scripts/test, or eval \"$(scripts/services env)\"")
            })
        };
        Self {
            database_url: variable("DATABASE_URL"),
            redis_url: variable("REDIS_URL"),
            rabbitmq_url: variable("RABBITMQ_URL"),
            management_url: variable("RABBITMQ_MANAGEMENT_URL"),
            own: None,
        }
    }

    /// Services of one test; stopped and removed when dropped.
    pub(crate) async fn own() -> Self {
        let permit = OWN.acquire().await.expect("a permit");
        let unique =
            format!("grapnel-services-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let state = std::env::temp_dir().join(unique);
        services(&["up"], &state);
        let exports = services(&["env"], &state);
        let variable = |name: &str| {
            let prefix = format!("export {name}=");
            let line = exports.lines().find_map(|line| line.strip_prefix(&prefix));
            line.unwrap_or_else(|| panic!("no {name} in {exports}")).trim_matches('\'').to_owned()
        };
        Self {
            database_url: variable("DATABASE_URL"),
            redis_url: variable("REDIS_URL"),
            rabbitmq_url: variable("RABBITMQ_URL"),
            management_url: variable("RABBITMQ_MANAGEMENT_URL"),
            own: Some((state, permit)),
        }
    }

    /// `start`, `stop`, `restart` or `kill` one of `postgres`, `redis`, `rabbitmq`.
    pub(crate) async fn control(&self, action: &'static str, service: &'static str) {
        let (state, _) = self.own.as_ref().expect("only a test's own services may be controlled");
        let state = state.clone();
        // What else the test runs goes on meanwhile.
        let done = tokio::task::spawn_blocking(move || services(&[action, service], &state)).await;
        done.expect("the service does as it is told");
    }

    pub(crate) fn database_url_of(&self, database: &str) -> String {
        let mut url = Url::parse(&self.database_url).expect("a URL");
        url.set_path(database);
        url.into()
    }

    /// A migrated database: a copy of one that was migrated once for all tests, which is ten times as fast as migrating.
    pub(crate) async fn create_database(&self, database: &str) {
        let mut admin = PgConnection::connect(&self.database_url).await.expect("connect to PostgreSQL");
        let template = template_name();
        let lock = "SELECT pg_advisory_lock(hashtext('grapnel test template'))";
        sqlx::query(lock).execute(&mut admin).await.expect("the lock");
        let found: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
            .bind(&template)
            .fetch_optional(&mut admin)
            .await
            .expect("the databases");
        if found.is_none() {
            self.create_template(&mut admin, &template).await;
        }
        sqlx::query("SELECT pg_advisory_unlock_all()").execute(&mut admin).await.expect("the lock");
        let create = format!("CREATE DATABASE {database} TEMPLATE {template} STRATEGY wal_log");
        sqlx::query(&create).execute(&mut admin).await.expect("create a database");
    }

    pub(crate) async fn create_empty_database(&self, database: &str) {
        let mut admin = PgConnection::connect(&self.database_url).await.expect("connect to PostgreSQL");
        let create = format!("CREATE DATABASE {database}");
        sqlx::query(&create).execute(&mut admin).await.expect("create a database");
    }

    async fn create_template(&self, admin: &mut PgConnection, template: &str) {
        // Under another name until it is whole: a test may end at any moment.
        for sql in [
            format!("DROP DATABASE IF EXISTS {template}_new WITH (FORCE)"),
            format!("CREATE DATABASE {template}_new"),
        ] {
            sqlx::query(&sql).execute(&mut *admin).await.expect("create a database");
        }
        let url = self.database_url_of(&format!("{template}_new"));
        let migrated = run_to_end(&["migrate"], &[("DATABASE_URL".to_owned(), url)]).await;
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        let rename = format!("ALTER DATABASE {template}_new RENAME TO {template}");
        sqlx::query(&rename).execute(admin).await.expect("rename a database");
    }

    /// Of the shared services only: own ones go as a whole.
    pub(crate) fn drop_database(&self, database: &str) {
        if self.own.is_none() {
            let drop = format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)");
            report(Command::new("psql").args(["-q", "-d", &self.database_url, "-c", &drop]));
        }
    }

    /// The queues under a prefix, with how many messages are ready in each, as RabbitMQ's management tells (some
    /// seconds late).
    pub(crate) async fn queues(&self, prefix: &str) -> Vec<String> {
        let mut url = Url::parse(&self.management_url).expect("a URL");
        let (user, password) = (url.username().to_owned(), url.password().unwrap_or_default().to_owned());
        url.set_path("/api/queues/%2F");
        url.set_username("").expect("a URL with a host");
        url.set_password(None).expect("a URL with a host");
        let answer =
            reqwest::Client::new().get(url).basic_auth(user, Some(password)).send().await.expect("an answer");
        let queues: serde_json::Value = answer.json().await.expect("JSON");
        let names = queues.as_array().expect("a list").iter().filter_map(|queue| queue["name"].as_str());
        names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect()
    }

    pub(crate) fn delete_queues(&self, prefix: &str) {
        if self.own.is_some() {
            return;
        }
        // A thread of its own: this runs in a drop, where the test's runtime cannot be waited for.
        let (url, management_url, prefix) =
            (self.rabbitmq_url.clone(), self.management_url.clone(), prefix.to_owned());
        let deleted = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let services = Self {
                    database_url: String::new(),
                    redis_url: String::new(),
                    rabbitmq_url: String::new(),
                    management_url,
                    own: None,
                };
                let link = grapnel_platform::queue::QueueConnection::new(url.into(), "grapnel-tests");
                for queue in services.queues(&prefix).await {
                    link.delete_queue(&queue).await.expect("delete a queue");
                }
                link.close().await;
            });
        });
        if deleted.join().is_err() {
            eprintln!("queues of a test were not deleted");
        }
    }
}

/// Named after what it depends on: the migrations, and the day, since partitions are made ahead of it.
fn template_name() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the migrations")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    let digest = files
        .iter()
        .fold(Sha256::new(), |digest, file| digest.chain_update(std::fs::read(file).expect("a migration")));
    let day = jiff::Timestamp::now().strftime("%Y%m%d").to_string();
    format!("grapnel_template_{day}_{}", &hex::encode(digest.finalize())[..12])
}

fn report(command: &mut Command) {
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => eprintln!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => eprintln!("{error}"),
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if let Some((state, _)) = &self.own {
            report(Command::new(script()).args(["down", "--state"]).arg(state));
        }
    }
}
