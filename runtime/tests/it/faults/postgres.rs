//! PostgreSQL is restarted or killed.

use futures::future::join_all;
use grapnel_testing::acme_event;

use super::{BOUND, within};
use crate::harness::Platform;
use crate::harness::load::Load;

#[tokio::test]
async fn postgres_that_restarts_or_dies_loses_nothing_that_was_accepted() {
    let mut platform = Platform::with_own_services().await;
    // One client may not open as many connections as this test does at once.
    platform.set("GRAPNEL_TRUSTED_PROXIES", "127.0.0.0/8");
    let load = Load::new(&platform);
    let (mut api, mut worker) = platform.start_api_and_worker(&load.integration()).await;
    let running = load.begin();
    running.delivers(200).await;
    platform.services.control("restart", "postgres").await;
    within(BOUND, "webhooks are accepted again", running.accepts(200)).await;
    within(BOUND, "deliveries continue", running.delivers(200)).await;

    platform.services.control("stop", "postgres").await;
    everything_is_answered_soon(&platform).await;
    platform.services.control("start", "postgres").await;
    within(BOUND, "webhooks are accepted again", running.accepts(200)).await;
    within(BOUND, "deliveries continue", running.delivers(200)).await;
    // A server that is shut down cleanly forgets no claim.
    assert_eq!(running.duplicates(), 0);

    for _ in 0..2 {
        platform.services.control("kill", "postgres").await;
        platform.services.control("start", "postgres").await;
        within(BOUND, "webhooks are accepted again", running.accepts(200)).await;
        within(BOUND, "deliveries continue", running.delivers(200)).await;
    }
    let report = running.end().await;
    assert!(report.answers.keys().all(|status| [200, 202, 503].contains(status)), "{report}");
    assert!(api.is_running() && worker.is_running(), "both recover by themselves");
}

/// Posts many batches of the group commit. None of them waits for the previous ones to fail.
async fn everything_is_answered_soon(platform: &Platform) {
    let bodies: Vec<String> = (0..1_500).map(|number| acme_event(&format!("e-{number}"))).collect();
    let posts = join_all(bodies.iter().map(|body| platform.post_acme(body)));
    let answers = within(BOUND, "1,500 answers", posts).await;
    assert!(answers.iter().all(|answer| answer.status == 503 && answer.headers.contains_key("retry-after")));
}
