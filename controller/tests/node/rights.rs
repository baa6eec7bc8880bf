//! The controller uses every right that the chart grants it, and needs no other. The API server has logged every request
//! since its start, so all cases before this one count.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::api::Api;
use serde_json::Value;

use crate::harness::{Node, PLATFORM};

const ACCOUNT: &str = "grapnel-controller";

/// Rights that this log cannot show. Applying a new object needs `create` and is logged as `patch`. A single Integration or
/// Replay is read only when the cache lacks one that has left something behind, and an Event is patched when it is repeated:
/// the controller's own tests cover these.
const NOT_IN_LOG: [&str; 4] = [
    "apps/deployments create",
    "grapnel.dev/integrations get",
    "grapnel.dev/replays get",
    "events.k8s.io/events patch",
];

pub(crate) async fn rights(node: &Node) -> String {
    let requests = requests_of_controller(node);
    let granted = Granted::read(node).await;
    // An API server that has just been restarted refuses what it grants until it has read the roles, so a refusal counts
    // only where no role grants the right.
    let missing: BTreeSet<String> = requests
        .iter()
        .filter(|request| is_forbidden(request) && !granted.covers(request))
        .map(line_of)
        .collect();
    assert!(missing.is_empty(), "requests of the controller that no role grants: {missing:#?}");

    let used: BTreeSet<String> =
        requests.iter().filter(|request| !is_forbidden(request)).map(right_of).collect();
    let granted = granted.all();
    assert!(!used.is_empty() && !granted.is_empty(), "{} used, {} granted", used.len(), granted.len());
    let unused: Vec<&String> =
        granted.difference(&used).filter(|right| !NOT_IN_LOG.contains(&right.as_str())).collect();
    assert!(unused.is_empty(), "rights that nothing has used: {unused:#?}");
    format!("{} granted", granted.len())
}

/// What the controller did to objects, from the audit log.
fn requests_of_controller(node: &Node) -> Vec<Value> {
    let user = format!("system:serviceaccount:{PLATFORM}:{ACCOUNT}");
    let log = std::fs::File::open(&node.audit_log).expect("open the audit log");
    let mut requests = Vec::new();
    for line in BufReader::new(log).lines() {
        let line = line.expect("read the audit log");
        // Most lines are about others. The last one may be incomplete.
        let Some(request) = line.contains(&user).then(|| serde_json::from_str::<Value>(&line).ok()).flatten()
        else {
            continue;
        };
        if request["user"]["username"] == user && request["objectRef"].is_object() {
            requests.push(request);
        }
    }
    requests
}

fn is_forbidden(request: &Value) -> bool {
    request["annotations"]["authorization.k8s.io/decision"] == "forbid"
}

fn line_of(request: &Value) -> String {
    format!("{} {}", text(&request["verb"]), text(&request["requestURI"]))
}

/// The right that a request needs, as `GROUP/RESOURCE[/SUBRESOURCE] VERB`.
fn right_of(request: &Value) -> String {
    let object = &request["objectRef"];
    let mut resource = format!("{}/{}", text(&object["apiGroup"]), text(&object["resource"]));
    if let Some(subresource) = object["subresource"].as_str() {
        resource = format!("{resource}/{subresource}");
    }
    format!("{resource} {}", text(&request["verb"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The rights of both roles of the controller, in the form of [`right_of`].
struct Granted {
    everywhere: BTreeSet<String>,
    in_platform: BTreeSet<String>,
}

impl Granted {
    async fn read(node: &Node) -> Granted {
        let cluster_roles: Api<ClusterRole> = Api::all(node.client.clone());
        let everywhere = cluster_roles.get(&format!("{PLATFORM}-{ACCOUNT}")).await.expect("the ClusterRole");
        let in_platform = node.in_namespace::<Role>(PLATFORM).get(ACCOUNT).await.expect("the Role");
        let rights =
            |rules: Option<Vec<PolicyRule>>| rules.into_iter().flatten().flat_map(rights_of).collect();
        Granted { everywhere: rights(everywhere.rules), in_platform: rights(in_platform.rules) }
    }

    fn covers(&self, request: &Value) -> bool {
        let right = right_of(request);
        self.everywhere.contains(&right)
            || request["objectRef"]["namespace"] == PLATFORM && self.in_platform.contains(&right)
    }

    fn all(&self) -> BTreeSet<String> {
        self.everywhere.union(&self.in_platform).cloned().collect()
    }
}

fn rights_of(rule: PolicyRule) -> Vec<String> {
    let mut rights = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            rights.extend(rule.verbs.iter().map(|verb| format!("{group}/{resource} {verb}")));
        }
    }
    rights
}
