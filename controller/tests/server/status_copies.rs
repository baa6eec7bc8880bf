//! What is reported about an object is copied to the database, for those who do not ask the API server.

use grapnel_core::ids::IntegrationId;
use grapnel_crds::{Integration, names};
use grapnel_store::integrations::status::{ObjectStatus, StatusReport, confirm, report};
use grapnel_testing::{ACME_SECRET, wait_until};
use jiff::Timestamp;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Installation, acme_spec, merged};

/// The copy of an object's status.
async fn copy(installation: &Installation, id: Uuid) -> Option<Value> {
    let sql = format!(
        "SELECT ready, ready_reason, ready_message, desired_workers, workers, ready_workers, limited_by, backlog, conditions,
            last_scaling, observed_generation, writer_epoch
        FROM integration_statuses WHERE integration_id = '{id}'"
    );
    installation.database.rows(&sql).await.pop()
}

/// What changes with each write of the row.
async fn version(installation: &Installation, id: Uuid) -> Option<String> {
    let sql = format!("SELECT xmin::text FROM integration_statuses WHERE integration_id = '{id}'");
    installation.database.text(&sql).await
}

/// Waits until the copy has the status of the object, and returns the object.
async fn wait_until_copied(installation: &Installation, name: &str) -> Integration {
    let mut object = None;
    wait_until("the copy to be the status", async || {
        let found = installation.get(name).await.expect("the object");
        let copied = copy(installation, found.id()).await;
        let status = serde_json::to_value(found.status.as_ref()).expect("JSON");
        let is_same = copied.is_some_and(|copied| {
            copied["conditions"] == status["conditions"]
                && copied["ready_workers"] == status["workers"]["readyReplicas"]
                && copied["desired_workers"] == status["scaling"]["desiredReplicas"]
        });
        object = Some(found);
        is_same
    })
    .await;
    object.expect("an object")
}

/// Applies an Integration, waits until it is ready and copied, and returns its id.
async fn apply_and_copy(installation: &Installation) -> Uuid {
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply("orders", acme_spec("acme")).await;
    let id = installation.wait_until_ready("orders").await.id();
    wait_until_copied(installation, "orders").await;
    id
}

/// Waits until a controller has found once more that everything is copied.
async fn wait_until_confirmed(installation: &Installation) {
    let confirmed = "SELECT confirmed_at::text FROM status_confirmed";
    let before = installation.database.text(confirmed).await;
    wait_until("a confirmation", async || installation.database.text(confirmed).await != before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copy_follows_the_status_and_is_not_written_again_while_nothing_changes() {
    let installation = Installation::new().await;
    let mut controller = installation.start_leader().await;
    let id = apply_and_copy(&installation).await;
    let copied = copy(&installation, id).await.expect("a copy");
    assert_eq!(
        (&copied["ready"], &copied["ready_reason"]),
        (&json!("True"), &json!("AsDesired")),
        "{copied}"
    );

    installation.secrets().delete("acme", &DeleteParams::default()).await.expect("delete a Secret");
    let object = installation.wait_for_condition("orders", "Ready", "False", "SecretNotFound").await;
    wait_until_copied(&installation, "orders").await;
    let copied = copy(&installation, id).await.expect("a copy");
    let conditions = object.status.expect("a status").conditions;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready").expect("a condition");
    assert_eq!((&copied["ready"], &copied["ready_reason"]), (&json!("False"), &json!("SecretNotFound")));
    assert_eq!(copied["ready_message"], ready.message.as_str());

    // Between two confirmations it looked several times.
    wait_until_confirmed(&installation).await;
    let before = version(&installation, id).await;
    wait_until_confirmed(&installation).await;
    assert_eq!(version(&installation, id).await, before, "nothing new was written");

    // One that begins knows nothing of what was written.
    controller.kill();
    let _controller = installation.start_leader().await;
    wait_until_confirmed(&installation).await;
    assert_eq!(version(&installation, id).await, before, "nothing new was written by another leader");

    installation.apply_secret("acme", ACME_SECRET).await;
    installation.wait_until_ready("orders").await;
    wait_until_copied(&installation, "orders").await;
    let copied = copy(&installation, id).await.expect("a copy");
    assert_eq!(copied["ready"], "True", "{copied}");

    installation.delete("orders").await;
    installation.wait_until_gone("orders").await;
    assert_eq!(copy(&installation, id).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn backlog_and_workers_are_copied_and_kept_by_the_minute() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let scaling = json!({"workers": {"scaling": {"maxReplicas": 2, "targetBacklogPerReplica": 100}}});
    installation.apply("orders", merged(acme_spec("acme"), scaling)).await;
    let id = installation.wait_until_ready("orders").await.id();
    let queue = names::queue_name(&installation.queue_prefix, id, "orders");
    installation.queue(&queue).publish_all(std::iter::repeat_n(&b"{}"[..], 300)).await;
    let began = Timestamp::now();
    installation.wait_for_replicas(id, 2).await;
    wait_until("the numbers", async || {
        let copied = copy(&installation, id).await.unwrap_or_default();
        copied["backlog"] == 300
            && copied["desired_workers"] == 2
            && copied["limited_by"] == "MaxReplicas"
            && copied["last_scaling"]["to"] == 2
    })
    .await;
    wait_until("the minute to be over", async || Timestamp::now().as_second() / 60 > began.as_second() / 60)
        .await;
    let most = format!(
        "SELECT count(*) FROM worker_minutes WHERE integration_id = '{id}' AND backlog = 300 AND desired_workers = 2"
    );
    wait_until("its row", async || installation.database.count(&most).await >= 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_leader_and_an_object_without_a_row_report_nothing() {
    let installation = Installation::new().await;
    let mut controller = installation.start_leader().await;
    let id = apply_and_copy(&installation).await;
    wait_until_confirmed(&installation).await;
    controller.kill();

    let copied = copy(&installation, id).await.expect("a copy");
    let epoch = copied["writer_epoch"].as_i64().expect("an epoch");
    let status = ObjectStatus { conditions: "[]".to_owned(), ..ObjectStatus::default() };
    let reports = [id, Uuid::now_v7()].map(|id| StatusReport {
        id: IntegrationId::new(id),
        status: &status,
        backlog: Some(7),
    });
    let confirmed = "SELECT confirmed_at::text FROM status_confirmed";
    let before = installation.database.text(confirmed).await;
    report(&installation.db, epoch - 1, &reports).await.expect("a statement");
    confirm(&installation.db, epoch - 1).await.expect("a statement");
    assert_eq!(copy(&installation, id).await.as_ref(), Some(&copied));
    assert_eq!(installation.database.text(confirmed).await, before);

    report(&installation.db, epoch, &reports).await.expect("a statement");
    let newer = copy(&installation, id).await.expect("a copy");
    assert_eq!((&newer["backlog"], &newer["ready"]), (&json!(7), &Value::Null));
    assert_eq!(installation.database.count("SELECT count(*) FROM integration_statuses").await, 1);
}
