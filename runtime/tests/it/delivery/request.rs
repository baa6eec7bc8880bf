//! The requests to receivers.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use grapnel_testing::{Delivery, Reply, TestReceiver, acme_event, wait_until};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;

use super::super::harness::{
    GLOBEX_TOKEN, Platform, SIGNING_SECRET, acme_integration, destination, integration, sign,
};
use super::signed_destination;

/// Returns the signature of Standard Webhooks 1.0, computed independently.
fn standard_signature(secret: &str, delivery: &Delivery) -> String {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("a prefix")).expect("base64");
    let (id, timestamp) = (delivery.header("webhook-id"), delivery.header("webhook-timestamp"));
    let mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
    let signed = format!("{id}.{timestamp}.{}", delivery.body);
    format!("v1,{}", STANDARD.encode(mac.chain_update(signed).finalize().into_bytes()))
}

fn trace_parts(traceparent: &str) -> [&str; 4] {
    let parts: Vec<&str> = traceparent.split('-').collect();
    parts.try_into().unwrap_or_else(|parts| panic!("{parts:?}"))
}

#[tokio::test]
async fn request_carries_exactly_the_headers_of_the_contract() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let destinations = [
        signed_destination("signed", &receiver.url("/signed")),
        destination("plain", &receiver.url("/plain")),
    ];
    let _running = platform.start_api_and_worker(&acme_integration(&destinations)).await;

    let body = acme_event("e-1");
    let signature = sign(body.as_bytes());
    let headers = [
        ("x-acme-signature", signature.as_str()),
        ("x-correlation-id", "order-4711"),
        // The headers of the provider are not for the receiver.
        ("authorization", "Bearer of-the-provider"),
        ("x-of-the-provider", "1"),
        ("user-agent", "acme/1.0"),
    ];
    let before = jiff::Timestamp::now().as_second();
    let accepted = platform.post("/api/v1/webhooks/acme", &headers, &body).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    receiver.wait_for(2).await;

    let common = [
        "accept",
        "cdn-loop",
        "content-length",
        "content-type",
        "host",
        "traceparent",
        "user-agent",
        "webhook-id",
        "webhook-timestamp",
        "x-correlation-id",
        "x-delivery-attempt",
        "x-event-id",
        "x-event-type",
        "x-external-event-id",
        "x-integration-provider",
    ];
    for path in ["/signed", "/plain"] {
        let delivery = receiver.deliveries_to(path).remove(0);
        let mut names: Vec<&str> = delivery.headers.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        let mut expected = common.to_vec();
        if path == "/signed" {
            expected.insert(8, "webhook-signature");
        }
        assert_eq!(names, expected, "{path}");
        assert_eq!(delivery.header("webhook-id"), accepted.event_id());
        assert_eq!(delivery.header("x-event-id"), accepted.event_id());
        assert_eq!(delivery.header("x-correlation-id"), "order-4711");
        assert_eq!(delivery.header("x-integration-provider"), "acme");
        assert_eq!(delivery.header("cdn-loop"), "grapnel; hops=1");
        assert_eq!(delivery.header("content-type"), "application/json");
        assert_eq!(delivery.header("content-length"), delivery.body.len().to_string());
        assert_eq!(delivery.header("user-agent"), format!("grapnel/{}", env!("CARGO_PKG_VERSION")));
        let timestamp: i64 = delivery.header("webhook-timestamp").parse().expect("seconds");
        assert!((before..=jiff::Timestamp::now().as_second()).contains(&timestamp), "{timestamp}");
        let [version, trace_id, parent_id, flags] = trace_parts(delivery.header("traceparent"));
        assert_eq!((version, trace_id.len(), parent_id.len(), flags.len()), ("00", 32, 16, 2));
    }
    let signed = receiver.deliveries_to("/signed").remove(0);
    assert_eq!(signed.header("webhook-signature"), standard_signature(SIGNING_SECRET, &signed));
}

#[tokio::test]
async fn retry_has_the_same_id_and_trace_and_a_new_signature() {
    let receiver = TestReceiver::answering(|count, _| Reply::Status(if count < 3 { 500 } else { 200 })).await;
    let platform = Platform::new().await;
    let integration = acme_integration(&[signed_destination("orders", &receiver.url("/"))]);
    let _running = platform.start_api_and_worker(&integration).await;
    let accepted = platform.post_acme(&acme_event("e-1")).await;

    let deliveries = receiver.wait_for(3).await;
    let timestamps: Vec<i64> = deliveries
        .iter()
        .map(|delivery| delivery.header("webhook-timestamp").parse().expect("seconds"))
        .collect();
    // With delays of up to a second, the second retry is in another second than the first attempt, or later.
    assert!(timestamps.is_sorted(), "{timestamps:?}");
    let [_, trace_id, ..] = trace_parts(deliveries[0].header("traceparent"));
    for delivery in &deliveries {
        assert_eq!(delivery.header("webhook-id"), accepted.event_id());
        assert_eq!(delivery.header("webhook-signature"), standard_signature(SIGNING_SECRET, delivery));
        assert_eq!(delivery.body, deliveries[0].body);
        assert_eq!(trace_parts(delivery.header("traceparent"))[1], trace_id);
    }
    let parents: std::collections::HashSet<&str> =
        deliveries.iter().map(|delivery| trace_parts(delivery.header("traceparent"))[2]).collect();
    assert_eq!(parents.len(), 3, "each attempt is a span of its own");
}

