//! Delivery loops and limits that an Integration sets for itself: what one tenant cannot take from the platform.

use grapnel_testing::{TestReceiver, acme_event, unique_name};
use serde_json::{Value, json};

use super::harness::{Platform, acme_integration, destination, integration_named, sign};

fn nowhere() -> String {
    destination("orders", "http://127.0.0.1:9/")
}

/// Returns an Integration that accepts everything that Grapnel delivers, with destinations.
fn open_to_all(name: &str, urls: &[String]) -> String {
    let destination = |(index, url): (usize, &String)| json!({"name": format!("d{index}"), "url": url, "timeoutSeconds": 5, "retry": {"maxAttempts": 1}});
    let destinations: Vec<Value> = urls.iter().enumerate().map(destination).collect();
    let object = json!({
        "apiVersion": "grapnel.dev/v1alpha1", "kind": "Integration",
        "metadata": {"name": name, "namespace": "test"},
        "spec": {
            "provider": "custom", "ingress": {"rateLimitPerMinute": 0},
            "verification": {
                "secretRef": {"name": name, "key": "token"},
                "scheme": {"type": "token", "signature": {"from": "header:content-type"}},
            },
            "mapping": {"externalEventId": ["request"], "eventType": ["literal:loop"], "accept": ["anyjson"]},
            "destinations": destinations,
        },
    });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "test"},
        "stringData": {"token": "application/json"},
    });
    format!("---\n{object}\n---\n{secret}\n")
}

#[tokio::test]
async fn a_loop_ends_after_three_hops() {
    let platform = Platform::new().await;
    let own = platform.url("/api/v1/webhooks/loop");
    let yaml = acme_integration(&[nowhere()]) + &open_to_all("loop", &[own.clone(), own]);
    let _running = platform.start_api_and_worker(&yaml).await;
    let headers = [("content-type", "application/json")];
    assert_eq!(platform.post("/api/v1/webhooks/loop", &headers, "{}").await.status, 202);

    // 1 + 2 + 4 + 8 events, each delivered twice; the deliveries of the last eight are refused.
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE finished_at IS NOT NULL", 30).await;
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 15);
    assert_eq!(platform.count("SELECT count(*) FROM deliveries WHERE status = 'failed'").await, 16);
    let told =
        "SELECT count(*) FROM delivery_attempts WHERE http_status = 400 AND response_body LIKE '%cdn-loop%'";
    assert_eq!(platform.count(told).await, 16);
}

#[tokio::test]
async fn a_token_does_not_hide_the_hops() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let yaml = acme_integration(&[nowhere()])
        + &open_to_all("chain", &[receiver.url("/")])
            .replace("header:content-type", "query:code")
            .replace("\"token\":\"application/json\"", "\"token\":\"grapnel\"");
    let _running = platform.start_api_and_worker(&yaml).await;
    let post = async |hops: &str| {
        let headers = [("content-type", "application/json"), ("cdn-loop", hops)];
        platform.post("/api/v1/webhooks/chain?code=grapnel", &headers, "{}").await
    };
    for (hops, sent) in [
        ("cloudflare; loops=9", "grapnel; hops=1"),
        ("grapnel", "grapnel; hops=2"),
        ("cloudflare; loops=1, grapnel; hops=3", "grapnel; hops=4"),
    ] {
        let before = receiver.deliveries().len();
        assert_eq!(post(hops).await.status, 202);
        assert_eq!(receiver.wait_for(before + 1).await[before].header("cdn-loop"), sent);
    }
    let refused = post("grapnel; hops=4").await;
    assert_eq!((refused.status, refused.field().as_str()), (400, "cdn-loop"));
}

#[tokio::test]
async fn no_limit_of_an_integration_means_the_ceiling_of_the_platform() {
    let mut platform = Platform::new().await;
    platform.set("GRAPNEL_MAX_RATE_LIMIT_PER_MINUTE", "3");
    let (unlimited, high) = (unique_name("unlimited"), unique_name("high"));
    let with = |name: &str, limit: u32| {
        integration_named(
            name,
            "acme",
            &format!("  ingress: {{rateLimitPerMinute: {limit}}}\n"),
            &[nowhere()],
        )
    };
    platform.apply(&(with(&unlimited, 0) + "---\n" + &with(&high, 1_000_000))).await;
    let _api = platform.start(&["api"]);
    platform.wait_until_known(&unlimited).await;
    for name in [unlimited, high] {
        // A minute of the clock may end in between.
        let mut accepted = 0;
        loop {
            let body = acme_event(&format!("{name}-{accepted}"));
            let signature = sign(body.as_bytes());
            let headers = [("x-acme-signature", signature.as_str())];
            match platform.post(&format!("/api/v1/webhooks/{name}"), &headers, &body).await.status {
                429 => break,
                status => assert_eq!(status, 202),
            }
            accepted += 1;
            assert!(accepted <= 6, "{name}: more than the ceiling was accepted");
        }
    }
}
