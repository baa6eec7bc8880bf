//! The destinations that a worker refuses.

use grapnel_testing::{TestReceiver, acme_event};
use url::Url;

use super::super::harness::{Platform, acme_integration, destination};
use super::{attempts, delivery, wait_until_finished};

fn destinations(receiver: &TestReceiver) -> Vec<String> {
    let by_address = receiver.url("/");
    let port = by_address.rsplit(':').next().expect("a port").trim_end_matches('/').to_owned();
    [
        ("address", by_address),
        ("name", format!("http://localhost:{port}/")),
        ("mapped", format!("http://[::ffff:127.0.0.1]:{port}/")),
        ("unspecified", format!("http://0.0.0.0:{port}/")),
        ("metadata", "http://169.254.169.254/latest/meta-data/".to_owned()),
    ]
    .map(|(name, url)| destination(name, &url))
    .to_vec()
}

#[tokio::test]
async fn production_refuses_loopback_and_metadata_and_records_why() {
    let (mut platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    platform.set("GRAPNEL_ENV", "production");
    let _running = platform.start_api_and_worker(&acme_integration(&destinations(&receiver))).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 5).await;
    for (name, class) in [
        ("address", "loopback"),
        ("name", "loopback"),
        ("mapped", "loopback"),
        ("unspecified", "unspecified"),
        ("metadata", "cloud metadata"),
    ] {
        let denied = format!("the destination is a {class} address, which the platform does not allow");
        let attempts = attempts(&platform, name).await;
        assert_eq!(attempts.len(), 3, "{name}: {attempts:?}");
        assert_eq!(attempts[0], (1, None, Some(denied.clone())), "{name}");
        let last = format!("gave up after 3 attempts; the last one: {denied}");
        assert_eq!(delivery(&platform, name).await, ("failed".to_owned(), Some(last)));
    }
    assert!(receiver.deliveries().is_empty());
}

#[tokio::test]
async fn the_datastores_of_the_platform_are_refused_whatever_is_allowed() {
    let (mut platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let of = |name: &str| platform.variable(name).parse::<Url>().expect("a URL").port().expect("a port");
    let (postgres, rabbitmq, redis) = (of("DATABASE_URL"), of("RABBITMQ_URL"), of("REDIS_URL"));
    platform.set("GRAPNEL_ENV", "production");
    platform.set("GRAPNEL_ALLOWED_DESTINATION_CIDRS", "0.0.0.0/0, ::/0");
    // A worker has no Redis of its own.
    platform.set("GRAPNEL_DENIED_DESTINATIONS", &format!("localhost:{redis}"));
    let mut destinations: Vec<_> = [
        ("postgres", format!("http://127.0.0.1:{postgres}/")),
        ("by-name", format!("http://localhost:{postgres}/")),
        ("unspecified", format!("http://0.0.0.0:{postgres}/")),
        ("rabbitmq", format!("http://127.0.0.2:{rabbitmq}/")),
        ("redis", format!("http://[::ffff:127.0.0.1]:{redis}/")),
    ]
    .map(|(name, url)| destination(name, &url))
    .to_vec();
    destinations.push(destination("receiver", &receiver.url("/")));
    let _running = platform.start_api_and_worker(&acme_integration(&destinations)).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 6).await;
    let denied = "the destination is a datastore address, which the platform does not allow".to_owned();
    for name in ["postgres", "by-name", "unspecified", "rabbitmq", "redis"] {
        assert_eq!(attempts(&platform, name).await[0], (1, None, Some(denied.clone())), "{name}");
    }
    assert_eq!(delivery(&platform, "receiver").await, ("succeeded".to_owned(), None), "on the same machine");
}

#[tokio::test]
async fn allowed_range_is_delivered_to_in_production() {
    let (mut platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    platform.set("GRAPNEL_ENV", "production");
    platform.set("GRAPNEL_ALLOWED_DESTINATION_CIDRS", "127.0.0.0/8, 10.0.0.0/8");
    let integration = acme_integration(&[destination("orders", &receiver.url("/"))]);
    let _running = platform.start_api_and_worker(&integration).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 1).await;
    assert_eq!(delivery(&platform, "orders").await, ("succeeded".to_owned(), None));
}
