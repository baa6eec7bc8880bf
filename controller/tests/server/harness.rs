//! The harness of the tests: an [`Installation`] is a platform namespace, a namespace of objects, a database and the
//! processes that were started for it.

pub(crate) mod access;
pub(crate) mod broker;
pub(crate) mod gate;
pub(crate) mod process;
pub(crate) mod setup;
mod observe;
mod webhooks;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use grapnel_crds::Integration;
use grapnel_store::Database;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use url::Url;
use uuid::Uuid;

use self::gate::Gate;
pub(crate) use self::observe::has_condition;
use self::process::{Process, free_port};

/// No wait in these tests takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const ACME_SECRET: &str = "acme-test-secret-7f3a";
pub(crate) const SEALING_KEYS: &str = "first:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// Controllers that watch one namespace each do not affect each other; tests of the whole cluster run alone.
static CLUSTER: RwLock<()> = RwLock::const_new(());
static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Installation {
    pub(crate) client: Client,
    /// For statements of the tests.
    pub(crate) pool: PgPool,
    pub(crate) db: Database,
    pub(crate) http: reqwest::Client,
    pub(crate) platform: String,
    pub(crate) namespace: String,
    pub(crate) queue_prefix: String,
    pub(crate) rabbitmq_url: String,
    pub(crate) management_url: String,
    pub(crate) directory: PathBuf,
    database: String,
    environment: Vec<(String, String)>,
    _access: ClusterAccess,
}

/// The right to use the cluster, together with other tests or alone.
#[expect(dead_code, reason = "held, not read")]
enum ClusterAccess {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run scripts/test --only cluster, or eval scripts/services env and scripts/cluster env")
    })
}

impl Installation {
    /// Sets up an installation whose controller watches one namespace. Others may run in parallel.
    pub(crate) async fn new() -> Self {
        Self::set_up(ClusterAccess::Shared(CLUSTER.read().await)).await
    }

    /// Sets up an installation whose controller watches the whole cluster. No other test runs in the meantime.
    pub(crate) async fn of_the_cluster() -> Self {
        Self::set_up(ClusterAccess::Alone(CLUSTER.write().await)).await
    }

    async fn set_up(access: ClusterAccess) -> Self {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            // Another test was first.
        }
        variable("KUBECONFIG");
        let client = Client::try_default().await.expect("a client of the API server");
        setup::install_crd(&client).await;
        let is_alone = matches!(access, ClusterAccess::Alone(_));
        if is_alone {
            setup::remove_all_integrations(&client).await;
        }
        let unique = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (platform, namespace) = (format!("grapnel-{unique}"), format!("shop-{unique}"));
        for name in [&platform, &namespace] {
            setup::create_namespace(&client, name).await;
        }
        let database = format!("grapnel_ctl_{}", unique.replace('-', "_"));
        let database_url = setup::create_database(&variable("DATABASE_URL"), &database).await;
        let directory = std::env::temp_dir().join(&database);
        std::fs::create_dir_all(&directory).expect("create a directory");
        let worker_pod = directory.join("worker-pod.yaml");
        std::fs::write(&worker_pod, "image: grapnel:test\nresources: {requests: {cpu: 10m}}\n")
            .expect("write a file");
        let queue_prefix = format!("ctl-{unique}.");
        let (rabbitmq_url, management_url) = (variable("RABBITMQ_URL"), variable("RABBITMQ_MANAGEMENT_URL"));
        let watched = (!is_alone).then_some(namespace.as_str());
        let kubeconfig = directory.join("kubeconfig");
        access::grant(&client, &platform, watched, &kubeconfig).await;
        let redis_url = variable("REDIS_URL");
        let environment = [
            ("KUBECONFIG", kubeconfig.to_str().expect("a path in UTF-8")),
            ("DATABASE_URL", &database_url),
            ("REDIS_URL", &redis_url),
            ("RABBITMQ_URL", &rabbitmq_url),
            ("RABBITMQ_MANAGEMENT_URL", &management_url),
            ("GRAPNEL_ENV", "development"),
            ("GRAPNEL_NAMESPACE", &platform),
            ("GRAPNEL_WATCH_NAMESPACES", watched.unwrap_or_default()),
            ("GRAPNEL_WORKER_POD_FILE", worker_pod.to_str().expect("a path in UTF-8")),
            ("GRAPNEL_QUEUE_PREFIX", &queue_prefix),
            ("GRAPNEL_SEALING_KEYS", SEALING_KEYS),
            ("GRAPNEL_PUBLIC_URL", "https://hooks.example.com"),
            ("MANAGEMENT_API_KEY", "test-management-key-0123456789"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy(&database_url).expect("a URL");
        let http = reqwest::Client::builder().timeout(PATIENCE).build().expect("a client");
        let installation = Self {
            client,
            db: Database::from(pool.clone()),
            pool,
            http,
            platform,
            namespace,
            queue_prefix,
            rabbitmq_url,
            management_url,
            directory,
            database,
            environment,
            _access: access,
        };
        process::run_to_end("grapnel", &["migrate"], &installation.environment);
        installation
    }

    /// Sets or replaces a variable for processes that are started later.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Puts a gate in front of the server that a variable names.
    pub(crate) fn put_gate(&mut self, name: &str) -> Gate {
        let (_, url) = self.environment.iter().find(|(known, _)| known == name).expect("a known variable");
        let gate = Gate::new(url);
        let mut through = Url::parse(url).expect("a URL");
        through.set_port(Some(gate.port)).expect("a URL with a host");
        self.set(name, through.as_str());
        gate
    }

    /// Starts another controller in a pod of its own.
    pub(crate) fn start_controller(&self) -> Process {
        self.start_controller_in(&Uuid::now_v7().to_string())
    }

    /// Starts a controller in the pod with this uid.
    pub(crate) fn start_controller_in(&self, pod: &str) -> Process {
        let port = free_port();
        let mut environment = self.environment.clone();
        environment.push(("GRAPNEL_OPS_ADDR".to_owned(), format!("127.0.0.1:{port}")));
        environment.push(("GRAPNEL_POD_UID".to_owned(), pod.to_owned()));
        Process::start("grapnel-controller", &["run"], &environment, &self.directory, port)
    }

    /// Starts a controller and waits until it leads and its caches are filled.
    pub(crate) async fn start_leader(&self) -> Process {
        self.start_leader_in(&Uuid::now_v7().to_string()).await
    }

    pub(crate) async fn start_leader_in(&self, pod: &str) -> Process {
        let controller = self.start_controller_in(pod);
        wait_for("the controller to lead", async || controller.leads()).await;
        controller
    }

    /// Starts an api.
    pub(crate) fn start_api(&self) -> Process {
        let (port, ops) = (free_port(), free_port());
        let mut environment = self.environment.clone();
        environment.push(("GRAPNEL_HTTP_ADDR".to_owned(), format!("127.0.0.1:{port}")));
        environment.push(("GRAPNEL_OPS_ADDR".to_owned(), format!("127.0.0.1:{ops}")));
        environment.push(("GRAPNEL_RATE_LIMIT_PER_MINUTE".to_owned(), "0".to_owned()));
        Process::start("grapnel", &["api"], &environment, &self.directory, port)
    }

    pub(crate) fn integrations(&self) -> Api<Integration> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.platform)
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Runs a program to its end.
    pub(crate) fn run(&self, binary: &str, arguments: &[&str]) {
        process::run_to_end(binary, arguments, &self.environment);
    }

