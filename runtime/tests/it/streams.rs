//! What a running process says of those who watch its events.

use futures::StreamExt;
use grapnel_testing::{MANAGEMENT_KEY, acme_event, free_port, wait_until};

use super::harness::{Platform, acme_integration, destination};

#[tokio::test]
async fn watchers_and_what_they_are_told_are_counted() {
    let mut platform = Platform::new().await;
    let ops_port = free_port();
    platform.set("GRAPNEL_OPS_ADDR", &format!("127.0.0.1:{ops_port}"));
    let _api = platform.start_api(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    let metric = async |line: &str| {
        let url = format!("http://127.0.0.1:{ops_port}/metrics");
        let metrics = platform.http.get(url).send().await.expect("metrics").text().await.expect("a text");
        metrics.lines().any(|metric| metric == line)
    };
    let url = platform.url("/api/v1/stream/events");
    let stream = platform.http.get(url).header("x-internal-api-key", MANAGEMENT_KEY).send().await;
    let mut stream = stream.expect("a stream").bytes_stream();
    assert!(stream.next().await.is_some(), "it has begun");
    wait_until("a watcher to be counted", async || metric("grapnel_stream_watchers 1").await).await;
    platform.post_acme(&acme_event("e-1")).await.event_id();
    wait_until("an event to be told", async || {
        stream.next().await.expect("more").expect("bytes");
        metric(r#"grapnel_stream_events_total{outcome="told"} 1"#).await
    })
    .await;
    drop(stream);
    wait_until("nobody to watch", async || metric("grapnel_stream_watchers 0").await).await;
}
