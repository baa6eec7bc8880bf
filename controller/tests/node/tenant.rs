//! A tenant who may edit Integrations in one namespace has no access to the platform or to other tenants.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::harness::cluster::{apply, request_deletion};
use crate::harness::wait::{seconds, wait_for};
use crate::harness::{Node, PLATFORM, SHOP, variable};

const OTHER: &str = "other";
const ACCOUNT: &str = "tenant";

pub(crate) async fn tenant(node: &Node) -> String {
    node.create_namespace(OTHER).await;
    create_account(node).await;
    check_access(node).await;
    check_fields(node).await;
    check_destinations(node).await;
    request_deletion(&node.namespaces(), OTHER).await;
    String::new()
}

/// An account with the role `edit` of Kubernetes in the shop.
async fn create_account(node: &Node) {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}});
    apply(&node.in_namespace::<ServiceAccount>(SHOP), &account).await;
    let group = "rbac.authorization.k8s.io";
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": ACCOUNT},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": SHOP}],
    });
    apply(&node.in_namespace::<RoleBinding>(SHOP), &binding).await;
}

async fn check_access(node: &Node) {
    // The API server learns of a new binding a moment later.
    for (verb, resource) in [("create", "integrations"), ("patch", "integrations/scale")] {
        wait_for(&format!("the role edit to include: {verb} {resource}"), seconds(180), async || {
            may(node, verb, "grapnel.dev", resource, SHOP).await
        })
        .await;
    }
    for (verb, group, resource, namespace) in [
        ("create", "grapnel.dev", "integrations", OTHER),
        ("get", "", "secrets", OTHER),
        ("get", "", "secrets", PLATFORM),
        ("get", "", "pods/exec", PLATFORM),
        ("patch", "apps", "deployments", PLATFORM),
        ("patch", "grapnel.dev", "integrations/status", SHOP),
    ] {
        let allowed = may(node, verb, group, resource, namespace).await.expect("the API server answers");
        assert!(!allowed, "a tenant may {verb} {resource} in {namespace}");
    }
}

/// Whether the API server allows this to the account. A resource may have a subresource.
async fn may(node: &Node, verb: &str, group: &str, resource: &str, namespace: &str) -> anyhow::Result<bool> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review: SubjectAccessReview = serde_json::from_value(json!({"spec": {
        "user": format!("system:serviceaccount:{SHOP}:{ACCOUNT}"),
        "groups": ["system:authenticated", "system:serviceaccounts", format!("system:serviceaccounts:{SHOP}")],
        "resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": namespace,
        },
    }}))?;
    let reviews: Api<SubjectAccessReview> = Api::all(node.client.clone());
    let review = reviews.create(&PostParams::default(), &review).await?;
    Ok(review.status.is_some_and(|status| status.allowed))
}

/// An Integration cannot name a Secret of another namespace, or choose more of a pod than its bounds.
async fn check_fields(node: &Node) {
    let parameters =
        PatchParams { dry_run: true, field_manager: Some("test".to_owned()), ..PatchParams::default() };
    for field in [
        json!({"verification": {"secretRef": {"name": "a", "namespace": OTHER}}}),
        json!({"workers": {"image": "evil"}}),
        json!({"workers": {"env": []}}),
        json!({"workers": {"serviceAccountName": "default"}}),
    ] {
        let patch = Patch::Merge(json!({ "spec": field }));
        // Refused or pruned: both are fine.
        if let Ok(object) = node.integrations().patch("orders", &parameters, &patch).await {
            assert!(!contains(&object.data["spec"], &field), "an Integration takes {field}");
        }
    }
}

/// Whether a value has all that is in the other one.
fn contains(value: &Value, part: &Value) -> bool {
    match part {
        Value::Object(fields) => {
            fields.iter().all(|(name, field)| value.get(name).is_some_and(|found| contains(found, field)))
        }
        _ => value == part,
    }
}

/// The datastores listen on this machine's address, and destinations may not be there unless the platform allows it.
async fn check_destinations(node: &Node) {
    node.install_release(&["--set", "allowedDestinationCidrs={10.96.0.0/16,10.244.0.0/16}"]);
    let datastore = url::Url::parse(&variable("RABBITMQ_MANAGEMENT_URL")).expect("a URL");
    let port = datastore.port().expect("a port");
    node.apply_acme("reach", "reach", &format!("http://{}:{port}/", node.host_address)).await;
    node.wait_until_ready("reach").await;
    let id = node.post("reach", &node.unique("inside")).await.event_id(202);
    wait_for("a delivery to be refused", seconds(180), async || {
        let event = node.management(&format!("events/{id}")).await?;
        let error = event["data"]["event"]["lastError"].as_str().unwrap_or_default().to_lowercase();
        Ok(["not allowed", "private", "refused by", "egress"].iter().any(|reason| error.contains(reason)))
    })
    .await;
    node.install_release(&[]);
    node.remove("reach").await;
}
