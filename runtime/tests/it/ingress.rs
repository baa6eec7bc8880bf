//! What the webhook route accepts, and what it answers otherwise.

use super::harness::receiver::Receiver;
use super::harness::{Platform, acme_event, acme_integration, destination};

#[tokio::test]
async fn duplicate_event_is_accepted_once() {
    let (platform, receiver) = (Platform::new().await, Receiver::new().await);
    let integration = acme_integration(&[destination("orders", &receiver.url("/"))]);
    let _running = platform.start_api_and_worker(&integration).await;

    let first = platform.post_acme(&acme_event("e-1")).await;
    assert_eq!(first.status, 202, "{first:?}");
    let second = platform.post_acme(&acme_event("e-1")).await;
    assert_eq!(second.status, 200, "{second:?}");
    assert_eq!(second.event_id(), first.event_id());
    assert_eq!(second.json()["data"]["duplicate"], true);

    let deliveries = receiver.wait_for(1).await;
    assert_eq!(deliveries[0].header("webhook-id"), first.event_id());
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 1);
}

#[tokio::test]
async fn hundred_concurrent_posts_of_one_event_make_one_event() {
    let (platform, receiver) = (Platform::new().await, Receiver::new().await);
    let integration = acme_integration(&[destination("orders", &receiver.url("/"))]);
    let _running = platform.start_api_and_worker(&integration).await;

    let body = acme_event("e-1");
    let answers = futures::future::join_all((0..100).map(|_| platform.post_acme(&body))).await;
    let accepted: Vec<_> = answers.iter().filter(|answer| answer.status == 202).collect();
    assert_eq!(accepted.len(), 1);
    let id = accepted[0].event_id();
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 202) && answer.event_id() == id));
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'succeeded'", 1).await;
    assert_eq!(receiver.deliveries().len(), 1);
}
