//! Rows that a process cannot use: here because it does not have the key that sealed their secrets.

use grapnel_testing::{SEALING_KEYS, acme_event, free_port, wait_until};

use super::harness::{Platform, acme_integration, destination, integration};

const OTHER_KEYS: &str = "second:YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU=";

fn nowhere() -> String {
    destination("orders", "http://127.0.0.1:9/")
}

async fn readiness(platform: &Platform, port: u16) -> (u16, String) {
    match platform.http.get(format!("http://127.0.0.1:{port}/readyz")).send().await {
        Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
        Err(_) => (0, String::new()),
    }
}

async fn wait_for_readiness(platform: &Platform, port: u16, status: u16, words: &str) {
    wait_until(&format!("readiness to be {status} {words:?}"), async || {
        let (found, text) = readiness(platform, port).await;
        found == status && text.contains(words)
    })
    .await;
}

#[tokio::test]
async fn a_route_that_cannot_be_used_is_503_and_a_process_that_can_use_none_is_not_ready() {
    let mut platform = Platform::new().await;
    platform.apply(&acme_integration(&[nowhere()])).await;
    platform.set("GRAPNEL_SEALING_KEYS", OTHER_KEYS);
    let port = free_port();
    platform.set("GRAPNEL_OPS_ADDR", &format!("127.0.0.1:{port}"));
    let _api = platform.start(&["api"]);
    wait_for_readiness(&platform, port, 503, "none of the 1 integrations can be used").await;

    let refused = platform.post_acme(&acme_event("e-1")).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "DEPENDENCY_UNAVAILABLE"));
    assert!(refused.header("retry-after").parse::<u64>().is_ok(), "{refused:?}");
    assert_eq!(platform.post("/api/v1/webhooks/unknown", &[], "{}").await.status, 404);
    let health = platform.get("/api/v1/health").await;
    assert_eq!((health.status, &health.json()["data"]["unusableIntegrations"]), (503, &1.into()));

    // With one that can be used the process serves that one, and the other is still not unknown.
    platform.apply(&integration("globex", "", &[nowhere()])).await;
    platform.wait_until_known("globex").await;
    wait_for_readiness(&platform, port, 200, "").await;
    assert_eq!(platform.post_acme(&acme_event("e-1")).await.status, 503);
    // The answer is reused for a second.
    wait_until("the one to be reported, and the others to count as healthy", async || {
        let health = platform.get("/api/v1/health").await;
        health.status == 200 && health.json()["data"]["unusableIntegrations"] == 1
    })
    .await;

    // A disabled one refuses webhooks, whether it can be used or not.
    platform.set("GRAPNEL_SEALING_KEYS", SEALING_KEYS);
    platform.apply(&integration("acme", "  state: Disabled\n", &[nowhere()])).await;
    platform.wait_for_status("/api/v1/webhooks/acme", 404).await;
}

#[tokio::test]
async fn a_worker_that_cannot_use_its_integration_is_not_ready() {
    let mut platform = Platform::new().await;
    let yaml = acme_integration(&[nowhere()]);
    platform.apply(&yaml).await;
    let id = platform.database.rows("SELECT id FROM integrations").await[0]["id"].clone();
    platform.set("GRAPNEL_SEALING_KEYS", OTHER_KEYS);
    platform.set("GRAPNEL_INTEGRATION", id.as_str().expect("an id"));
    let port = free_port();
    platform.set("GRAPNEL_OPS_ADDR", &format!("127.0.0.1:{port}"));
    let _worker = platform.start(&["worker"]);
    wait_for_readiness(&platform, port, 503, "the integration cannot be used").await;
    // Written again with a key that it has, the row can be used.
    platform.apply(&yaml).await;
    wait_for_readiness(&platform, port, 200, "").await;
}
