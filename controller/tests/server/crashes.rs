//! SIGKILL at any step: the next process continues from there.

use grapnel_crds::{Integration, names};
use grapnel_testing::{ACME_SECRET, wait_until};
use kube::ResourceExt;
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Installation, acme_spec, merged};

/// A visible sign that a step has just been completed.
#[derive(Debug, Clone, Copy)]
enum Milestone {
    Nothing,
    Finalizer,
    Row,
    Queue,
    Deployment,
    Status,
}

const STEPS: [Milestone; 6] = [
    Milestone::Nothing,
    Milestone::Finalizer,
    Milestone::Row,
    Milestone::Queue,
    Milestone::Deployment,
    Milestone::Status,
];

async fn is_reached(installation: &Installation, step: Milestone, object: &Integration) -> bool {
    let id = object.id();
    match step {
        Milestone::Nothing => true,
        Milestone::Finalizer => {
            installation.get(&object.name_any()).await.is_some_and(|object| !object.finalizers().is_empty())
        }
        Milestone::Row => {
            let row = installation.row(id).await;
            row.is_some_and(|row| row["generation"].as_i64() == object.metadata.generation)
        }
        Milestone::Queue => {
            let queues = installation.services.queues(&installation.queue_prefix).await;
            object.spec.destinations.iter().all(|destination| {
                queues.contains(&names::queue_name(&installation.queue_prefix, id, &destination.name))
            })
        }
        Milestone::Deployment => installation.replicas(id).await.is_some(),
        Milestone::Status => {
            let found = installation.get(&object.name_any()).await.and_then(|found| found.status);
            found.is_some_and(|status| status.observed_generation == object.metadata.generation)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_at_any_step_of_a_creation_or_an_edit_resumes() {
    let installation = Installation::new().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    // As when a container is restarted in its pod: the next process does not wait for the Lease of the previous one.
    let mut controller = installation.start_leader_in("pod-1").await;
    let two = json!({"destinations": [
        {"name": "orders", "url": "https://orders.example.com/hooks"},
        {"name": "audit", "url": "https://audit.example.com/hooks"},
    ]});
    for (number, step) in STEPS.into_iter().enumerate() {
        let name = format!("orders-{number}");
        for spec in [acme_spec(&name), merged(acme_spec(&name), two.clone())] {
            let object = installation.apply(&name, spec).await;
            wait_until(&format!("{step:?}"), async || is_reached(&installation, step, &object).await).await;
            controller.kill();
            controller = installation.start_leader_in("pod-1").await;
            installation.wait_until_ready(&name).await;
            for milestone in STEPS {
                assert!(
                    is_reached(&installation, milestone, &object).await,
                    "killed after {step:?}: no {milestone:?}"
                );
            }
            assert_eq!(installation.replicas(object.id()).await, Some(0));
        }
    }
}

async fn is_retired(installation: &Installation, id: Uuid) -> bool {
    installation.row(id).await.is_some_and(|row| row["deleted"] == json!(true))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_at_any_step_of_a_deletion_resumes() {
    let installation = Installation::new().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let mut controller = installation.start_leader_in("pod-1").await;
    for (number, step) in ["nothing", "drain", "workers", "row"].into_iter().enumerate() {
        let name = format!("orders-{number}");
        installation.apply(&name, acme_spec(&name)).await;
        let id = installation.wait_until_ready(&name).await.id();
        installation.delete(&name).await;
        wait_until(step, async || match step {
            "drain" => installation.row(id).await.is_some_and(|row| row["state"] == json!("Draining")),
            "workers" => installation.replicas(id).await.is_none(),
            "row" => is_retired(&installation, id).await,
            _ => true,
        })
        .await;
        controller.kill();
        controller = installation.start_leader_in("pod-1").await;
        installation.wait_until_gone(&name).await;
        assert!(is_retired(&installation, id).await);
        assert!(installation.replicas(id).await.is_none());
        wait_until("the queues to go", async || {
            installation.services.queues(&installation.queue_prefix).await.is_empty()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_an_object_without_its_finalizer_are_removed() {
    let installation = Installation::new().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let mut controller = installation.start_leader_in("pod-1").await;
    installation.apply("orders", acme_spec("acme")).await;
    let id = installation.wait_until_ready("orders").await.id();
    controller.kill();
    let release = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    installation.integrations().patch("orders", &Default::default(), &release).await.expect("release");
    installation.delete("orders").await;
    let _next = installation.start_leader_in("pod-1").await;
    wait_until("the row to be retired", async || is_retired(&installation, id).await).await;
    assert!(installation.replicas(id).await.is_none());
}
