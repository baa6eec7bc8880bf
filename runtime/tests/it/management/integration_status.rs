//! The state of an Integration's object, as the controller reported it.

use axum::http::StatusCode;
use grapnel_core::ids::IntegrationId;
use grapnel_store::integrations::status::{
    ObjectStatus, ReadyCondition, StatusReport, WorkerNumbers, confirm, report,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::harness::Api;

const SINCE: &str = "2026-11-24T10:00:00Z";

fn not_ready() -> ObjectStatus {
    let condition = json!({
        "type": "Ready", "status": "False", "reason": "WorkersFailing", "message": "cannot pull the image", "lastTransitionTime": SINCE,
        "observedGeneration": 2,
    });
    let accepted = json!({
        "type": "Accepted", "status": "True", "reason": "AsDesired", "message": "", "lastTransitionTime": SINCE,
    });
    ObjectStatus {
        observed_generation: Some(2),
        ready: Some(ReadyCondition {
            status: "False".into(),
            reason: "WorkersFailing".into(),
            message: "cannot pull the image".into(),
            since: SINCE.parse().expect("a time"),
        }),
        workers: WorkerNumbers { desired: Some(3), existing: Some(2), ready: Some(0) },
        limited_by: Some("MaxReplicas".into()),
        last_scaling: Some(
            json!({"time": SINCE, "from": 0, "to": 3, "reason": "Activated", "message": "0→3: backlog 300"})
                .to_string(),
        ),
        conditions: json!([condition, accepted]).to_string(),
    }
}

async fn reported(api: &Api, id: Uuid, status: &ObjectStatus, backlog: Option<i64>) {
    let reports = [StatusReport { id: IntegrationId::new(id), status, backlog }];
    report(&api.db, 1, &reports).await.expect("a commit");
}

async fn read(api: &Api, id: Uuid) -> Value {
    api.get(&format!("/integrations/{id}")).await.expect(StatusCode::OK).json["data"].clone()
}

/// When the controller reported, by the clock of the database.
fn reported_at(shown: &Value) -> Timestamp {
    shown["reportedAt"].as_str().expect("a time").parse().expect("a time")
}

#[tokio::test]
async fn what_was_reported_is_shown_and_what_was_not_is_null() {
    let api = Api::start().await;
    let (silent, failing) =
        (api.integration("silent", &["a"]).await, api.integration("failing", &["a"]).await);
    reported(&api, failing, &not_ready(), Some(300)).await;
    confirm(&api.db, 1).await.expect("a commit");

    let list = api.get("/integrations").await.expect(StatusCode::OK);
    let listed = |id: Uuid| {
        list.data().iter().find(|item| item["id"] == id.to_string()).cloned().expect("an integration")
    };
    let expected = json!({
        "ready": "False", "readyReason": "WorkersFailing", "readyMessage": "cannot pull the image", "readySince": "2026-11-24T10:00:00.000Z",
        "workers": {"desired": 3, "existing": 2, "ready": 0, "limitedBy": "MaxReplicas"}, "queueBacklog": 300,
    });
    for shown in [listed(failing), read(&api, failing).await] {
        for (name, value) in expected.as_object().expect("an object") {
            assert_eq!(&shown[name], value, "{name}: {shown}");
        }
        assert!(shown["reportedAt"].is_string(), "{shown}");
    }
    for shown in [listed(silent), read(&api, silent).await] {
        for name in
            ["ready", "readyReason", "readyMessage", "readySince", "workers", "queueBacklog", "reportedAt"]
        {
            assert_eq!(shown.get(name), Some(&Value::Null), "{name}: {shown}");
        }
    }
    let record = read(&api, failing).await;
    assert_eq!((&record["generation"], &record["observedGeneration"]), (&json!(1), &json!(2)));
    assert_eq!(
        record["conditions"],
        json!([
            {"type": "Ready", "status": "False", "reason": "WorkersFailing", "message": "cannot pull the image",
                "lastTransitionTime": "2026-11-24T10:00:00.000Z"},
            {"type": "Accepted", "status": "True", "reason": "AsDesired", "message": "",
                "lastTransitionTime": "2026-11-24T10:00:00.000Z"},
        ])
    );
    assert_eq!(
        (&record["lastScaling"]["to"], &record["lastScaling"]["reason"]),
        (&json!(3), &json!("Activated"))
    );
    let record = read(&api, silent).await;
    assert_eq!((&record["conditions"], &record["lastScaling"]), (&Value::Null, &Value::Null));
    assert!(listed(failing).get("conditions").is_none(), "a list has none");
    api.get(&format!("/integrations/{}", Uuid::now_v7())).await.refused(404, "NOT_FOUND");
    api.get(&format!("/integrations/{failing}?x=1")).await.invalid("x");
}

#[tokio::test]
async fn a_report_says_how_old_it_is() {
    let api = Api::start().await;
    let id = api.integration("acme", &["a"]).await;
    let status = not_ready();
    reported(&api, id, &status, None).await;
    assert_eq!(read(&api, id).await["queueBacklog"], Value::Null);
    api.execute("UPDATE integration_statuses SET reported_at = now() - interval '1 hour'").await;
    let old = reported_at(&read(&api, id).await);

    // The same again leaves the row alone; that all is reported is noted elsewhere.
    let version = "SELECT xmin::text FROM integration_statuses";
    let before = api.text(version).await;
    reported(&api, id, &status, None).await;
    assert_eq!((api.text(version).await, reported_at(&read(&api, id).await)), (before.clone(), old));
    confirm(&api.db, 1).await.expect("a commit");
    assert!(reported_at(&read(&api, id).await) > old);
    assert_eq!(api.text(version).await, before);

    reported(&api, id, &status, Some(1)).await;
    assert_ne!(api.text(version).await, before);

    // A removed integration has no state, whoever reports one, and what an older process left goes.
    let removed = grapnel_store::integrations::remove(&api.db, IntegrationId::new(id), "test").await;
    assert!(removed.expect("a commit"));
    reported(&api, id, &status, Some(2)).await;
    assert_eq!(api.text("SELECT count(*)::text FROM integration_statuses").await.as_deref(), Some("0"));
    let left = format!(
        "INSERT INTO integration_statuses (integration_id, writer_epoch, conditions) VALUES ('{id}', 1, '[]')"
    );
    api.execute(&left).await;
    let forgotten = grapnel_store::integrations::status::forget_retired(&api.db).await;
    assert_eq!(forgotten.expect("a commit"), 1);
}
