//! The harness of the tests.
//!
//! A [`Platform`] is one installation: a database, a queue prefix, Integrations, and the processes that were started
//! for it. Everything is stopped and removed when it is dropped. Waits are on conditions, with deadlines.

pub(crate) mod frames;
pub(crate) mod load;
mod queue;
pub(crate) mod tally;
pub(crate) mod wire;

use std::path::{Path, PathBuf};
use std::process::Output;

use grapnel_store::Database;
use grapnel_testing::{
    ACME_SECRET, Environment, MANAGEMENT_KEY, SEALING_KEYS, TestDatabase, TestProcess, TestServices,
    WAIT_TIMEOUT, acme_signature, free_port, print_logs, run_to_end, wait_until,
};
use serde_json::Value;

pub(crate) const GLOBEX_TOKEN: &str = "globex-test-token-91bd";
/// `whsec_` and 32 bytes in base64.
pub(crate) const SIGNING_SECRET: &str = "whsec_dGVzdC1zaWduaW5nLXNlY3JldC0wMTIzNDU2Nzg5YWI=";

/// Returns the program under test.
pub(crate) fn grapnel() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_grapnel"))
}

/// One installation of Grapnel.
pub(crate) struct Platform {
    pub(crate) services: TestServices,
    /// For the SQL of the tests.
    pub(crate) database: TestDatabase,
    /// For the functions of the store.
    pub(crate) db: Database,
    pub(crate) http: reqwest::Client,
    pub(crate) http_port: u16,
    pub(crate) queue_prefix: String,
    directory: PathBuf,
    environment: Environment,
}

impl Platform {
    /// Uses the services that all tests share.
    pub(crate) async fn new() -> Self {
        Self::on(TestServices::shared()).await
    }

    /// Uses services of its own, which the test may stop and restart.
    pub(crate) async fn with_own_services() -> Self {
        Self::on(TestServices::own().await).await
    }

    /// Uses the shared services, with an empty database.
    pub(crate) async fn unmigrated() -> Self {
        let services = TestServices::shared();
        let database = TestDatabase::create_empty(&services).await;
        Self::with_database(services, database)
    }

    async fn on(services: TestServices) -> Self {
        let database = TestDatabase::create(&services, grapnel()).await;
        Self::with_database(services, database)
    }

