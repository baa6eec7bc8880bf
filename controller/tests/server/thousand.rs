//! A thousand objects at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use grapnel_crds::{Integration, conditions};
use grapnel_testing::{ACME_SECRET, wait_until};
use kube::ResourceExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, watcher};
use serde_json::json;

use crate::harness::{Installation, acme_spec, merged};

const COUNT: usize = 1000;

/// The numbers of objects that report each of these conditions as true. They come from a watch, since listing all
/// objects repeatedly would be most of the API server's work.
struct ReadyCounts {
    ready: AtomicUsize,
    scaling: AtomicUsize,
}

impl ReadyCounts {
    fn follow(installation: &Installation) -> Arc<Self> {
        let counts = Arc::new(Self { ready: AtomicUsize::new(0), scaling: AtomicUsize::new(0) });
        let (watch, counter) = (watcher(installation.integrations(), Config::default()), Arc::clone(&counts));
        // Ends with the runtime of the test.
        tokio::spawn(async move {
            let (mut ready, mut scaling) = (BTreeSet::new(), BTreeSet::new());
            watch
                .applied_objects()
                .for_each(|object| {
                    if let Ok(object) = object {
                        update(&mut ready, &object, "Ready");
                        update(&mut scaling, &object, "ScalingActive");
                        counter.ready.store(ready.len(), Ordering::Relaxed);
                        counter.scaling.store(scaling.len(), Ordering::Relaxed);
                    }
                    std::future::ready(())
                })
                .await;
        });
        counts
    }
}

fn update(names: &mut BTreeSet<String>, object: &Integration, condition: &str) {
    let found = object.status.as_ref().and_then(|status| conditions::find(&status.conditions, condition));
    if found.is_some_and(|found| found.status == conditions::TRUE) {
        names.insert(object.name_any());
    } else {
        names.remove(&object.name_any());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_objects_settle_and_then_nothing_is_written() {
    let mut installation = Installation::of_the_cluster().await;
    installation.set("GRAPNEL_MAX_INTEGRATIONS_PER_NAMESPACE", &COUNT.to_string());
    installation.apply_secret("acme", ACME_SECRET).await;
    let controller = installation.start_leader().await;
    let counts = ReadyCounts::follow(&installation);
    let started = Instant::now();
    futures::stream::iter(0..COUNT)
        .for_each_concurrent(16, |number| {
            let (installation, name) = (&installation, format!("acme-{number}"));
            async move { drop(installation.apply(&name, acme_spec(&name)).await) }
        })
        .await;
    let created = started.elapsed();
    let (mut printed, mut number) = (0, 0);
    while number < COUNT {
        tokio::time::sleep(Duration::from_millis(100)).await;
        number = counts.ready.load(Ordering::Relaxed);
        if number / 200 > printed {
            printed = number / 200;
            println!("{:?}: {number} are ready", started.elapsed());
        }
        assert!(started.elapsed() < Duration::from_secs(600), "{number} are ready");
    }
    let all_ready = started.elapsed();
    let mut before = controller.api_writes().await;
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = controller.api_writes().await;
        let scaling = counts.scaling.load(Ordering::Relaxed);
        if std::mem::replace(&mut before, now) == now && scaling == COUNT {
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
         {} get; {} of the patches were of a status; {} passes",
        started.elapsed(),
        controller.memory_mb(),
        calls("patch").await,
        calls("post").await,
        calls("get").await,
        controller.counter("grapnel_controller_status_writes_total", &[], &[]).await,
        controller.counter("grapnel_controller_reconciles_total", &[], &[]).await,
    );
    assert!(controller.memory_mb() < 128, "{} MB", controller.memory_mb());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(controller.api_writes().await - before, 0, "writes in a minute at rest");
    let object =
        installation.apply("acme-500", merged(acme_spec("acme-500"), json!({"displayName": "edited"}))).await;
    let took = wait_until("the edit", async || {
        installation
            .row(object.id())
            .await
            .is_some_and(|row| row["generation"].as_i64() == object.metadata.generation)
    })
    .await;
    // Half a second on an idle machine; all are ready after some 35 s with two processors.
    println!("one edit among them took effect after {took:?}");
}
