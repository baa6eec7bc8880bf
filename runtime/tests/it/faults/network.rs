//! The network between a process and a datastore breaks, and neither side notices.

use std::time::Duration;

use futures::future::join_all;
use grapnel_testing::{FaultProxy, WAIT_TIMEOUT, acme_event};

use super::{BOUND, within};
use crate::harness::Platform;
use crate::harness::load::{Load, duplicates};

/// A hanging connection is given up by its deadline or a heartbeat, and the deliveries that it held by the requeue bound.
const LIMIT: Duration = WAIT_TIMEOUT;

#[tokio::test]
async fn connections_to_postgres_that_hang_are_given_up() {
    let mut platform = Platform::new().await;
    let load = Load::new(&platform);
    platform.apply(&load.integration()).await;
    let direct = platform.variable("DATABASE_URL");
    let proxy = FaultProxy::new(&direct).await;
    platform.set("DATABASE_URL", &proxy.url(&direct));
    let _processes = (platform.start(&["api"]), platform.start(&["worker"]));
    platform.wait_until_accepting().await;
    let running = load.begin();
    running.delivers(200).await;
    // All of them have a connection: the hot writers, the dispatcher, the management routes, health.
    join_all((0..8).map(|_| platform.get("/api/v1/events"))).await;
    proxy.freeze();
    let reads = join_all((0..20).map(|_| platform.get("/api/v1/events")));
    let health = join_all((0..20).map(|_| platform.get("/api/v1/health")));
    let accepted = within(LIMIT, "webhooks are accepted again", running.accepts(200));
    tokio::join!(reads, health, accepted);
    within(LIMIT, "deliveries continue", running.delivers(200)).await;
    within(LIMIT, "the management routes answer again", async {
        while platform.get("/api/v1/events").await.status != 200 {}
    })
    .await;
    // Every twentieth event is retried, so this shows that the dispatchers continue too.
    let report = running.end().await;
    assert!(report.answers.keys().all(|status| [200, 202, 503].contains(status)), "{report}");
}

#[tokio::test]
async fn connections_to_rabbitmq_that_hang_are_given_up() {
    let mut platform = Platform::new().await;
    let load = Load::new(&platform);
    platform.apply(&load.integration()).await;
    let direct = platform.services.rabbitmq_url.clone();
    let proxy = FaultProxy::new(&direct).await;
    platform.set("RABBITMQ_URL", &proxy.url(&direct));
    let _processes = (platform.start(&["api"]), platform.start(&["worker"]));
    platform.wait_until_accepting().await;
    let running = load.begin();
    running.delivers(200).await;
    proxy.freeze();
    running.accepts(200).await;
    within(LIMIT, "deliveries continue", running.delivers(400)).await;
    let report = running.end().await;
    assert!(report.answers.keys().all(|status| [200, 202].contains(status)), "{report}");
    assert_eq!(duplicates(&report), 0, "{report}");
}

#[tokio::test]
async fn connections_to_redis_that_hang_are_given_up() {
    let mut platform = Platform::new().await;
    let direct = platform.variable("REDIS_URL");
    let proxy = FaultProxy::new(&direct).await;
    platform.set("REDIS_URL", &proxy.url(&direct));
    platform.set("GRAPNEL_RATE_LIMIT_PER_MINUTE", "1000000");
    let load = Load::new(&platform);
    let api = platform.start_api(&load.integration()).await;
    assert_eq!(platform.post_acme(&acme_event("before")).await.status, 202);
    proxy.freeze();
    let event = acme_event("after");
    let answer = within(BOUND, "an answer", platform.post_acme(&event)).await;
    assert_eq!(answer.status, 202);
    within(LIMIT, "limits are shared again", async {
        while !api.log().contains("Redis is available again") {
            assert_eq!(platform.post_acme(&event).await.status, 200);
        }
    })
    .await;
    assert_eq!(platform.get("/api/v1/health").await.status, 200);
}
