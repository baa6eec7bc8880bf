//! Processes that are started before the services that they need.

use grapnel_testing::{FaultProxy, TestReceiver, acme_event, free_port, on_port, wait_until};

use super::{BOUND, within};
use crate::harness::{Platform, acme_integration, destination};

/// Returns the status of the operations port; 0 if there is no response.
async fn status(platform: &Platform, ops_port: u16, path: &str) -> u16 {
    let answer = platform.http.get(format!("http://127.0.0.1:{ops_port}{path}")).send().await;
    answer.map_or(0, |answer| answer.status().as_u16())
}

async fn wait_for_readiness(platform: &Platform, ops_port: u16, expected: u16) {
    wait_until(&format!("readiness to be {expected}"), || async {
        status(platform, ops_port, "/readyz").await == expected
    })
    .await;
}

#[tokio::test]
async fn api_that_is_started_before_the_migrations_waits_for_them() {
    let mut platform = Platform::unmigrated().await;
    let ops_port = free_port();
    platform.set("GRAPNEL_OPS_ADDR", &format!("127.0.0.1:{ops_port}"));
    let mut api = platform.start(&["api"]);
    wait_for_readiness(&platform, ops_port, 503).await;
    assert_eq!(status(&platform, ops_port, "/livez").await, 200);
    platform.run(&["migrate"]).await;
    within(BOUND, "the api is ready", wait_for_readiness(&platform, ops_port, 200)).await;
    platform.apply(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    platform.wait_until_accepting().await;
    assert_eq!(platform.post_acme(&acme_event("e-1")).await.status, 202);
    assert!(api.is_running());
}

#[tokio::test]
async fn process_that_waits_for_its_schema_can_be_stopped() {
    let platform = Platform::unmigrated().await;
    for role in ["api", "worker"] {
        let process = platform.start(&[role]);
        wait_until("the process to wait", || async { process.log().contains("waiting for the database") })
            .await;
        assert_eq!(process.stop().await.code(), Some(0), "{role}");
    }
}

#[tokio::test]
async fn processes_wait_for_datastores_that_are_away_at_the_start() {
    let (mut platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    platform.apply(&acme_integration(&[destination("orders", &receiver.url("/"))])).await;
    let ports = [free_port(), free_port(), free_port()];
    let names = ["DATABASE_URL", "REDIS_URL", "RABBITMQ_URL"];
    let direct = names.map(|name| platform.variable(name));
    for ((name, url), port) in names.iter().zip(&direct).zip(ports) {
        platform.set(name, &on_port(url, port));
    }
    let ops_port = free_port();
    platform.set("GRAPNEL_OPS_ADDR", &format!("127.0.0.1:{ops_port}"));
    platform.set("GRAPNEL_RATE_LIMIT_PER_MINUTE", "1000");
    let mut api = platform.start(&["api"]);
    platform.set("GRAPNEL_OPS_ADDR", "127.0.0.1:0");
    let mut worker = platform.start(&["worker"]);
    wait_for_readiness(&platform, ops_port, 503).await;
    assert_eq!(status(&platform, ops_port, "/livez").await, 200);

    let _postgres = FaultProxy::at(ports[0], &direct[0]).await;
    within(BOUND, "the api is ready", wait_for_readiness(&platform, ops_port, 200)).await;
    // Neither Redis nor RabbitMQ is needed for that.
    assert_eq!(platform.post_acme(&acme_event("e-1")).await.status, 202);
    assert_eq!(platform.get("/api/v1/health").await.status, 503);
    let _redis = FaultProxy::at(ports[1], &direct[1]).await;
    let _rabbitmq = FaultProxy::at(ports[2], &direct[2]).await;
    within(BOUND, "the event is delivered", receiver.wait_for(1)).await;
    wait_until("health to be ok", || async { platform.get("/api/v1/health").await.status == 200 }).await;
    assert!(api.is_running() && worker.is_running());
}
