//! Two namespaces with an Integration each, a management port, and accounts with roles.

use grapnel_testing::{MANAGEMENT_KEY, unique_name, wait_until};
use kube::config::Kubeconfig;
use reqwest::RequestBuilder;
use serde_json::Value;

pub(crate) use self::accounts::Role;
pub(crate) use self::answer::Answer;
pub(crate) use self::routes::Route;
pub(crate) use self::tenant::Tenant;
use crate::harness::process::Process;
use crate::harness::{Installation, access, setup, variable};

mod accounts;
mod answer;
mod routes;
mod tenant;

pub(crate) const MANAGE_RULES: &str = include_str!("../../../../charts/grapnel/files/manage-rules.yaml");
pub(crate) const VIEW_RULES: &str = include_str!("../../../../charts/grapnel/files/users-view-rules.yaml");
pub(crate) const EDIT_RULES: &str = include_str!("../../../../charts/grapnel/files/users-edit-rules.yaml");
const ADMIN_RULES: &str = include_str!("../../../../charts/grapnel/files/users-admin-rules.yaml");
/// The chart's role has it beside the verbs on objects.
pub(crate) const LIST_RULES: &str =
    "- {apiGroups: [grapnel.dev], resources: [integrations], verbs: [get, list]}\n";

/// The account of the management pods.
const ACCOUNT: &str = "grapnel-manage";

pub(crate) struct Management {
    installation: Installation,
    pub(crate) tenants: Vec<Tenant>,
}

impl Management {
    pub(crate) async fn new() -> Self {
        let installation = Installation::new().await;
        let (client, platform) = (&installation.client, &installation.platform);
        access::create_account(client, platform, ACCOUNT).await;
        access::bind_account(client, platform, ACCOUNT, None, &access::rules_of(MANAGE_RULES)).await;
        let second = unique_name("bank");
        setup::create_namespace(client, &second).await;
        let first = installation.namespace.clone();
        let mut management = Self { installation, tenants: Vec::new() };
        for namespace in [first, second] {
            let tenant = management.add_integration(&namespace, "acme").await;
            management.tenants.push(tenant);
        }
        management.wait_until_asking_is_allowed().await;
        management
    }

    /// Returns the user name of the management pods.
    pub(crate) fn manage_user(&self) -> String {
        format!("system:serviceaccount:{}:{ACCOUNT}", self.installation.platform)
    }

    /// Starts a management port, and waits until it answers.
    pub(crate) async fn start(&self, changes: &[(&str, &str)]) -> Process {
        self.start_with(&self.kubeconfig(None).await, changes).await
    }

    /// Starts one that reaches the API server at another URL.
    pub(crate) async fn start_behind(&self, url: &str) -> Process {
        self.start_with(&self.kubeconfig(Some(url)).await, &[]).await
    }

    async fn start_with(&self, kubeconfig: &str, changes: &[(&str, &str)]) -> Process {
        let path = self.installation.directory.join(unique_name("kubeconfig"));
        std::fs::write(&path, kubeconfig).expect("write a file");
        let path = path.to_str().expect("a path in UTF-8").to_owned();
        let changes: Vec<_> =
            [("KUBECONFIG", path.as_str())].into_iter().chain(changes.iter().copied()).collect();
        let process = self.installation.start_manage(&changes);
        wait_until("the management port", async || {
            let url = format!("http://127.0.0.1:{}/api/v1/health", process.port);
            self.installation.http.get(url).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        process
    }

    async fn kubeconfig(&self, url: Option<&str>) -> String {
        let (client, platform) = (&self.installation.client, &self.installation.platform);
        let file = access::user_file(&access::token_of(client, platform, ACCOUNT, None).await);
        let Some(url) = url else { return file };
        let mut file: Kubeconfig = serde_json::from_str(&file).expect("a kubeconfig");
        for named in &mut file.clusters {
            if let Some(cluster) = &mut named.cluster {
                cluster.server = Some(url.to_owned());
            }
        }
        serde_json::to_string(&file).expect("JSON")
    }

    /// Returns the URL of the API server.
    pub(crate) fn server_url(&self) -> String {
        let file = Kubeconfig::read_from(variable("KUBECONFIG")).expect("read KUBECONFIG");
        let cluster = file.clusters.into_iter().find_map(|named| named.cluster).expect("a cluster");
        cluster.server.expect("a URL")
    }

    fn request(&self, port: u16, path: &str) -> RequestBuilder {
        self.installation.http.get(format!("http://127.0.0.1:{port}/api/v1/{path}"))
    }

    pub(crate) async fn get(&self, port: u16, path: &str, token: Option<&str>) -> Answer {
        let request = self.request(port, path);
        Answer::of_patient(token.into_iter().fold(request, |request, token| request.bearer_auth(token))).await
    }

    /// Asks as a proxy does for an address.
    pub(crate) async fn get_from(&self, port: u16, path: &str, token: &str, source: &str) -> Answer {
        Answer::of(self.request(port, path).bearer_auth(token).header("x-forwarded-for", source)).await
    }

    pub(crate) async fn with_key(&self, port: u16, path: &str, key: &str) -> Answer {
        Answer::of(self.request(port, path).header("x-internal-api-key", key)).await
    }

    pub(crate) async fn post(&self, port: u16, path: &str, body: &Value, token: &str) -> Answer {
        let url = format!("http://127.0.0.1:{port}/api/v1/{path}");
        Answer::of_patient(self.installation.http.post(url).json(body).bearer_auth(token)).await
    }

    /// Returns the audit entries about an entity with an action, as the key sees them.
    pub(crate) async fn entries(&self, port: u16, entity: &str, action: &str) -> Vec<Value> {
        let path = format!("audit-entries?entityId={entity}&action={action}");
        let answer = self.with_key(port, &path, MANAGEMENT_KEY).await;
        answer.json()["data"].as_array().expect("a list").clone()
    }

    /// Returns how many tokens the management pods have had reviewed, by the audit log of the API server.
    pub(crate) fn token_reviews(&self) -> usize {
        let log = std::fs::read_to_string(variable("GRAPNEL_CLUSTER_AUDIT_LOG")).expect("read the audit log");
        let user = self.manage_user();
        log.lines().filter(|line| line.contains(&user) && line.contains("tokenreviews")).count()
    }
}
