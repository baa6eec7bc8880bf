//! Replays: an object makes one job, whatever happens, and says how far it is.

use grapnel_crds::{ReplayPhase, conditions};
use grapnel_store::audit::Requester;
use grapnel_store::replay_jobs::{request_state, set_rate};
use grapnel_testing::{ACME_SECRET, Reply, TestReceiver, wait_until};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::replays::failed_spec;
use crate::harness::{Installation, acme_spec, merged};

/// Registers the Integration `orders` with two deliveries that failed, and returns its id.
async fn prepare(installation: &Installation) -> Uuid {
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply("orders", acme_spec("acme")).await;
    let id = installation.wait_until_ready("orders").await.id();
    installation.insert_failed(id, 2).await;
    id
}

fn job_id(job: &Value) -> grapnel_core::ids::ReplayJobId {
    let id: Uuid = job["id"].as_str().expect("an id").parse().expect("a UUID");
    grapnel_core::ids::ReplayJobId::new(id)
}

fn somebody() -> Requester {
    Requester::unseen("user:jane")
}

/// Changes the object in a way that causes a pass and asks for nothing.
async fn touch(installation: &Installation, name: &str, value: &str) {
    let patch = json!({"metadata": {"annotations": {"touched": value}}});
    installation
        .replays()
        .patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .expect("annotate a Replay");
}

