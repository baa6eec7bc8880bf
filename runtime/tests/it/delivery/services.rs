//! Destinations that are Services. What the controller writes into the row is written by the test.

use grapnel_testing::{TestReceiver, acme_event, wait_until};

use super::super::harness::{Platform, acme_integration, destination};
use super::{attempts, delivery, post_to_held, wait_until_finished};

fn address(receiver: &TestReceiver) -> String {
    receiver.url("").trim_start_matches("http://").to_owned()
}

fn unused_destination() -> String {
    destination("orders", "https://unused.example.com/")
}

/// Makes the first destination a Service with these addresses.
async fn deliver_to_service(platform: &Platform, addresses: &[String]) {
    let service = r#"{"service": {"name": "orders", "port": 8080, "path": "/hooks"}}"#;
    let update = format!(
        "UPDATE integrations SET spec = jsonb_set(
            spec::jsonb, '{{destinations,0}}', ((spec::jsonb #> '{{destinations,0}}') - 'url') || '{service}')::json,
            endpoints = {}",
        endpoints(addresses)
    );
    assert_eq!(platform.database.execute(&update).await, 1);
}

fn endpoints(addresses: &[String]) -> String {
    format!("json_build_object('orders:8080', '{}'::json)", serde_json::to_string(addresses).expect("JSON"))
}

#[tokio::test]
async fn a_service_is_dialed_at_its_addresses_under_its_name() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let _api = platform.start_api(&acme_integration(&[unused_destination()])).await;
    deliver_to_service(&platform, &[address(&receiver)]).await;
    let _worker = platform.start(&["worker"]);
    platform.post_acme(&acme_event("e-1")).await;
    let delivered = receiver.wait_for(1).await.remove(0);
    assert_eq!(delivered.path, "/hooks");
    assert_eq!(delivered.header("host"), "orders.test.svc:8080");
    wait_until_finished(&platform, 1).await;
    assert_eq!(delivery(&platform, "orders").await, ("succeeded".to_owned(), None));
}

#[tokio::test]
async fn deliveries_wait_for_a_service_without_addresses_and_use_up_no_attempts() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let destinations = [unused_destination(), destination("audit", &receiver.url("/audit"))];
    let _api = platform.start_api(&acme_integration(&destinations)).await;
    deliver_to_service(&platform, &[]).await;
    let _worker = platform.start(&["worker"]);
    platform.post_acme(&acme_event("e-1")).await;
    // The worker delivers to the other destination.
    wait_until_finished(&platform, 1).await;
    assert_eq!(delivery(&platform, "orders").await, ("pending".to_owned(), None));
    let update = format!("UPDATE integrations SET endpoints = {}", endpoints(&[address(&receiver)]));
    assert_eq!(platform.database.execute(&update).await, 1);
    wait_until_finished(&platform, 2).await;
    assert_eq!(attempts(&platform, "orders").await, [(1, Some(200), None)]);
    assert_eq!(receiver.deliveries_to("/hooks").len(), 1);
}

#[tokio::test]
async fn nothing_is_queued_for_a_service_without_addresses() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let destinations = [unused_destination(), destination("audit", &receiver.url("/audit"))];
    let _api = platform.start_api(&acme_integration(&destinations)).await;
    deliver_to_service(&platform, &[]).await;
    // With messages the controller would start workers, which could do nothing with them.
    assert_eq!(post_to_held(&platform, "orders").await, 0);

    let _worker = platform.start(&["worker"]);
    let update = format!("UPDATE integrations SET endpoints = {}", endpoints(&[address(&receiver)]));
    assert_eq!(platform.database.execute(&update).await, 1);
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE finished_at IS NULL", 0).await;
    assert!(receiver.deliveries_to("/hooks").len() >= 20);
}

#[tokio::test]
async fn a_worker_judges_the_addresses_again() {
    let (mut platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    platform.set("GRAPNEL_ENV", "production");
    let _api = platform.start_api(&acme_integration(&[unused_destination()])).await;
    deliver_to_service(&platform, &[address(&receiver)]).await;
    let _worker = platform.start(&["worker"]);
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 1).await;
    let denied = "the destination is a loopback address, which the platform does not allow".to_owned();
    assert_eq!(attempts(&platform, "orders").await[0], (1, None, Some(denied)));
    assert!(receiver.deliveries().is_empty());
}

#[tokio::test]
async fn an_address_that_is_a_datastores_is_not_dialed() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let postgres: url::Url = platform.variable("DATABASE_URL").parse().expect("a URL");
    let postgres = format!("127.0.0.1:{}", postgres.port().expect("a port"));
    let _api = platform.start_api(&acme_integration(&[unused_destination()])).await;
    deliver_to_service(&platform, std::slice::from_ref(&postgres)).await;
    let _worker = platform.start(&["worker"]);
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 1).await;
    let denied = "the destination is a datastore address, which the platform does not allow".to_owned();
    assert_eq!(attempts(&platform, "orders").await[0], (1, None, Some(denied)));

    let update =
        format!("UPDATE integrations SET endpoints = {}", endpoints(&[postgres, address(&receiver)]));
    assert_eq!(platform.database.execute(&update).await, 1);
    let mut posted = 1;
    wait_until("the other address", async || {
        posted += 1;
        platform.post_acme(&acme_event(&format!("e-{posted}"))).await;
        !receiver.deliveries().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_service_in_a_file_is_refused_with_the_reason() {
    let platform = Platform::new().await;
    let service = "{name: orders, service: {name: orders, port: 8080}}".to_owned();
    let path = platform.write_integrations(&acme_integration(&[service]));
    for command in ["apply", "dev"] {
        let output = platform.try_run(&[command, "--file", path.to_str().expect("a path in UTF-8")]).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let reason = "spec.destinations[0].service: a Service needs the controller";
        assert!(!output.status.success() && error.contains(reason), "{command}: {error}");
    }
}
