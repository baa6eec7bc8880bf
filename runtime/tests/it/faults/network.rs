//! The network between a process and a datastore breaks, and neither side is told.

use std::time::Duration;

use super::within;
use crate::harness::load::{Load, duplicates};
use crate::harness::proxy::Proxy;
use crate::harness::{MANAGEMENT_KEY, Platform};

#[tokio::test]
async fn connections_to_postgres_that_hang_are_given_up() {
    let mut platform = Platform::new().await;
    let load = Load::new(&platform);
    platform.apply(&load.integration()).await;
    let direct = platform.variable("DATABASE_URL");
    let proxy = Proxy::new(&direct).await;
    platform.set("DATABASE_URL", &proxy.url(&direct));
    let _processes = (platform.start(&["api"]), platform.start(&["worker"]));
    platform.wait_until_accepting().await;
    let running = load.begin();
    running.delivers(200).await;
    for _ in 0..2 {
        // Everyone who has a connection: the hot writers, the dispatcher, the management routes, health.
        let reads = (0..8).map(|_| platform.get("/api/v1/events"));
        futures::future::join_all(reads).await;
        proxy.freeze();
        let reads = (0..20).map(|_| {
            platform
                .http
                .get(platform.url("/api/v1/events"))
                .header("x-internal-api-key", MANAGEMENT_KEY)
                .send()
        });
        let health = (0..20).map(|_| platform.http.get(platform.url("/api/v1/health")).send());
        let (_reads, _health, ()) = tokio::join!(
            futures::future::join_all(reads),
            futures::future::join_all(health),
            within(Duration::from_secs(40), "webhooks are accepted again", running.accepts(200)),
        );
        within(Duration::from_secs(40), "deliveries go on", running.delivers(200)).await;
        within(Duration::from_secs(40), "the management routes answer again", async {
            while platform.get("/api/v1/events").await.status != 200 {}
        })
        .await;
    }
    // Every twentieth event is retried, so this shows that the dispatchers go on too.
    let report = running.end().await;
    assert!(report.answers.keys().all(|status| [200, 202, 503].contains(status)), "{report}");
}

#[tokio::test]
async fn connections_to_rabbitmq_that_hang_are_given_up() {
    let mut platform = Platform::new().await;
    let load = Load::new(&platform);
    platform.apply(&load.integration()).await;
    let direct = platform.services.rabbitmq_url.clone();
    let proxy = Proxy::new(&direct).await;
    platform.set("RABBITMQ_URL", &proxy.url(&direct));
    let _processes = (platform.start(&["api"]), platform.start(&["worker"]));
    platform.wait_until_accepting().await;
    let running = load.begin();
    running.delivers(200).await;
    proxy.freeze();
    running.accepts(200).await;
    within(Duration::from_secs(45), "deliveries go on", running.delivers(400)).await;
    let report = running.end().await;
    assert!(report.answers.keys().all(|status| [200, 202].contains(status)), "{report}");
    assert_eq!(duplicates(&report), 0, "{report}");
}