    /// Runs a program to its end; returns whether it succeeded, and all of its output.
    pub(crate) fn try_run(&self, binary: &str, arguments: &[&str]) -> (bool, String) {
        process::try_run(binary, arguments, &self.environment)
    }

    /// Runs kubectl as the administrator, in the namespace of the objects.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let (succeeded, output) = self.try_kubectl(arguments);
        assert!(succeeded, "{arguments:?}: {output}");
        output
    }

    /// Runs kubectl; returns whether it succeeded, and its output or error.
    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> (bool, String) {
        let program = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
        let mut command = std::process::Command::new(program);
        let output =
            command.args(["--namespace", &self.namespace]).args(arguments).output().expect("kubectl starts");
        let succeeded = output.status.success();
        let printed = if succeeded { output.stdout } else { output.stderr };
        (succeeded, String::from_utf8_lossy(&printed).into_owned())
    }

    /// Applies an Integration as a user does.
    pub(crate) async fn apply(&self, name: &str, spec: Value) -> Integration {
        let object = json!({
            "apiVersion": grapnel_crds::API_VERSION, "kind": grapnel_crds::KIND,
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        });
        let parameters = PatchParams::apply("kubectl").force();
        self.integrations()
            .patch(name, &parameters, &Patch::Apply(&object))
            .await
            .expect("apply an Integration")
    }

    pub(crate) async fn apply_secret(&self, name: &str, value: &str) {
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"secret": value},
        });
        let parameters = PatchParams::apply("kubectl").force();
        self.secrets().patch(name, &parameters, &Patch::Apply(&object)).await.expect("apply a Secret");
    }
}

/// Returns a spec for the provider acme with one destination that is never called.
pub(crate) fn acme_spec(route: &str) -> Value {
    json!({
        "provider": "acme", "route": route,
        "verification": {"secretRef": {"name": "acme"}},
        "destinations": [{"name": "orders", "url": "https://orders.example.com/hooks"}],
    })
}

pub(crate) fn merged(mut spec: Value, more: Value) -> Value {
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    spec
}

/// Waits until the condition holds; fails after [`PATIENCE`]. Returns how long it took.
pub(crate) async fn wait_for(goal: &str, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "timed out waiting for {goal}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    started.elapsed()
}

impl Drop for Installation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            process::show_logs(&self.directory);
        }
        broker::delete_queues(&self.rabbitmq_url, &self.management_url, &self.queue_prefix);
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database);
        let server = variable("DATABASE_URL");
        let output = std::process::Command::new("psql").args(["-q", "-d", &server, "-c", &drop]).output();
        if !output.is_ok_and(|output| output.status.success()) {
            eprintln!("the database {} was not dropped", self.database);
        }
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("{}: {error}", self.directory.display());
        }
    }
}
