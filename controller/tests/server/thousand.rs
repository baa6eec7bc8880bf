//! A thousand objects at once.

use std::time::{Duration, Instant};

use futures::StreamExt;
use grapnel_crds::conditions;
use kube::api::ListParams;
use serde_json::json;

use crate::harness::{ACME_SECRET, Installation, acme_spec, merged, wait_for};

const COUNT: usize = 1000;

async fn ready(installation: &Installation, condition: &str) -> usize {
    let objects = installation.integrations().list(&ListParams::default()).await.expect("list Integrations");
    let is_ready = |object: &grapnel_crds::Integration| {
        let status = object.status.as_ref();
        let found = status.and_then(|status| conditions::find(&status.conditions, condition));
        found.is_some_and(|condition| condition.status == conditions::TRUE)
    };
    objects.items.iter().filter(|object| is_ready(object)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_objects_settle_and_then_nothing_is_written() {
    let installation = Installation::new().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let controller = installation.start_leader().await;
    let started = Instant::now();
    futures::stream::iter(0..COUNT)
        .for_each_concurrent(16, |number| {
            let (installation, name) = (&installation, format!("acme-{number}"));
            async move { drop(installation.apply(&name, acme_spec(&name)).await) }
        })
        .await;
    let created = started.elapsed();
    loop {
        let number = ready(&installation, "Ready").await;
        println!("{:?}: {number} ready, {} MB", started.elapsed(), controller.memory_mb());
        if number == COUNT {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(600), "{number} are ready");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let all_ready = started.elapsed();
    let mut before = controller.api_writes().await;
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = controller.api_writes().await;
        if std::mem::replace(&mut before, now) == now && ready(&installation, "ScalingActive").await == COUNT
        {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(600), "it does not settle");
    }
    println!(
        "created in {created:?}, all ready after {all_ready:?}, settled after {:?}: {before} writes, {} status writes, \
         {} MB",
        started.elapsed(),
        controller.counter("grapnel_controller_status_writes_total", &[], &[]).await,
        controller.memory_mb()
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(controller.api_writes().await - before, 0, "writes in a minute at rest");
    let edited = Instant::now();
    let object =
        installation.apply("acme-500", merged(acme_spec("acme-500"), json!({"displayName": "edited"}))).await;
    wait_for("the edit", async || {
        installation
            .row(object.id())
            .await
            .is_some_and(|row| row["generation"].as_i64() == object.metadata.generation)
    })
    .await;
    println!("one edit among them was effective after {:?}", edited.elapsed());
}