#[tokio::test]
async fn both_signatures_are_sent_while_a_signing_secret_is_replaced() {
    const OLD_SECRET: &str = "whsec_b2xkLXNpZ25pbmctc2VjcmV0LTAxMjM0NTY3ODlhYmM=";
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let signing = "signingSecretRef: {name: acme-secrets, key: outgoing}";
    let both = signing.to_owned() + ", previousSigningSecretRef: {name: old, key: secret}";
    let destination = signed_destination("orders", &receiver.url("/")).replace(signing, &both);
    let integration = acme_integration(&[destination])
        + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: old, namespace: test}\n"
        + &format!("stringData: {{secret: '{OLD_SECRET}'}}\n");
    let _running = platform.start_api_and_worker(&integration).await;
    platform.post_acme(&acme_event("e-1")).await;

    let delivery = receiver.wait_for(1).await.remove(0);
    let expected = [SIGNING_SECRET, OLD_SECRET].map(|secret| standard_signature(secret, &delivery)).join(" ");
    assert_eq!(delivery.header("webhook-signature"), expected);
}

#[tokio::test]
async fn trace_of_the_providers_request_is_continued_or_else_one_is_derived() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let integration = acme_integration(&[destination("orders", &receiver.url("/"))]);
    let _running = platform.start_api_and_worker(&integration).await;
    let post = async |id: &str, traceparent: &str| {
        let body = acme_event(id);
        let signature = sign(body.as_bytes());
        let headers = [("x-acme-signature", signature.as_str()), ("traceparent", traceparent)];
        let accepted = platform.post("/api/v1/webhooks/acme", &headers, &body).await;
        assert_eq!(accepted.status, 202, "{accepted:?}");
        accepted.event_id().replace('-', "")
    };

    post("e-1", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").await;
    let continued = receiver.wait_for(1).await.remove(0);
    let [version, trace_id, parent_id, flags] = trace_parts(continued.header("traceparent"));
    assert_eq!((version, trace_id, flags), ("00", "4bf92f3577b34da6a3ce929d0e0e4736", "01"));
    assert_ne!(parent_id, "00f067aa0ba902b7");

    for (number, unusable) in
        ["", "nonsense", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"].into_iter().enumerate()
    {
        let event_id = post(&format!("derived-{number}"), unusable).await;
        let derived = receiver.wait_for(number + 2).await.remove(number + 1);
        let [version, trace_id, _, flags] = trace_parts(derived.header("traceparent"));
        assert_eq!((version, trace_id, flags), ("00", event_id.as_str(), "00"), "{unusable:?}");
    }
}

#[tokio::test]
async fn payload_is_normalized_for_each_provider() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let both = acme_integration(&[destination("orders", &receiver.url("/acme"))])
        + "---\n"
        + &integration("globex", "", &[destination("assets", &receiver.url("/globex"))]);
    let _running = platform.start_api_and_worker(&both).await;

    platform.post_acme(&acme_event("e-1")).await;
    let body = r#"{"id":"g-1","type":"asset.moved","timestamp":"2026-11-24T10:00:00Z","resource":{"id":"a-7"},"more":1}"#;
    platform.post("/api/v1/webhooks/globex", &[("x-globex-token", GLOBEX_TOKEN)], body).await;
    receiver.wait_for(2).await;

    assert_eq!(
        receiver.deliveries_to("/acme")[0].body,
        r#"{"provider":"acme","eventType":"order.created","externalEventId":"e-1","data":{"id":"order-e-1","total":12}}"#
    );
    assert_eq!(
        receiver.deliveries_to("/globex")[0].body,
        r#"{"provider":"globex","eventType":"asset.moved","externalEventId":"g-1","resource":{"id":"a-7"}}"#
    );
    assert_eq!(receiver.deliveries_to("/globex")[0].header("x-integration-provider"), "globex");
}

const LARGEST: usize = 10 * 1024 * 1024;
const TAKE_THE_LARGEST: &str = "  ingress: {maxBodyBytes: 10485760}\n";

fn largest_event(id: &str) -> String {
    let empty = acme_event(id).replace("12", "\"\"");
    let body = empty.replace("\"\"", &format!("\"{}\"", "x".repeat(LARGEST - empty.len())));
    assert_eq!(body.len(), LARGEST);
    body
}

#[tokio::test]
async fn largest_payload_arrives_whole() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let integration = integration("acme", TAKE_THE_LARGEST, &[destination("orders", &receiver.url("/"))]);
    let _running = platform.start_api_and_worker(&integration).await;
    let body = largest_event("e-1");
    assert_eq!(platform.post_acme(&body).await.status, 202);
    let delivery = receiver.wait_for(1).await.remove(0);
    let data = body.split_once("\"data\":").expect("data").1;
    let data = &data[..=data.find('}').expect("its end")];
    assert!(delivery.body.ends_with(&format!("\"data\":{data}}}")), "{} bytes", delivery.body.len());
}

/// Together they are 100 MiB, and 300 MiB with their rows and requests.
#[tokio::test]
async fn many_large_payloads_are_delivered_in_bounded_memory() {
    const EVENTS: usize = 10;
    const MAX_ALLOCATED_KIB: u64 = 200 * 1024;
    let released = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&released);
    let receiver = TestReceiver::answering(move |_, _| Reply::WhenReleased(200, Arc::clone(&wait))).await;
    let platform = Platform::new().await;
    let integration = integration("acme", TAKE_THE_LARGEST, &[destination("orders", &receiver.url("/"))]);
    let _api = platform.start_api(&integration).await;
    for number in 0..EVENTS {
        assert_eq!(platform.post_acme(&largest_event(&format!("e-{number}"))).await.status, 202);
    }
    let worker = platform.start(&["worker"]);
    wait_until("the first request", || async { !receiver.deliveries().is_empty() }).await;
    released.add_permits(EVENTS);
    wait_until("all of them", || async {
        let allocated_kib = worker.allocated_kib();
        assert!(allocated_kib < MAX_ALLOCATED_KIB, "{allocated_kib} KiB");
        receiver.deliveries().len() == EVENTS
    })
    .await;
}
