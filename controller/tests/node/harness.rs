//! The node that `scripts/check-node` has brought up, and the tools with which the cases use it.

pub(crate) mod cluster;
pub(crate) mod command;
pub(crate) mod database;
pub(crate) mod integrations;
pub(crate) mod output;
pub(crate) mod prober;
pub(crate) mod receiver;
pub(crate) mod release;
pub(crate) mod traffic;
pub(crate) mod wait;
pub(crate) mod webhooks;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kube::Client;

/// The namespace of the platform.
pub(crate) const PLATFORM: &str = "grapnel";
/// The namespace of a team that uses it.
pub(crate) const SHOP: &str = "shop";

/// Longer than anything takes on a machine with two busy cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What a request to the API server or to the platform may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Where everything is, from the environment.
pub(crate) struct Node {
    /// A client of the API server of `KUBECONFIG`, which helm and kubectl read as well.
    pub(crate) client: Client,
    /// A client of the platform that opens a new connection for each request, as separate providers do.
    pub(crate) http: reqwest::Client,
    /// `GRAPNEL_API`: the public routes at the NodePort, up to and including `/api/v1`.
    pub(crate) api: String,
    /// `GRAPNEL_MANAGEMENT`: the management routes at their NodePort, up to and including `/api/v1`.
    pub(crate) management: String,
    /// `GRAPNEL_HOST_ADDRESS`: this machine, as pods see it.
    pub(crate) host_address: String,
    /// `GRAPNEL_VALUES`: the values of an installation with datastores outside the cluster.
    pub(crate) values: PathBuf,
    /// `GRAPNEL_BUNDLED_VALUES`: the values of an installation with datastores in pods.
    pub(crate) bundled_values: PathBuf,
    /// `GRAPNEL_NEXT_TAG`: the tag of the images to which an upgrade goes.
    pub(crate) next_tag: String,
    /// `GRAPNEL_NEXT_MIGRATION`: the migration that those images add; not set when they add none.
    pub(crate) next_migration: Option<String>,
    /// `GRAPNEL_RECEIVER_IMAGE`: an image that prints the requests it receives on port 8080.
    pub(crate) receiver_image: String,
    /// `GRAPNEL_CLUSTER_AUDIT_LOG`: the audit log of the API server.
    pub(crate) audit_log: PathBuf,
    /// `GRAPNEL_VOLUMES`: a folder for the volumes of datastores in pods.
    pub(crate) volumes: PathBuf,
    /// `GRAPNEL_RUN_DIR`: a folder for logs and ledgers.
    pub(crate) run_dir: PathBuf,
    /// Distinguishes this run's events from those of an earlier run on the same installation.
    run: u128,
}

impl Node {
    /// Reads the environment. The remaining variables are read where they are used: `KUBECTL`, `HELM`, `HELM3` and
    /// `GRAPNEL_PROBER` are programs, `GRAPNEL_CLUSTER` and `GRAPNEL_SERVICES` are scripts with their `…_STATE`, and
    /// `DATABASE_URL` and `RABBITMQ_MANAGEMENT_URL` are datastores.
    pub(crate) async fn from_environment() -> Self {
        rustls::crypto::ring::default_provider().install_default().expect("no other provider is installed");
        variable("KUBECONFIG");
        let mut config = kube::Config::infer().await.expect("KUBECONFIG is valid");
        config.read_timeout = Some(REQUEST_TIMEOUT);
        let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).pool_max_idle_per_host(0);
        Self {
            client: Client::try_from(config).expect("a client of the API server"),
            http: http.build().expect("an HTTP client"),
            api: variable("GRAPNEL_API"),
            management: variable("GRAPNEL_MANAGEMENT"),
            host_address: variable("GRAPNEL_HOST_ADDRESS"),
            values: variable("GRAPNEL_VALUES").into(),
            bundled_values: variable("GRAPNEL_BUNDLED_VALUES").into(),
            next_tag: variable("GRAPNEL_NEXT_TAG"),
            next_migration: std::env::var("GRAPNEL_NEXT_MIGRATION").ok(),
            receiver_image: variable("GRAPNEL_RECEIVER_IMAGE"),
            audit_log: variable("GRAPNEL_CLUSTER_AUDIT_LOG").into(),
            volumes: variable("GRAPNEL_VOLUMES").into(),
            run_dir: variable("GRAPNEL_RUN_DIR").into(),
            run: SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis(),
        }
    }

    /// An event id with this prefix that no earlier run has used.
    pub(crate) fn unique(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.run)
    }
}

/// A variable that must be set.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/check-node"))
}

/// A path in this checkout.
pub(crate) fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
