//! What the tests are built on.
//!
//! A [`Platform`] is one installation: a database, a queue prefix, Integrations, and the processes that were started
//! for it. Everything is stopped and removed when it is dropped. Waits are on conditions, with deadlines.

pub(crate) mod load;
pub(crate) mod processes;
pub(crate) mod proxy;
pub(crate) mod queue;
pub(crate) mod receiver;
pub(crate) mod services;
pub(crate) mod tally;
pub(crate) mod wire;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use grapnel_store::Database;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::time::{Instant, sleep};

use self::processes::Process;
use self::services::Services;

pub(crate) const MANAGEMENT_KEY: &str = "test-management-key-0123456789";
pub(crate) const ACME_SECRET: &str = "acme-test-secret-7f3a";
pub(crate) const GLOBEX_TOKEN: &str = "globex-test-token-91bd";
/// `whsec_` and 32 bytes in base64.
pub(crate) const SIGNING_SECRET: &str = "whsec_dGVzdC1zaWduaW5nLXNlY3JldC0wMTIzNDU2Nzg5YWI=";
pub(crate) const SEALING_KEYS: &str = "first:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// Nothing in these tests takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A name that no other database of these tests has.
pub(crate) fn new_database_name() -> String {
    format!("grapnel_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One installation of Grapnel.
pub(crate) struct Platform {
    pub(crate) services: Services,
    /// For statements of the tests.
    pub(crate) pool: PgPool,
    pub(crate) db: Database,
    pub(crate) http: reqwest::Client,
    pub(crate) http_port: u16,
    pub(crate) queue_prefix: String,
    database: String,
    directory: PathBuf,
    environment: Vec<(String, String)>,
}

impl Platform {
    /// On the services that all tests share.
    pub(crate) async fn new() -> Self {
        Self::on(Services::shared()).await
    }

    /// On services of its own, which the test may stop and restart.
    pub(crate) async fn with_own_services() -> Self {
        Self::on(Services::own().await).await
    }

    /// On the shared services, with an empty database.
    pub(crate) async fn unmigrated() -> Self {
        let (services, database) = (Services::shared(), new_database_name());
        services.create_empty_database(&database).await;
        Self::with_database(services, database)
    }

    async fn on(services: Services) -> Self {
        let database = new_database_name();
        services.create_database(&database).await;
        Self::with_database(services, database)
    }

    fn with_database(services: Services, database: String) -> Self {
        let database_url = services.database_url_of(&database);
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy(&database_url).expect("a URL");
        let db = Database::from(pool.clone());
        let directory = std::env::temp_dir().join(&database);
        std::fs::create_dir_all(&directory).expect("create a directory");
        let http_port = processes::free_port();
        let queue_prefix = format!("{database}.");
        let environment = [
            ("DATABASE_URL", database_url.as_str()),
            ("REDIS_URL", &services.redis_url),
            ("RABBITMQ_URL", &services.rabbitmq_url),
            ("GRAPNEL_ENV", "development"),
            ("GRAPNEL_HTTP_ADDR", &format!("127.0.0.1:{http_port}")),
            ("GRAPNEL_OPS_ADDR", "127.0.0.1:0"),
            ("GRAPNEL_QUEUE_PREFIX", &queue_prefix),
            ("GRAPNEL_SEALING_KEYS", SEALING_KEYS),
            ("GRAPNEL_RATE_LIMIT_PER_MINUTE", "0"),
            ("GRAPNEL_REQUEUE_AFTER_SECONDS", "3"),
            ("MANAGEMENT_API_KEY", MANAGEMENT_KEY),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            // Another test was first.
        }
        let http = reqwest::Client::builder().timeout(PATIENCE).build().expect("a client");
        Self { services, pool, db, http, http_port, queue_prefix, database, directory, environment }
    }

    /// A variable of the processes started from now on.
    pub(crate) fn variable(&self, name: &str) -> String {
        let found = self.environment.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("no {name}")).1.clone()
    }

    /// Sets or replaces a variable for the processes started from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Runs a role that ends, and answers what it printed; fails when it fails.
    pub(crate) async fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) async fn try_run(&self, arguments: &[&str]) -> std::process::Output {
        processes::run_to_end(arguments, &self.environment).await
    }

    /// Starts a role that stays; its log goes to a file that is shown when the test fails.
    pub(crate) fn start(&self, arguments: &[&str]) -> Process {
        Process::start(arguments, &self.environment, &self.directory)
    }

    /// Applies Integrations and starts an api and a worker as processes of their own.
    pub(crate) async fn start_api_and_worker(&self, integrations: &str) -> (Process, Process) {
        self.apply(integrations).await;
        let (api, worker) = (self.start(&["api"]), self.start(&["worker"]));
        self.wait_until_accepting().await;
        (api, worker)
    }

    pub(crate) async fn start_api(&self, integrations: &str) -> Process {
        self.apply(integrations).await;
        let api = self.start(&["api"]);
        self.wait_until_accepting().await;
        api
    }

    /// Writes the file that `apply` and `dev` read, and applies it.
    pub(crate) async fn apply(&self, integrations: &str) {
        let path = self.write_integrations(integrations);
        self.run(&["apply", "--file", path.to_str().expect("a path in UTF-8")]).await;
    }

    pub(crate) fn write_integrations(&self, yaml: &str) -> PathBuf {
        let path = self.directory.join("integrations.yaml");
        std::fs::write(&path, yaml).expect("write the integrations");
        path
    }

    /// Waits until a webhook route answers something else than 404.
    pub(crate) async fn wait_until_accepting(&self) {
        self.wait_until_known("acme").await;
    }

    pub(crate) async fn wait_until_known(&self, route: &str) {
        let url = self.url(&format!("/api/v1/webhooks/{route}"));
        wait_for("the api to know its integrations", || async {
            let known = self.http.post(&url).body("{}").send().await;
            known.is_ok_and(|answer| !matches!(answer.status().as_u16(), 404 | 503))
        })
        .await;
    }

    /// Posts without credentials until the answer has the status: what the api makes of an edit.
    pub(crate) async fn wait_for_status(&self, path: &str, status: u16) {
        wait_for(&format!("{path} to answer {status}"), || async {
            self.post(path, &[], "{}").await.status == status
        })
        .await;
    }

    pub(crate) fn database_url(&self) -> String {
        self.services.database_url_of(&self.database)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http_port)
    }

    /// Posts a body to a route with Acme's signature.
    pub(crate) async fn post_acme(&self, body: &str) -> Answer {
        self.post("/api/v1/webhooks/acme", &[("x-acme-signature", &sign(body.as_bytes()))], body).await
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = self.http.post(self.url(path)).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.send().await.expect("an answer")).await
    }

    /// Reads a management route.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        let request = self.http.get(self.url(path)).header("x-internal-api-key", MANAGEMENT_KEY);
        Answer::of(request.send().await.expect("an answer")).await
    }

    /// One number from the database, for what no route tells.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.expect("a number")
    }

    pub(crate) async fn wait_for_count(&self, sql: &str, expected: i64) {
        let mut last = None;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let found: Option<i64> = sqlx::query_scalar(sql).fetch_one(&self.pool).await.ok();
            if found == Some(expected) {
                return;
            }
            last = found;
            sleep(Duration::from_millis(25)).await;
        }
        panic!("{sql}: {last:?} and not {expected}");
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if std::thread::panicking() {
            processes::show_logs(&self.directory);
        }
        self.services.drop_database(&self.database);
        self.services.delete_queues(&self.queue_prefix);
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("{}: {error}", self.directory.display());
        }
    }
}

