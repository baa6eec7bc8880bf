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
    let installation = Installation::of_the_cluster().await;
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
        println!("{:?}: {number} ready", started.elapsed());
        if number == COUNT {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(600), "{number} are ready");
        tokio::time::sleep(Duration::from_secs(1)).await;
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
    let calls = async |verb: &str| {
        let label = format!("verb=\"{verb}\"");
        controller.counter("grapnel_controller_api_requests_total", &[&label], &[]).await
    };
    println!(
        "created in {created:?}, all ready after {all_ready:?}, settled after {:?} with {} MB; requests: {} patch, {} post, \
         {} get; {} of the patches were of a status",
        started.elapsed(),
        controller.memory_mb(),
        calls("patch").await,
        calls("post").await,
        calls("get").await,
        controller.counter("grapnel_controller_status_writes_total", &[], &[]).await,
    );
    assert!(all_ready < Duration::from_secs(120), "{all_ready:?}");
    assert!(controller.memory_mb() < 150, "{} MB", controller.memory_mb());
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
    let took = edited.elapsed();
    println!("one edit among them was effective after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn measure_declares() {
    let installation = Installation::new().await;
    let link = grapnel::queue::Link::new(installation.rabbitmq_url.clone().into(), "m");
    for (round, concurrent) in [1, 4, 16, 64].into_iter().enumerate() {
        let started = Instant::now();
        futures::stream::iter(0..100)
            .for_each_concurrent(concurrent, async |n| {
                let channel = link.channel().await.unwrap();
                grapnel::queue::declare(&channel, &format!("{}m{round}-{n}", installation.queue_prefix))
                    .await
                    .unwrap();
                grapnel::queue::close(channel).await;
            })
            .await;
        println!("declare 100, {concurrent} at once: {:?}", started.elapsed());
    }
}
