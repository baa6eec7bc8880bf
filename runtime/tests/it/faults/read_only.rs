//! Sessions with PostgreSQL that only read, as a failover can leave them behind.

use grapnel_testing::{free_port, wait_until};

use super::{BOUND, within};
use crate::harness::Platform;
use crate::harness::load::Load;

/// Returns the answer of the operations port, or nothing.
async fn readiness(platform: &Platform, ops_port: u16) -> (u16, String) {
    match platform.http.get(format!("http://127.0.0.1:{ops_port}/readyz")).send().await {
        Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
        Err(_) => (0, String::new()),
    }
}

#[tokio::test]
async fn sessions_that_only_read_are_replaced_as_soon_as_new_ones_can_write() {
    let mut platform = Platform::new().await;
    let load = Load::new(&platform);
    platform.apply(&load.integration()).await;
    let (api_port, worker_port) = (free_port(), free_port());
    platform.set("GRAPNEL_OPS_ADDR", &format!("127.0.0.1:{api_port}"));
    let _api = platform.start(&["api"]);
    platform.set("GRAPNEL_OPS_ADDR", &format!("127.0.0.1:{worker_port}"));
    let _worker = platform.start(&["worker"]);
    platform.wait_until_accepting().await;
    let running = load.begin();
    running.delivers(200).await;

    // From now on every session that begins only reads, and all begin again.
    let name = platform.database.name();
    let read_only = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    platform.database.execute(&read_only).await;
    let end_all = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = '{name}' AND application_name LIKE 'grapnel-%' AND application_name <> 'grapnel-test'"
    );
    platform.database.execute(&end_all).await;
    for port in [api_port, worker_port] {
        wait_until("a process that is not ready", async || {
            readiness(&platform, port).await == (503, "PostgreSQL accepts no writes\n".to_owned())
        })
        .await;
    }
    wait_until("health to say so", async || {
        let health = platform.get("/api/v1/health").await;
        let postgres = &health.json()["data"]["checks"]["postgres"];
        health.status == 503 && postgres["detail"] == "accepts no writes"
    })
    .await;
    // What is stored can be read.
    assert_eq!(platform.get("/api/v1/events").await.status, 200);

    // New sessions can write. Those that there are still cannot.
    let reset =
        format!("BEGIN READ WRITE; ALTER DATABASE {name} RESET default_transaction_read_only; COMMIT");
    platform.database.execute(&reset).await;
    within(BOUND, "webhooks are accepted again", running.accepts(200)).await;
    within(BOUND, "deliveries continue", running.delivers(200)).await;
    for port in [api_port, worker_port] {
        wait_until("a process that is ready", async || readiness(&platform, port).await.0 == 200).await;
    }
    assert_eq!(platform.get("/api/v1/health").await.status, 200);
    let report = running.end().await;
    assert!(report.answers.keys().all(|status| [200, 202, 503].contains(status)), "{report}");
}
