//! Of two writers only the newer one takes effect.

use std::time::Instant;

use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::{IntegrationRow, RowState};
use grapnel_store::audit::ObjectEnd;
use grapnel_store::integrations::epoch;
use grapnel_store::integrations::retire;
use grapnel_store::integrations::{self as rows, UpsertOutcome};
use grapnel_testing::{ACME_SECRET, wait_until};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Installation, acme_spec, merged};

fn row(id: Uuid, generation: i64, writer_epoch: i64) -> IntegrationRow {
    IntegrationRow {
        id: IntegrationId::new(id),
        uid: id.to_string(),
        namespace: "shop".to_owned(),
        name: "orders".to_owned(),
        generation,
        writer_epoch,
        provider: "acme".to_owned(),
        route: "acme".to_owned(),
        display_name: "orders".to_owned(),
        state: RowState::Active,
        spec: "{}".to_owned(),
        secrets: vec![1],
        gone: Vec::new(),
        endpoints: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_generation_and_an_older_leader_write_nothing() {
    let installation = Installation::new().await;
    let (db, id) = (&installation.db, Uuid::now_v7());
    let write = async |generation, writer_epoch| {
        rows::upsert(db, &row(id, generation, writer_epoch), &[], "test").await.expect("write the row")
    };
    assert_eq!(write(2, 5).await, UpsertOutcome::Applied);
    assert_eq!(write(1, 5).await, UpsertOutcome::Superseded);
    assert_eq!(write(2, 4).await, UpsertOutcome::Superseded);
    assert_eq!(write(3, 5).await, UpsertOutcome::Applied);
    // A new leader fences the old one even if it has nothing to write.
    assert!(epoch::take_over(db, 6).await.expect("take over"));
    assert_eq!(write(3, 5).await, UpsertOutcome::Superseded);
    assert_eq!(write(4, 5).await, UpsertOutcome::Superseded);
    assert!(!epoch::take_over(db, 5).await.expect("ask"), "the older one is refused");
    assert_eq!(
        retire::retire(db, IntegrationId::new(id), 5, "test", &ObjectEnd::default()).await.expect("retire"),
        retire::RetireOutcome::Superseded
    );
    assert!(!retire::start_draining(db, IntegrationId::new(id), 5).await.expect("drain"));
    assert_eq!(write(4, 6).await, UpsertOutcome::Applied);
    assert_eq!(epoch::highest(db).await.expect("the epoch"), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_takes_over_from_a_killed_leader() {
    let installation = Installation::new().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let mut first = installation.start_leader().await;
    let second = installation.start_controller();
    installation.apply("orders", acme_spec("acme")).await;
    installation.wait_until_ready("orders").await;
    let killed = Instant::now();
    first.kill();
    installation.apply("orders", merged(acme_spec("acme"), json!({"displayName": "later"}))).await;
    installation.wait_until_ready("orders").await;
    // 15 s on an idle machine, which is how long a lease lasts.
    println!("the other replica had taken over {:?} after the kill", killed.elapsed());
    assert!(second.leads());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_stopped_releases_its_lease() {
    let installation = Installation::new().await;
    let mut first = installation.start_leader().await;
    let leases: Api<Lease> = Api::namespaced(installation.client.clone(), &installation.platform);
    let holders = async || {
        let leases = leases.list(&ListParams::default()).await.expect("list Leases").items;
        let specs = leases.into_iter().filter_map(|lease| lease.spec);
        specs.filter_map(|spec| spec.holder_identity).collect::<Vec<_>>()
    };
    assert!(matches!(&holders().await[..], [holder] if !holder.is_empty()));
    first.signal("TERM");
    assert!(first.wait().await.success());
    assert_eq!(holders().await, [""], "nobody has to wait for its end");
    let second = installation.start_controller();
    wait_until("the other replica to lead", async || second.leads()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_that_resumes_writes_nothing_and_exits() {
    let installation = Installation::new().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let mut first = installation.start_leader().await;
    let second = installation.start_controller();
    installation.apply("orders", acme_spec("acme")).await;
    let id = installation.wait_until_ready("orders").await.id();
    let old_epoch = installation.row(id).await.expect("a row")["epoch"].as_i64().expect("a number");
    first.signal("STOP");
    wait_until("the other replica to lead", async || second.leads()).await;
    installation.apply("orders", merged(acme_spec("acme"), json!({"displayName": "later"}))).await;
    installation.wait_until_ready("orders").await;
    let row = installation.row(id).await.expect("a row");
    assert!(row["epoch"].as_i64().expect("a number") > old_epoch);
    first.signal("CONT");
    assert!(!first.wait().await.success(), "it exits, to start again as one that waits");
    assert_eq!(installation.row(id).await.expect("a row"), row);
    installation.apply("orders", merged(acme_spec("acme"), json!({"displayName": "latest"}))).await;
    installation.wait_until_ready("orders").await;
}
