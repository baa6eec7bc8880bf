//! The api is killed, or stopped.

use grapnel_testing::{FaultProxy, TestReceiver, acme_event, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{BOUND, within};
use crate::harness::load::{Load, duplicates};
use crate::harness::{Platform, acme_integration, destination, sign};

const SUCCEEDED: &str = "SELECT count(*) FROM deliveries WHERE status = 'succeeded'";

#[tokio::test]
async fn killed_api_loses_nothing_that_it_accepted() {
    let platform = Platform::new().await;
    let load = Load::new(&platform);
    let (mut api, _worker) = platform.start_api_and_worker(&load.integration()).await;
    let running = load.begin();
    for _ in 0..3 {
        running.accepts(200).await;
        api.kill();
        api = platform.start(&["api"]);
        within(BOUND, "an api that was killed accepts again", running.accepts(1)).await;
    }
    running.accepts(200).await;
    let report = running.end().await;
    // The worker was not killed, so nothing is delivered twice.
    assert_eq!(duplicates(&report), 0, "{report}");
}

#[tokio::test]
async fn events_committed_and_never_published_are_delivered_within_the_bound() {
    let (mut platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let integration = acme_integration(&[destination("orders", &receiver.url("/"))]);
    let proxy = FaultProxy::new(&platform.services.rabbitmq_url).await;
    platform.set("RABBITMQ_URL", &proxy.url(&platform.services.rabbitmq_url));
    let mut api = platform.start_api(&integration).await;
    platform.set("RABBITMQ_URL", &platform.services.rabbitmq_url.clone());
    let _worker = platform.start(&["worker"]);
    assert_eq!(platform.post_acme(&acme_event("before")).await.status, 202);
    platform.wait_for_count(SUCCEEDED, 1).await;

    // From here on, messages of the api get lost, and it does not notice.
    proxy.freeze();
    for number in 0..5 {
        assert_eq!(platform.post_acme(&acme_event(&format!("e-{number}"))).await.status, 202);
    }
    api.kill();
    let unpublished = "SELECT count(*) FROM deliveries WHERE queued_at IS NOT NULL AND finished_at IS NULL";
    assert_eq!(platform.count(unpublished).await, 5);

    let _api = platform.start(&["api"]);
    within(BOUND, "the unpublished events are delivered", platform.wait_for_count(SUCCEEDED, 6)).await;
    assert_eq!(receiver.deliveries().len(), 6);
}

#[tokio::test]
async fn stopped_api_answers_requests_in_flight_and_loses_nothing() {
    let platform = Platform::new().await;
    let load = Load::new(&platform);
    let (mut api, _worker) = platform.start_api_and_worker(&load.integration()).await;
    let running = load.begin();
    running.accepts(100).await;

    // A request that is certainly in flight: half of its body has been sent.
    let body = acme_event("in-flight");
    let head = format!(
        "POST /api/v1/webhooks/acme HTTP/1.1\r\nhost: localhost\r\nx-acme-signature: {}\r\ncontent-length: {}\r\n\r\n",
        sign(body.as_bytes()),
        body.len()
    );
    let (first, rest) = body.split_at(body.len() / 2);
    let mut connection = TcpStream::connect(("127.0.0.1", platform.http_port)).await.expect("a connection");
    connection.write_all(format!("{head}{first}").as_bytes()).await.expect("half a request");
    running.accepts(50).await;
    api.signal("TERM");
    wait_until("the api to stop listening", || async {
        TcpStream::connect(("127.0.0.1", platform.http_port)).await.is_err()
    })
    .await;
    connection.write_all(rest.as_bytes()).await.expect("the rest of the request");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let status = within(BOUND, "a stopped api ends", api.wait()).await;
    assert_eq!(status.code(), Some(0));

    let _api = platform.start(&["api"]);
    running.accepts(200).await;
    let report = running.end().await;
    assert_eq!(duplicates(&report), 0, "{report}");
    let delivered = "SELECT count(*) FROM deliveries d JOIN events e ON e.id = d.event_id
        WHERE e.external_event_id = 'in-flight' AND d.status = 'succeeded'";
    platform.wait_for_count(delivered, 1).await;
}