/// An answer, read to the end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, text: response.text().await.expect("a body") }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn event_id(&self) -> String {
        let json = self.json();
        json["data"]["eventId"].as_str().unwrap_or_else(|| panic!("no event id: {json}")).to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// `error.code` of an error answer.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// `error.details.field` of an error answer.
    pub(crate) fn field(&self) -> String {
        self.json()["error"]["details"]["field"].as_str().unwrap_or_default().to_owned()
    }
}

/// A name that no other test has: what is counted in Redis is counted by integration.
pub(crate) fn unique_name(prefix: &str) -> String {
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Acme's signature of a body.
pub(crate) fn sign(body: &[u8]) -> String {
    sign_with(ACME_SECRET, body)
}

pub(crate) fn sign_with(secret: &str, body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    hex::encode(mac.chain_update(body).finalize().into_bytes())
}

/// An Acme body with an id.
pub(crate) fn acme_event(id: &str) -> String {
    json!({
        "eventId": id, "eventType": "order.created", "occurredAt": "2026-11-24T10:00:00Z",
        "data": {"id": format!("order-{id}"), "total": 12},
    })
    .to_string()
}

/// An Integration `acme` with the given destinations, and its Secrets. Each destination is a YAML flow mapping.
pub(crate) fn acme_integration(destinations: &[String]) -> String {
    integration("acme", "", destinations)
}

/// An Integration of a provider, with further lines of `spec` (indented by two spaces).
pub(crate) fn integration(provider: &str, spec: &str, destinations: &[String]) -> String {
    integration_named(provider, provider, spec, destinations)
}

/// One with a name, which is its route too.
pub(crate) fn integration_named(name: &str, provider: &str, spec: &str, destinations: &[String]) -> String {
    let secret = if provider == "globex" { GLOBEX_TOKEN } else { ACME_SECRET };
    let destinations: String =
        destinations.iter().map(|destination| format!("  - {destination}\n")).collect();
    format!(
        "apiVersion: grapnel.dev/v1alpha1
kind: Integration
metadata: {{name: {name}, namespace: test}}
spec:
  provider: {provider}
  verification: {{secretRef: {{name: {name}-secrets, key: incoming}}}}
{spec}  destinations:
{destinations}---
apiVersion: v1
kind: Secret
metadata: {{name: {name}-secrets, namespace: test}}
stringData: {{incoming: {secret}, outgoing: '{SIGNING_SECRET}'}}
"
    )
}

/// A destination that is retried quickly.
pub(crate) fn destination(name: &str, url: &str) -> String {
    format!(
        "{{name: {name}, url: '{url}', timeoutSeconds: 2, \
         retry: {{maxAttempts: 3, initialDelaySeconds: 1, maxDelaySeconds: 1}}}}"
    )
}

/// Waits until the condition holds; fails after [`PATIENCE`].
pub(crate) async fn wait_for<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        sleep(Duration::from_millis(25)).await;
    }
}