    fn with_database(services: TestServices, database: TestDatabase) -> Self {
        let db = Database::new(&database.secret_url(), "test", 4).expect("a URL");
        let directory = std::env::temp_dir().join(database.name());
        std::fs::create_dir_all(&directory).expect("create a directory");
        let http_port = free_port();
        let queue_prefix = format!("{}.", database.name());
        let environment = Environment::new([
            ("DATABASE_URL", database.url()),
            ("REDIS_URL", &services.redis_url),
            ("RABBITMQ_URL", &services.rabbitmq_url),
            ("GRAPNEL_ENV", "development"),
            ("GRAPNEL_HTTP_ADDR", &format!("127.0.0.1:{http_port}")),
            ("GRAPNEL_MANAGEMENT_ADDR", "127.0.0.1:0"),
            ("GRAPNEL_OPS_ADDR", "127.0.0.1:0"),
            ("GRAPNEL_QUEUE_PREFIX", &queue_prefix),
            ("GRAPNEL_SEALING_KEYS", SEALING_KEYS),
            ("GRAPNEL_RATE_LIMIT_PER_MINUTE", "0"),
            ("GRAPNEL_REQUEUE_AFTER_SECONDS", "3"),
            ("MANAGEMENT_API_KEY", MANAGEMENT_KEY),
        ]);
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            // Another test was first.
        }
        let http = reqwest::Client::builder().timeout(WAIT_TIMEOUT).build().expect("a client");
        Self { services, database, db, http, http_port, queue_prefix, directory, environment }
    }

    /// Returns a variable of the processes that are started later.
    pub(crate) fn variable(&self, name: &str) -> String {
        self.environment.get(name).to_owned()
    }

    /// Sets or replaces a variable for the processes that are started later.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.set(name, value);
    }

    /// Makes the processes take a worker of before for live, which reads this version of events and messages.
    pub(crate) async fn insert_older_worker(&self, format_version: u8) {
        let insert = format!(
            "INSERT INTO worker_heartbeats VALUES (uuidv7_now(), {format_version}, now() + interval '1 hour')"
        );
        self.database.execute(&insert).await;
    }

    /// Inserts events of acme with the external ids `NAME-1`, `NAME-2`, …, each with one delivery to `orders`. `state` is SQL for its
    /// status, `queued_at` and `due_at`.
    pub(crate) async fn insert_deliveries(&self, name: &str, count: u32, state: &str) {
        let inserted = self.database.execute(&insertion_of_deliveries(name, count, state)).await;
        assert_eq!(inserted, u64::from(count));
    }

    /// Runs a role that ends, and returns its output; fails when it fails.
    pub(crate) async fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) async fn try_run(&self, arguments: &[&str]) -> Output {
        run_to_end(grapnel(), arguments, &self.environment).await
    }

    /// Starts a role that runs until it is stopped; its log is printed when the test fails.
    pub(crate) fn start(&self, arguments: &[&str]) -> TestProcess {
        TestProcess::start(grapnel(), arguments, &self.environment, &self.directory)
    }

    /// Applies Integrations and starts an api and a worker as processes of their own.
    pub(crate) async fn start_api_and_worker(&self, integrations: &str) -> (TestProcess, TestProcess) {
        self.apply(integrations).await;
        let (api, worker) = (self.start(&["api"]), self.start(&["worker"]));
        self.wait_until_accepting().await;
        (api, worker)
    }

    pub(crate) async fn start_api(&self, integrations: &str) -> TestProcess {
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

    /// Writes a file for a process, and returns its path.
    pub(crate) fn write_file(&self, name: &str, text: &str) -> String {
        let path = self.directory.join(name);
        std::fs::write(&path, text).expect("write a file");
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    pub(crate) fn write_integrations(&self, yaml: &str) -> PathBuf {
        let path = self.directory.join("integrations.yaml");
        std::fs::write(&path, yaml).expect("write the integrations");
        path
    }

    /// Waits until the api accepts webhooks of Acme.
    pub(crate) async fn wait_until_accepting(&self) {
        self.wait_until_known("acme").await;
    }

    pub(crate) async fn wait_until_known(&self, route: &str) {
        let url = self.url(&format!("/api/v1/webhooks/{route}"));
        wait_until("the api to know its integrations", async || {
            let known = self.http.post(&url).body("{}").send().await;
            known.is_ok_and(|answer| !matches!(answer.status().as_u16(), 404 | 503))
        })
        .await;
    }

    /// Posts without credentials until the response has the status that an edit leads to.
    pub(crate) async fn wait_for_status(&self, path: &str, status: u16) {
        wait_until(&format!("{path} to answer {status}"), async || {
            self.post(path, &[], "{}").await.status == status
        })
        .await;
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

    /// Returns a number from the database that no route shows.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        self.database.count(sql).await
    }

    pub(crate) async fn wait_for_count(&self, sql: &str, expected: i64) {
        self.database.wait_for_count(sql, expected).await;
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_logs(&self.directory);
        }
        self.services.delete_queues(&self.queue_prefix);
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("{}: {error}", self.directory.display());
        }
    }
}

/// A response, read to its end.
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

    /// Returns `error.code` of an error response.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Returns `error.details.field` of an error response.
    pub(crate) fn field(&self) -> String {
        self.json()["error"]["details"]["field"].as_str().unwrap_or_default().to_owned()
    }
}

/// Returns Acme's signature of a body.
pub(crate) fn sign(body: &[u8]) -> String {
    acme_signature(ACME_SECRET, body)
}

/// Returns an Integration `acme` with the given destinations, and its Secrets. Each destination is a YAML flow mapping.
pub(crate) fn acme_integration(destinations: &[String]) -> String {
    integration("acme", "", destinations)
}

/// Returns an Integration of a provider, with further lines of `spec` (indented by two spaces).
pub(crate) fn integration(provider: &str, spec: &str, destinations: &[String]) -> String {
    integration_named(provider, provider, spec, destinations)
}

/// Returns an Integration with a name, which is its route too.
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

/// Returns a destination that is retried quickly.
pub(crate) fn destination(name: &str, url: &str) -> String {
    format!(
        "{{name: {name}, url: '{url}', timeoutSeconds: 2, \
         retry: {{maxAttempts: 3, initialDelaySeconds: 1, maxDelaySeconds: 1}}}}"
    )
}

/// Returns the statement of [`Platform::insert_deliveries`].
pub(crate) fn insertion_of_deliveries(name: &str, count: u32, state: &str) -> String {
    format!(
        r#"WITH stored AS (
            INSERT INTO events (id, integration_id, provider, external_event_id, event_type, occurred_at, received_at,
                correlation_id, headers, raw_body, payload_key, payload_start, payload_length, idempotency_key)
            SELECT uuidv7_now(), i.id, 'acme', '{name}-' || n, 'order.created', now(), now(), 'test', '[]',
                convert_to('{{"data":{{}}}}', 'UTF8'), 'data', 8, 2, i.id || ':{name}-' || n
            FROM integrations i, generate_series(1, {count}) n WHERE i.provider = 'acme'
            RETURNING id, integration_id
        )
        INSERT INTO deliveries (event_id, destination, integration_id, status, queued_at, due_at, updated_at)
        SELECT id, 'orders', integration_id, {state}, now() FROM stored"#
    )
}
