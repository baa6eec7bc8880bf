//! The controller has exactly the rights that it uses.

use std::collections::BTreeSet;

use grapnel_crds::ReplayPhase;
use grapnel_testing::{ACME_SECRET, wait_until};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

use crate::captures;
use crate::harness::replays::failed_spec;
use crate::harness::{Installation, access, acme_spec, merged, variable};
use crate::services;

/// A resource, with its subresource if any, and a verb.
type Right = (String, String);

fn granted() -> BTreeSet<Right> {
    let rules = [access::rules_of_watched(), access::rules_of_platform()].concat();
    let rights = rules.iter().flat_map(|rule| {
        let groups = rule.api_groups.as_deref().unwrap_or_default();
        assert_eq!(groups.len(), 1, "one group for each rule");
        let group = groups[0].clone();
        let resources = rule.resources.clone().unwrap_or_default();
        let named = resources.into_iter().map(move |resource| format!("{group}/{resource}"));
        named.flat_map(|resource| rule.verbs.iter().map(move |verb| (resource.clone(), verb.clone())))
    });
    let rights: BTreeSet<Right> = rights.collect();
    assert!(!rights.iter().any(|(resource, verb)| resource.contains('*') || verb == "*"), "{rights:?}");
    rights
}

/// Returns the rights that a user has used according to the audit log, and the entries that were refused.
fn used(user: &str) -> (BTreeSet<Right>, Vec<Value>) {
    let log = std::fs::read_to_string(variable("GRAPNEL_CLUSTER_AUDIT_LOG")).expect("read the audit log");
    let (mut used, mut refused) = (BTreeSet::new(), Vec::new());
    for line in log.lines().filter(|line| line.contains(user)) {
        // The last line may be incomplete.
        let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
        let object = &entry["objectRef"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut resource = format!("{}/{}", text(&object["apiGroup"]), text(&object["resource"]));
        if let Some(subresource) = object["subresource"].as_str() {
            resource = format!("{resource}/{subresource}");
        }
        let code = &entry["responseStatus"]["code"];
        if *code == 403 {
            refused.push(entry.clone());
        }
        // The first apply of an object also needs the right to create it.
        if entry["verb"] == "patch" && *code == 201 {
            used.insert((resource.clone(), "create".to_owned()));
        }
        used.insert((resource, text(&entry["verb"])));
    }
    (used, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_right_is_needed_and_none_is_missing() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply("orders", acme_spec("acme")).await;
    installation.wait_until_ready("orders").await;
    // A repeated Event is counted in the one that exists.
    installation.secrets().delete("acme", &Default::default()).await.expect("delete the Secret");
    installation.wait_for_condition("orders", "Ready", "False", "SecretNotFound").await;
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.wait_until_ready("orders").await;
    let id = installation.get("orders").await.expect("the object").id();
    captures::consent(&installation, "acme", "true").await;
    captures::capture(&installation, id, "a-secret-that-the-provider-gave").await;
    captures::wait_until_settled(&installation, "orders", id).await;
    services::apply_service(&installation).await;
    services::apply_pod(&installation, "orders-0", "10.244.1.7", true).await;
    services::apply_slice(&installation, &[(Some("orders-0"), "10.244.1.7")]).await;
    installation.apply("orders", services::service_spec("acme")).await;
    installation.wait_for_condition("orders", "ServicesResolved", "True", "AsDesired").await;
    // A Replay that waits is deleted, one that has ended deletes itself, and one loses its object.
    installation.apply_replay("waits", &failed_spec("of-nobody")).await;
    installation.wait_for_replay("waits", ReplayPhase::Pending, "IntegrationNotFound").await;
    installation.delete_replay("waits").await;
    installation.apply_replay("lost", &failed_spec("orders")).await;
    installation.wait_for_replay("lost", ReplayPhase::Pending, "Pending").await;
    let cancelled =
        merged(failed_spec("orders"), json!({"state": "Cancelled", "ttlSecondsAfterFinished": 0}));
    installation.apply_replay("ended", &cancelled).await;
    installation.wait_for_replay("ended", ReplayPhase::Cancelling, "Cancelling").await;
    let end = "UPDATE replay_jobs SET state = 'Cancelled', finished_at = now() WHERE object_name = 'ended'";
    installation.database.execute(end).await;
    wait_until("the Replay to be deleted", async || installation.replay("ended").await.is_none()).await;
    let lose = "UPDATE replay_jobs SET object_uid = gen_random_uuid(), object_name = 'nobody' WHERE object_name = 'lost'";
    installation.database.execute(lose).await;
    wait_until("the job without an object to be cancelled", async || {
        installation.jobs("nobody").await[0]["desired"] == json!("Cancelled")
    })
    .await;
    installation.delete("orders").await;
    installation.wait_until_gone("orders").await;

    // One disappears before its cleanup; the sweep finds its leftovers.
    installation.apply("lost", acme_spec("lost")).await;
    let lost = installation.wait_until_ready("lost").await.id();
    installation.delete("lost").await;
    let release = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    installation.integrations().patch_metadata("lost", &Default::default(), &release).await.expect("release");
    wait_until("the row to be retired", async || {
        installation.row(lost).await.is_some_and(|row| row["deleted"] == json!(true))
    })
    .await;

    let (used, refused) = used(&access::user(&installation.platform));
    assert!(refused.is_empty(), "refused: {refused:#?}");
    let unused: Vec<_> = granted().difference(&used).cloned().collect();
    assert!(unused.is_empty(), "granted and not used: {unused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_is_ready_when_its_caches_are_filled() {
    let installation = Installation::new().await;
    let complete = access::rules_of_platform();
    let without_deployments: Vec<PolicyRule> =
        complete.iter().filter(|rule| rule.api_groups != Some(vec!["apps".to_owned()])).cloned().collect();
    assert!(without_deployments.len() < complete.len());
    let platform = &installation.platform;
    access::bind(&installation.client, platform, Some(platform), &without_deployments).await;
    let controller = installation.start_controller();
    wait_until("it to be unready", async || {
        controller.log().contains("leading") && controller.probe("/readyz").await == 503
    })
    .await;
    assert!(!controller.leads());
    access::bind(&installation.client, platform, Some(platform), &complete).await;
    wait_until("it to be ready", async || controller.leads() && controller.probe("/readyz").await == 200)
        .await;
}
