//! The rights of the controller under test: exactly those that the chart grants, so that a missing one fails the tests.
//! The rules are read from the chart's files.

use std::path::Path;
use std::time::Duration;

use grapnel_testing::wait_until;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Client;
use kube::api::{Api, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use super::variable;

const ACCOUNT: &str = "grapnel-controller";
const RULES_OF_WATCHED: &str = include_str!("../../../../charts/grapnel/files/controller-cluster-rules.yaml");
const RULES_OF_CAPTURE: &str = include_str!("../../../../charts/grapnel/files/controller-capture-rules.yaml");
const RULES_OF_PLATFORM: &str =
    include_str!("../../../../charts/grapnel/files/controller-platform-rules.yaml");

/// The rules for the namespaces that the controller watches.
pub(crate) fn rules_of_watched() -> Vec<PolicyRule> {
    [rules_without_capture(), rules(RULES_OF_CAPTURE)].concat()
}

/// The same rules without the right to write captured secrets.
pub(crate) fn rules_without_capture() -> Vec<PolicyRule> {
    rules(RULES_OF_WATCHED)
}

/// The rules for the platform's namespace.
pub(crate) fn rules_of_platform() -> Vec<PolicyRule> {
    rules(RULES_OF_PLATFORM)
}

fn rules(text: &str) -> Vec<PolicyRule> {
    serde_saphyr::from_str(text).expect("a list of rules")
}

/// The user name of a platform's controller in the audit log.
pub(crate) fn user(platform: &str) -> String {
    format!("system:serviceaccount:{platform}:{ACCOUNT}")
}

/// Creates an account.
pub(crate) async fn create_account(client: &Client, namespace: &str, name: &str) {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let account = ServiceAccount { metadata, ..ServiceAccount::default() };
    accounts.create(&PostParams::default(), &account).await.expect("create a ServiceAccount");
}

/// Returns a new token of an account, for one audience or for the API server.
pub(crate) async fn token_of(client: &Client, namespace: &str, name: &str, audience: Option<&str>) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let audiences = audience.map(str::to_owned).into_iter().collect();
    let request = TokenRequest {
        spec: TokenRequestSpec { audiences, ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let answer =
        accounts.create_token_request(name, &PostParams::default(), &request).await.expect("a token");
    answer.status.expect("a token").token
}

/// The rules of a file of the chart, for example of what the management pods may ask.
pub(crate) fn rules_of(text: &str) -> Vec<PolicyRule> {
    rules(text)
}

/// Creates the account with its rights, and writes the kubeconfig that uses it. Without a watched namespace, the whole
/// cluster is watched.
pub(crate) async fn grant(client: &Client, platform: &str, watched: Option<&str>, kubeconfig: &Path) {
    create_account(client, platform, ACCOUNT).await;
    bind(client, platform, Some(platform), &rules_of_platform()).await;
    bind(client, platform, watched, &rules_of_watched()).await;
    let token = token_of(client, platform, ACCOUNT, None).await;
    std::fs::write(kubeconfig, user_file(&token)).expect("write a file");
    wait_until_granted(kubeconfig, platform, watched).await;
}

/// Applies a role with these rules in a namespace, or in all of them, and binds it to the account.
pub(crate) async fn bind(client: &Client, platform: &str, namespace: Option<&str>, rules: &[PolicyRule]) {
    bind_account(client, platform, ACCOUNT, namespace, rules).await;
}

/// Does the same for another account of the platform's namespace.
pub(crate) async fn bind_account(
    client: &Client,
    platform: &str,
    account: &str,
    namespace: Option<&str>,
    rules: &[PolicyRule],
) {
    let subject = json!({"kind": "ServiceAccount", "name": account, "namespace": platform});
    bind_subject(client, &format!("{platform}-{account}"), subject, namespace, rules).await;
}

/// Does the same for a group.
pub(crate) async fn bind_group(client: &Client, group: &str, namespace: &str, rules: &[PolicyRule]) {
    let subject = json!({"kind": "Group", "name": group, "apiGroup": "rbac.authorization.k8s.io"});
    bind_subject(client, group, subject, Some(namespace), rules).await;
}

async fn bind_subject(
    client: &Client,
    prefix: &str,
    subject: Value,
    namespace: Option<&str>,
    rules: &[PolicyRule],
) {
    // Tests run in parallel, and the names of cluster roles must not collide.
    let name = format!("{prefix}-{}", namespace.unwrap_or("all"));
    let (role, binding) =
        if namespace.is_some() { ("Role", "RoleBinding") } else { ("ClusterRole", "ClusterRoleBinding") };
    let group = "rbac.authorization.k8s.io";
    apply(client, role, namespace, &name, json!({ "rules": rules })).await;
    let bound = json!({"roleRef": {"apiGroup": group, "kind": role, "name": name}, "subjects": [subject]});
    apply(client, binding, namespace, &name, bound).await;
}

async fn apply(client: &Client, kind: &str, namespace: Option<&str>, name: &str, more: Value) {
    let resource = ApiResource {
        group: "rbac.authorization.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "rbac.authorization.k8s.io/v1".to_owned(),
        kind: kind.to_owned(),
        plural: format!("{}s", kind.to_lowercase()),
    };
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let mut object = more;
    object["apiVersion"] = json!(resource.api_version);
    object["kind"] = json!(kind);
    object["metadata"] = json!({ "name": name });
    api.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(&object)).await.expect("bind a role");
}

/// Returns the administrator's kubeconfig, with the token in place of the administrator's credentials.
pub(crate) fn user_file(token: &str) -> String {
    let mut file = Kubeconfig::read_from(variable("KUBECONFIG")).expect("read KUBECONFIG");
    for named in &mut file.auth_infos {
        named.auth_info = Some(serde_json::from_value(json!({ "token": token })).expect("a user"));
    }
    // JSON is valid YAML.
    serde_json::to_string(&file).expect("JSON")
}

/// Waits until the API server honors a new binding, which takes a moment.
async fn wait_until_granted(kubeconfig: &Path, platform: &str, watched: Option<&str>) {
    let file = Kubeconfig::read_from(kubeconfig).expect("read the file");
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(file, &options).await.expect("a configuration");
    let client = Client::try_from(config).expect("a client");
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> = Api::namespaced(client.clone(), platform);
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = match watched {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    wait_until("the rights to be granted", async || {
        let limit = kube::api::ListParams::default().limit(1);
        let granted = leases.get_opt("none").await.is_ok() && secrets.list_metadata(&limit).await.is_ok();
        if !granted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        granted
    })
    .await;
}