async fn change(installation: &Installation, name: &str, spec: Value) {
    let patch = json!({ "spec": spec });
    let parameters = PatchParams { field_manager: Some("jane".to_owned()), ..PatchParams::default() };
    installation.replays().patch(name, &parameters, &Patch::Merge(&patch)).await.expect("change a Replay");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_applied_twice_is_one_job_and_its_columns_show_it() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    prepare(&installation).await;
    let spec = failed_spec("orders");
    let uid = installation.apply_replay("outage", &spec).await.uid();
    let reported = installation.wait_for_replay("outage", ReplayPhase::Pending, "Pending").await;
    installation.apply_replay("outage", &spec).await;
    touch(&installation, "outage", "once more").await;
    change(&installation, "outage", json!({"ratePerSecond": 70})).await;
    wait_until("the rate to be taken over", async || installation.jobs("outage").await[0]["rate"] == 70)
        .await;

    let jobs = installation.jobs("outage").await;
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert_eq!((jobs[0]["uid"].as_str(), &jobs[0]["matched"]), (uid.as_deref(), &json!(2)));
    assert_eq!(jobs[0]["actor"], "manager:kubectl");
    let status = reported.status.expect("a status");
    assert_eq!(status.replay_id.as_deref(), jobs[0]["id"].as_str());
    let accepted = conditions::find(&status.conditions, conditions::replay::ACCEPTED).expect("a condition");
    assert_eq!((accepted.status.as_str(), accepted.reason.as_str()), ("True", "JobCreated"));
    let table = installation.kubectl(&["get", "greplay", "outage", "--no-headers"]);
    let row: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(row[..5], ["outage", "orders", "Pending", "0/2", "0"]);
    let actors =
        "SELECT DISTINCT action || ' ' || actor FROM audit_entries WHERE action LIKE 'replay.%' ORDER BY 1";
    let actors = installation.database.texts(actors).await;
    assert_eq!(actors, ["replay.created manager:kubectl", "replay.rate_changed manager:jane"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_and_the_rate_act_once_when_they_change() {
    let installation = Installation::new().await;
    let mut controller = installation.start_leader_in("pod-1").await;
    prepare(&installation).await;
    installation.apply_replay("outage", &merged(failed_spec("orders"), json!({"state": "Paused"}))).await;
    installation.wait_for_replay("outage", ReplayPhase::Paused, "Paused").await;
    let job = job_id(&installation.jobs("outage").await[0]);

    // Others resume it at another rate. Neither a pass nor another process takes that back.
    request_state(&installation.db, job, grapnel_core::replay::DesiredState::Running, &somebody())
        .await
        .expect("resume");
    set_rate(&installation.db, job, 7, &somebody()).await.expect("set the rate");
    installation.wait_for_replay("outage", ReplayPhase::Running, "Running").await;
    touch(&installation, "outage", "1").await;
    controller.kill();
    controller = installation.start_leader_in("pod-1").await;
    change(&installation, "outage", json!({"ttlSecondsAfterFinished": 3600})).await;
    let object = installation.wait_for_replay("outage", ReplayPhase::Running, "Running").await;
    assert_eq!(object.status.and_then(|status| status.rate_per_second), Some(7));

    // A change acts, also back to what the spec had before.
    for (state, phase) in [("Running", ReplayPhase::Running), ("Paused", ReplayPhase::Paused)] {
        change(&installation, "outage", json!({"state": state, "ratePerSecond": 90})).await;
        installation.wait_for_replay("outage", phase, state).await;
    }
    assert_eq!(installation.jobs("outage").await[0]["rate"], 90);
    change(&installation, "outage", json!({"state": "Cancelled"})).await;
    installation.wait_for_replay("outage", ReplayPhase::Cancelling, "Cancelling").await;
    assert!(controller.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_replay_is_cancelled_and_runs_again_only_under_another_run_id() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    prepare(&installation).await;
    let spec = failed_spec("orders");
    installation.apply_replay("outage", &spec).await;
    installation.wait_for_replay("outage", ReplayPhase::Pending, "Pending").await;
    installation.delete_replay("outage").await;
    let first = installation.jobs("outage").await;
    assert_eq!((first.len(), &first[0]["desired"]), (1, &json!("Cancelled")));

    installation.apply_replay("outage", &merged(spec.clone(), json!({"ratePerSecond": 7}))).await;
    let rejected = installation.wait_for_replay("outage", ReplayPhase::Rejected, "AlreadyRan").await;
    installation.wait_until_released("outage").await;
    let status = rejected.status.expect("a status");
    let message =
        &conditions::find(&status.conditions, conditions::replay::ACCEPTED).expect("a condition").message;
    assert!(
        message.contains(first[0]["id"].as_str().expect("an id")) && message.contains("runId"),
        "{message}"
    );
    assert_eq!(installation.jobs("outage").await.len(), 1);
    let events = installation.event_reasons("outage").await;
    assert!(events.iter().any(|reason| reason == "AlreadyRan"), "{events:?}");

    installation.delete_replay("outage").await;
    installation.apply_replay("outage", &merged(spec, json!({"runId": "2"}))).await;
    installation.wait_for_replay("outage", ReplayPhase::Pending, "Pending").await;
    assert_eq!(installation.jobs("outage").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_killed_at_any_step_makes_one_job() {
    let installation = Installation::new().await;
    let mut controller = installation.start_leader_in("pod-1").await;
    prepare(&installation).await;
    for step in ["nothing", "finalizer", "job", "status", "deletion"] {
        let name = format!("outage-{step}");
        installation.apply_replay(&name, &failed_spec("orders")).await;
        wait_until(step, async || match step {
            "finalizer" => {
                installation.replay(&name).await.is_some_and(|object| !object.finalizers().is_empty())
            }
            "job" => !installation.jobs(&name).await.is_empty(),
            "status" | "deletion" => {
                installation.replay(&name).await.is_some_and(|object| object.status.is_some())
            }
            _ => true,
        })
        .await;
        if step == "deletion" {
            installation.replays().delete(&name, &DeleteParams::default()).await.expect("delete a Replay");
        }
        controller.kill();
        controller = installation.start_leader_in("pod-1").await;
        if step == "deletion" {
            wait_until("the object to be gone", async || installation.replay(&name).await.is_none()).await;
            assert_eq!(installation.jobs(&name).await[0]["desired"], "Cancelled");
        } else {
            installation.wait_for_replay(&name, ReplayPhase::Pending, "Pending").await;
        }
        assert_eq!(installation.jobs(&name).await.len(), 1, "killed after {step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_waits_for_an_integration_of_its_own_namespace() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    let id = prepare(&installation).await;
    let namespace = &installation.namespace;
    let elsewhere =
        |namespace: &str| format!("UPDATE integrations SET namespace = '{namespace}' WHERE id = '{id}'");
    installation.database.execute(&elsewhere("elsewhere")).await;
    installation.apply_replay("outage", &failed_spec("orders")).await;
    installation.wait_for_replay("outage", ReplayPhase::Pending, "IntegrationNotFound").await;
    assert_eq!(installation.jobs("outage").await, Vec::<Value>::new());
    let unknown = merged(failed_spec("orders"), json!({"destinations": ["billing"]}));
    installation.database.execute(&elsewhere(namespace)).await;
    installation.apply_replay("billing", &unknown).await;
    installation.wait_for_replay("billing", ReplayPhase::Pending, "DestinationNotFound").await;
    installation.wait_for_replay("outage", ReplayPhase::Pending, "Pending").await;
    let invalid = merged(failed_spec("orders"), json!({"filter": "payload.total >"}));
    installation.apply_replay("invalid", &invalid).await;
    let rejected = installation.wait_for_replay("invalid", ReplayPhase::Rejected, "InvalidSpec").await;
    let status = rejected.status.expect("a status");
    assert!(status.conditions[0].message.starts_with("spec.filter: "), "{:?}", status.conditions);
    installation.apply_replay("many", &merged(failed_spec("orders"), json!({"maxDeliveries": 1}))).await;
    installation.wait_for_replay("many", ReplayPhase::Rejected, "LimitReached").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_and_begins_when_it_is_told_to() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    prepare(&installation).await;
    installation.apply_replay("outage", &merged(failed_spec("orders"), json!({"dryRun": true}))).await;
    let counted = installation.wait_for_replay("outage", ReplayPhase::Pending, "DryRun").await;
    assert_eq!(counted.status.and_then(|status| status.matched), Some(2));
    assert_eq!(installation.jobs("outage").await, Vec::<Value>::new());

    // What was counted is what is expected.
    let run = merged(failed_spec("orders"), json!({"dryRun": false, "expectedCount": 2}));
    installation.apply_replay("outage", &run).await;
    installation.wait_for_replay("outage", ReplayPhase::Pending, "Pending").await;
    assert_eq!(installation.jobs("outage").await.len(), 1);
    installation.apply_replay("other", &merged(failed_spec("orders"), json!({"expectedCount": 20}))).await;
    let rejected = installation.wait_for_replay("other", ReplayPhase::Rejected, "UnexpectedCount").await;
    let message = &rejected.status.expect("a status").conditions[0].message;
    assert_eq!(message, "2 deliveries match, and spec.expectedCount is 20");
    assert_eq!(installation.jobs("other").await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_namespace_takes_its_replays_along() {
    // With rights in the whole cluster: those in a namespace go with it, perhaps first.
    let installation = Installation::of_the_cluster().await;
    let _controller = installation.start_leader().await;
    prepare(&installation).await;
    installation.apply_replay("outage", &failed_spec("orders")).await;
    installation.wait_for_replay("outage", ReplayPhase::Pending, "Pending").await;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(installation.client.clone());
    namespaces.delete(&installation.namespace, &DeleteParams::default()).await.expect("delete a namespace");
    wait_until("the job to be cancelled", async || {
        installation.jobs("outage").await[0]["desired"] == "Cancelled"
    })
    .await;
    wait_until("the Replay to be gone", async || installation.replay("outage").await.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgresql_a_replay_waits_and_the_job_of_a_deleted_one_is_cancelled_later() {
    let mut installation = Installation::new().await;
    let proxy = installation.put_proxy("DATABASE_URL").await;
    let _controller = installation.start_leader().await;
    prepare(&installation).await;
    installation.apply_replay("first", &failed_spec("orders")).await;
    installation.wait_for_replay("first", ReplayPhase::Pending, "Pending").await;
    proxy.close();
    installation.apply_replay("second", &failed_spec("orders")).await;
    installation.wait_for_replay("second", ReplayPhase::Pending, "DatabaseUnavailable").await;
    installation.delete_replay("first").await;
    assert_eq!(installation.jobs("first").await[0]["desired"], "Running");
    proxy.open();
    installation.wait_for_replay("second", ReplayPhase::Pending, "Pending").await;
    wait_until("the job to be cancelled", async || {
        installation.jobs("first").await[0]["desired"] == "Cancelled"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_delivered_again_and_the_object_completes_and_goes_in_its_time() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    let is_up = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let answers = std::sync::Arc::clone(&is_up);
    let receiver = TestReceiver::answering(move |_, delivery| {
        let succeeds = answers.load(std::sync::atomic::Ordering::Relaxed);
        // One of them fails again.
        Reply::Status(if succeeds && !delivery.body.contains("evt-2") { 200 } else { 500 })
    })
    .await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let destination = json!({"name": "orders", "url": receiver.url("/orders"), "retry": {"maxAttempts": 1}});
    installation.apply("orders", merged(acme_spec("acme"), json!({"destinations": [destination]}))).await;
    installation.wait_until_ready("orders").await;
    let api = installation.start_api();
    let _worker = installation.start_worker();
    wait_until("the api to know it", async || {
        installation.post(api.port, "acme", ACME_SECRET, "evt-0").await == 202
    })
    .await;
    for id in ["evt-1", "evt-2", "evt-3"] {
        assert_eq!(installation.post(api.port, "acme", ACME_SECRET, id).await, 202);
    }
    let failed = "SELECT count(*) FROM deliveries WHERE status = 'failed'";
    installation.database.wait_for_count(failed, 4).await;
    is_up.store(true, std::sync::atomic::Ordering::Relaxed);
    let second = jiff::Timestamp::now().as_second();
    wait_until("the next second", async || jiff::Timestamp::now().as_second() > second).await;

    installation.apply_replay("outage", &failed_spec("orders")).await;
    installation.kubectl(&["wait", "--for=condition=Complete", "--timeout=60s", "greplay/outage"]);
    let done = installation.wait_for_replay("outage", ReplayPhase::Completed, "Completed").await;
    installation.wait_until_released("outage").await;
    let status = done.status.expect("a status");
    let counts = (status.matched, status.fed, status.succeeded, status.failed, status.remaining);
    assert_eq!(counts, (Some(4), Some(4), Some(3), Some(1), Some(0)));
    assert_eq!(status.progress.as_deref(), Some("4/4"));
    let id = status.replay_id.expect("an id");
    let again: Vec<_> =
        receiver.deliveries().into_iter().filter(|one| one.header("grapnel-replay-id") == id).collect();
    assert_eq!(again.len(), 4);
    let events = installation.event_reasons("outage").await;
    assert_eq!(events.last().map(String::as_str), Some("Completed"), "{events:?}");

    change(&installation, "outage", json!({"ttlSecondsAfterFinished": 0})).await;
    wait_until("the object to be deleted", async || installation.replay("outage").await.is_none()).await;
    assert_eq!(installation.jobs("outage").await[0]["state"], "Completed", "its job stays");
}
