//! An outage of a receiver and the replay after it, as `grapnel-loadtest replay` drives and proves them.

use std::process::Output;

use grapnel_testing::{ACME_SECRET, Environment, MANAGEMENT_KEY, Reply, TestReceiver, free_port, run_to_end};
use serde_json::{Value, json};

use crate::harness::{Platform, acme_integration, grapnel};

fn destination(name: &str, url: &str) -> String {
    format!("{{name: {name}, url: '{url}', maxConcurrency: 32, retry: {{maxAttempts: 1}}}}")
}

/// Lets the deliveries of thirty events fail and replays them.
async fn outage(platform: &Platform, port: u16, destinations: &[&str]) -> Output {
    let environment = Environment::new([("KEY", MANAGEMENT_KEY), ("SECRET", ACME_SECRET)]);
    let (api, sink) = (platform.url("/api/v1"), format!("127.0.0.1:{port}"));
    let target = format!("{api}/webhooks/acme");
    let mut arguments = vec!["replay", "--api", &api, "--key-env", "KEY", "--integration", "test/acme"];
    arguments.extend(["--target", &target, "--secret-env", "SECRET", "--events", "30", "--sink-addr", &sink]);
    arguments.extend(["--rate", "500", "--linger-seconds", "0", "--json"]);
    arguments.extend(destinations.iter().flat_map(|name| ["--destination", name]));
    run_to_end(&grapnel().with_file_name("grapnel-loadtest"), &arguments, &environment).await
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test]
async fn every_delivery_that_failed_in_an_outage_arrives_by_its_replay() {
    let platform = Platform::new().await;
    let port = free_port();
    let one = destination("one", &format!("http://127.0.0.1:{port}/one"));
    let two = destination("two", &format!("http://127.0.0.1:{port}/hooks/two"));
    let _processes = platform.start_api_and_worker(&acme_integration(&[one, two])).await;

    let output = outage(&platform, port, &["one", "two"]).await;
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    let counters = json!({"matched": 60, "fed": 60, "succeeded": 60, "failed": 0, "skipped": {"total": 0}});
    assert_eq!((&report["state"], &report["counters"]), (&json!("Completed"), &counters));
    assert_eq!(
        (&report["expected"], &report["arrived"], &report["missing"]),
        (&json!(60), &json!(60), &json!(0))
    );
    assert_eq!(
        (&report["refused"], &report["repeats"], &report["altered"]),
        (&json!(60), &json!(0), &json!(0))
    );
    // A failed attempt, and the one of the replay.
    assert_eq!(
        platform.count("SELECT count(*) FROM deliveries WHERE attempts = 2 AND status = 'succeeded'").await,
        60
    );
}

#[tokio::test]
async fn a_delivery_that_did_not_arrive_is_a_fault() {
    let platform = Platform::new().await;
    let port = free_port();
    // Somebody else receives what is sent there, and says that it is well.
    let elsewhere =
        TestReceiver::answering(|count, _| Reply::Status(if count <= 30 { 500 } else { 200 })).await;
    let one = destination("one", &format!("http://127.0.0.1:{port}/one"));
    let two = destination("two", &elsewhere.url("/two"));
    let _processes = platform.start_api_and_worker(&acme_integration(&[one, two])).await;

    let output = outage(&platform, port, &["one", "two"]).await;
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert_eq!(
        (&report["arrived"], &report["missing"], &report["ok"]),
        (&json!(30), &json!(30), &json!(false))
    );
    assert_eq!(report["missingDeliveries"][0], "two/0");
    assert_eq!(report["faults"], json!(["30 missing"]));
}
