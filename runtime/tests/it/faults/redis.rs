//! Redis is stopped, or loses its data.

use grapnel_testing::wait_until;

use super::{BOUND, within};
use crate::harness::Platform;
use crate::harness::load::{Load, duplicates};

/// Waits until `/health` has this status and reports this state of Redis.
async fn wait_for_health(platform: &Platform, status: u16, redis: &str) {
    wait_until(&format!("health to be {status}"), || async {
        let health = platform.get("/api/v1/health").await;
        let checks = &health.json()["data"]["checks"];
        health.status == status
            && checks["redis"]["status"] == redis
            && checks["postgres"]["status"] == "ok"
            && checks["rabbitmq"]["status"] == "ok"
    })
    .await;
}

#[tokio::test]
async fn redis_that_stops_and_forgets_refuses_and_loses_nothing() {
    let mut platform = Platform::with_own_services().await;
    platform.set("GRAPNEL_RATE_LIMIT_PER_MINUTE", "1000000");
    let load = Load::new(&platform);
    let _running = platform.start_api_and_worker(&load.integration()).await;
    let running = load.begin();
    running.accepts(100).await;
    wait_for_health(&platform, 200, "ok").await;

    let client = ::redis::Client::open(platform.services.redis_url.clone()).expect("a URL");
    let mut connection = client.get_connection_manager().await.expect("Redis");
    ::redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.expect("flushed");
    ::redis::cmd("SCRIPT").arg("FLUSH").query_async::<()>(&mut connection).await.expect("flushed");
    running.accepts(200).await;

    platform.services.control("kill", "redis").await;
    within(BOUND, "health is degraded", wait_for_health(&platform, 503, "error")).await;
    let degraded = platform.get("/api/v1/health").await;
    assert_eq!(degraded.json()["data"]["status"], "degraded", "{degraded:?}");
    running.accepts(200).await;
    platform.services.control("start", "redis").await;
    within(BOUND, "health is well again", wait_for_health(&platform, 200, "ok")).await;
    running.accepts(200).await;
    let report = running.end().await;
    assert_eq!(report.answers.keys().copied().collect::<Vec<_>>(), [202], "{report}");
    assert_eq!((report.attempts_without_answer, duplicates(&report)), (0, 0), "{report}");
}
