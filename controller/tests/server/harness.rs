//! The harness of the tests: an [`Installation`] is a platform namespace, a namespace of objects, a database and the
//! processes that were started for it.

pub(crate) mod access;
pub(crate) mod process;
pub(crate) mod replays;
pub(crate) mod setup;
mod observe;
mod webhooks;

use std::path::PathBuf;

use grapnel_crds::Integration;
use grapnel_store::Database;
use grapnel_testing::{
    Environment, FaultProxy, MANAGEMENT_KEY, SEALING_KEYS, TestDatabase, TestQueue, TestServices,
    WAIT_TIMEOUT, free_port, print_logs, run_to_end, unique_name, wait_until,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use uuid::Uuid;

pub(crate) use self::observe::has_condition;
use self::process::{Process, program};

/// Controllers that watch one namespace each do not affect each other; tests of the whole cluster run alone.
static CLUSTER: RwLock<()> = RwLock::const_new(());

pub(crate) struct Installation {
    pub(crate) client: Client,
    pub(crate) services: TestServices,
    /// For the SQL of the tests.
    pub(crate) database: TestDatabase,
    /// For the functions of the store.
    pub(crate) db: Database,
    pub(crate) http: reqwest::Client,
    pub(crate) platform: String,
    pub(crate) namespace: String,
    pub(crate) queue_prefix: String,
    pub(crate) directory: PathBuf,
    environment: Environment,
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
            setup::remove_all_objects(&client).await;
        }
        let (platform, namespace) = (unique_name("grapnel"), unique_name("shop"));
        for name in [&platform, &namespace] {
            setup::create_namespace(&client, name).await;
        }
        let services = TestServices::shared();
        let database = TestDatabase::create(&services, &program("grapnel")).await;
        let directory = std::env::temp_dir().join(database.name());
        std::fs::create_dir_all(&directory).expect("create a directory");
        let worker_pod = directory.join("worker-pod.yaml");
        std::fs::write(&worker_pod, "image: grapnel:test\nresources: {requests: {cpu: 10m}}\n")
            .expect("write a file");
        let queue_prefix = format!("{}.", unique_name("ctl"));
        let watched = (!is_alone).then_some(namespace.as_str());
        let kubeconfig = directory.join("kubeconfig");
        access::grant(&client, &platform, watched, &kubeconfig).await;
        let environment = Environment::new([
            ("KUBECONFIG", kubeconfig.to_str().expect("a path in UTF-8")),
            ("DATABASE_URL", database.url()),
            ("REDIS_URL", &services.redis_url),
            ("RABBITMQ_URL", &services.rabbitmq_url),
            ("RABBITMQ_MANAGEMENT_URL", &services.management_url),
            ("GRAPNEL_ENV", "development"),
            ("GRAPNEL_NAMESPACE", &platform),
            ("GRAPNEL_WATCH_NAMESPACES", watched.unwrap_or_default()),
            ("GRAPNEL_WORKER_POD_FILE", worker_pod.to_str().expect("a path in UTF-8")),
            ("GRAPNEL_QUEUE_PREFIX", &queue_prefix),
            ("GRAPNEL_SEALING_KEYS", SEALING_KEYS),
            ("GRAPNEL_PUBLIC_URL", "https://hooks.example.com"),
            ("MANAGEMENT_API_KEY", MANAGEMENT_KEY),
            ("GRAPNEL_MANAGEMENT_ADDR", "127.0.0.1:0"),
        ]);
        let http = reqwest::Client::builder().timeout(WAIT_TIMEOUT).build().expect("a client");
        Self {
            client,
            services,
            db: Database::new(&database.secret_url(), "test", 4).expect("a URL"),
            database,
            http,
            platform,
            namespace,
            queue_prefix,
            directory,
            environment,
            _access: access,
        }
    }

    /// Sets or replaces a variable for processes that are started later.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.set(name, value);
    }

    /// Puts a proxy in front of the service that a variable names.
    pub(crate) async fn put_proxy(&mut self, name: &str) -> FaultProxy {
        let url = self.environment.get(name).to_owned();
        let proxy = FaultProxy::new(&url).await;
        self.set(name, &proxy.url(&url));
        proxy
    }

    pub(crate) fn queue(&self, name: &str) -> TestQueue {
        TestQueue::new(&self.services, name.to_owned())
    }

    /// Starts another controller in a pod of its own.
    pub(crate) fn start_controller(&self) -> Process {
        self.start_controller_in(&Uuid::now_v7().to_string())
    }

    /// Starts a controller in the pod with this uid.
    pub(crate) fn start_controller_in(&self, pod: &str) -> Process {
        let port = free_port();
        let environment = self.environment.with("GRAPNEL_OPS_ADDR", &format!("127.0.0.1:{port}"));
        let environment = environment.with("GRAPNEL_POD_UID", pod);
        Process::start("grapnel-controller", &["run"], &environment, &self.directory, port)
    }

    /// Starts a controller and waits until it leads and its caches are filled.
    pub(crate) async fn start_leader(&self) -> Process {
        self.start_leader_in(&Uuid::now_v7().to_string()).await
    }

    pub(crate) async fn start_leader_in(&self, pod: &str) -> Process {
        let controller = self.start_controller_in(pod);
        wait_until("the controller to lead", async || controller.leads()).await;
        controller
    }

    /// Starts an api.
    pub(crate) fn start_api(&self) -> Process {
        let (port, ops) = (free_port(), free_port());
        let mut environment = self.environment.with("GRAPNEL_HTTP_ADDR", &format!("127.0.0.1:{port}"));
        environment.set("GRAPNEL_OPS_ADDR", &format!("127.0.0.1:{ops}"));
        environment.set("GRAPNEL_RATE_LIMIT_PER_MINUTE", "0");
        Process::start("grapnel", &["api"], &environment, &self.directory, port)
    }

    /// Starts a worker for all Integrations.
    pub(crate) fn start_worker(&self) -> Process {
        let ops = free_port();
        let environment = self.environment.with("GRAPNEL_OPS_ADDR", &format!("127.0.0.1:{ops}"));
        Process::start("grapnel", &["worker"], &environment, &self.directory, ops)
    }

    /// Starts a management port with changes to the environment.
    pub(crate) fn start_manage(&self, changes: &[(&str, &str)]) -> Process {
        let port = free_port();
        let mut environment = self.environment.with("GRAPNEL_MANAGEMENT_ADDR", &format!("127.0.0.1:{port}"));
        environment.set("GRAPNEL_OPS_ADDR", "127.0.0.1:0");
        environment.set("GRAPNEL_KUBERNETES_ACCESS", "true");
        for (name, value) in changes {
            environment.set(name, value);
        }
        Process::start("grapnel", &["manage"], &environment, &self.directory, port)
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

    /// Runs a program to its end; fails when it fails.
    pub(crate) async fn run(&self, name: &str, arguments: &[&str]) {
        let (succeeded, output) = self.try_run(name, arguments).await;
        assert!(succeeded, "{arguments:?}: {output}");
    }

    /// Runs a program to its end; returns whether it succeeded, and all of its output.
    pub(crate) async fn try_run(&self, name: &str, arguments: &[&str]) -> (bool, String) {
        let output = run_to_end(&program(name), arguments, &self.environment).await;
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
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

impl Drop for Installation {
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
