//! Which events a destination gets, by the type of the event and by an expression.

use grapnel_testing::{TestReceiver, acme_event, free_port};
use serde_json::{Value, json};

use super::harness::{Answer, Platform, acme_integration, integration_named, sign};

/// Returns a destination with filters (fields of a YAML flow mapping).
fn filtering(name: &str, url: &str, fields: &str) -> String {
    format!("{{name: {name}, url: '{url}', {fields}}}")
}

fn body(id: &str, event_type: &str, data: Value) -> String {
    json!({"eventId": id, "eventType": event_type, "occurredAt": "2026-11-24T10:00:00Z", "data": data})
        .to_string()
}

/// Returns the status of each delivery of an event, by destination.
fn statuses(record: &Answer) -> Vec<(String, String)> {
    let deliveries = record.json()["data"]["deliveries"].as_array().cloned().unwrap_or_default();
    let text = |delivery: &Value, field: &str| delivery[field].as_str().unwrap_or_default().to_owned();
    deliveries.iter().map(|delivery| (text(delivery, "destination"), text(delivery, "status"))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, status)| ((*name).to_owned(), (*status).to_owned())).collect()
}

#[tokio::test]
async fn a_destination_gets_the_events_that_its_filter_admits() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let integration = acme_integration(&[
        filtering("all", &receiver.url("/all"), ""),
        filtering("large", &receiver.url("/large"), "filter: 'payload.total > 1000'"),
        filtering("orders", &receiver.url("/orders"), "eventTypes: ['order.*', '!order.test.*']"),
    ]);
    let _running = platform.start_api_and_worker(&integration).await;

    let large = platform.post_acme(&body("e-1", "order.created", json!({"id": "o-1", "total": 1500}))).await;
    let small =
        platform.post_acme(&body("e-2", "order.test.created", json!({"id": "o-2", "total": 12}))).await;
    assert_eq!((large.status, small.status), (202, 202));
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE finished_at IS NOT NULL", 6).await;
    assert_eq!(receiver.deliveries_to("/all").len(), 2);
    for path in ["/large", "/orders"] {
        let got = receiver.deliveries_to(path);
        assert_eq!(got.len(), 1, "{path}");
        assert_eq!(got[0].header("webhook-id"), large.event_id(), "{path}");
    }

    let record = platform.get(&format!("/api/v1/events/{}", small.event_id())).await;
    let expected = pairs(&[("all", "succeeded"), ("large", "filtered"), ("orders", "filtered")]);
    assert_eq!(statuses(&record), expected);
    assert_eq!(record.json()["data"]["event"]["status"], "processed");
    assert_eq!(record.json()["data"]["deliveryAttempts"].as_array().map(Vec::len), Some(1));
    let filtered = platform.get("/api/v1/events?status=filtered").await.json();
    assert_eq!(filtered["data"].as_array().map(Vec::len), Some(1), "{filtered}");
    assert_eq!(filtered["data"][0]["id"], small.event_id());
}

#[tokio::test]
async fn a_replay_sends_a_filtered_delivery_only_if_it_names_it() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let integration = acme_integration(&[
        filtering("all", &receiver.url("/all"), ""),
        filtering("none", &receiver.url("/none"), "filter: 'false'"),
    ]);
    let _running = platform.start_api_and_worker(&integration).await;
    let id = platform.post_acme(&acme_event("e-1")).await.event_id();
    // A replay of what is in flight would be that attempt.
    let sent = "SELECT count(*) FROM deliveries WHERE attempts > 0 AND status = 'succeeded'";
    platform.wait_for_count(sent, 1).await;

    let replay = async |body: Value| {
        let path = platform.url(&format!("/api/v1/events/{id}/replay"));
        let request = platform.http.post(path).header("x-internal-api-key", grapnel_testing::MANAGEMENT_KEY);
        Answer::of(request.json(&body).send().await.expect("an answer")).await
    };
    let all = replay(json!({"reason": "once more"})).await;
    assert_eq!(all.status, 202, "{all:?}");
    let expected = json!([
        {"name": "all", "willSend": true, "because": null},
        {"name": "none", "willSend": false, "because": "filtered"},
    ]);
    assert_eq!(all.json()["data"]["destinations"], expected);
    receiver.wait_for(2).await;
    assert!(receiver.deliveries_to("/none").is_empty());

    let named = replay(json!({"reason": "this one too", "destination": "none"})).await;
    let expected = json!([{"name": "none", "willSend": true, "because": null}]);
    assert_eq!(named.json()["data"]["destinations"], expected);
    receiver.wait_for(3).await;
    assert_eq!(receiver.deliveries_to("/none").len(), 1);
    platform.wait_for_count(sent, 2).await;
    let record = platform.get(&format!("/api/v1/events/{id}")).await;
    assert_eq!(statuses(&record), pairs(&[("all", "succeeded"), ("none", "succeeded")]));
}

#[tokio::test]
async fn an_error_of_a_filter_delivers_or_drops_and_is_reported() {
    let (mut platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let ops_port = free_port();
    platform.set("GRAPNEL_OPS_ADDR", &format!("127.0.0.1:{ops_port}"));
    let integration = acme_integration(&[
        filtering("lenient", &receiver.url("/lenient"), "filter: 'payload.customer.vip'"),
        filtering("strict", &receiver.url("/strict"), "filter: 'payload.customer.vip', filterOnError: Drop"),
        filtering("types", &receiver.url("/types"), "filter: 'payload.total'"),
    ]);
    platform.apply(&integration).await;
    let _api = platform.start(&["api"]);
    platform.wait_until_accepting().await;
    let event = platform.post_acme(&acme_event("e-1")).await;
    assert_eq!(event.status, 202, "{event:?}");
    let record = platform.get(&format!("/api/v1/events/{}", event.event_id())).await;
    let expected = pairs(&[("lenient", "pending"), ("strict", "filtered"), ("types", "pending")]);
    assert_eq!(statuses(&record), expected);

    platform.wait_for_count("SELECT count(*) FROM filter_errors WHERE errors = 1", 3).await;
    let rows =
        platform.database.rows("SELECT destination, error, sample_event_id::text FROM filter_errors").await;
    for row in rows {
        assert_eq!(row["sample_event_id"], event.event_id(), "{row}");
        let expected = if row["destination"] == "types" { "not bool" } else { "absent" };
        assert!(row["error"].as_str().is_some_and(|error| error.contains(expected)), "{row}");
    }
    let url = format!("http://127.0.0.1:{ops_port}/metrics");
    let metrics = platform.http.get(url).send().await.expect("metrics").text().await.expect("metrics");
    for line in [
        r#"grapnel_filter_errors_total{reason="evaluation",outcome="delivered"} 2"#,
        r#"grapnel_filter_errors_total{reason="evaluation",outcome="dropped"} 1"#,
        "grapnel_deliveries_filtered_total 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn a_filter_that_cannot_be_used_is_refused_by_its_field() {
    let platform = Platform::new().await;
    let refused = async |filter: &str| {
        let destination = filtering("orders", "http://127.0.0.1:9", &format!("filter: \"{filter}\""));
        let path = platform.write_integrations(&acme_integration(&[destination]));
        let output = platform.try_run(&["apply", "--file", path.to_str().expect("a path")]).await;
        assert!(!output.status.success(), "{filter}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (filter, expected) in [
        ("payload.total >", "does not parse at line 1"),
        ("total > 1", "unknown variable total"),
        ("payload.a.matches('(')", "the pattern of matches is not valid"),
        ("42", "is never true or false"),
    ] {
        let error = refused(filter).await;
        assert!(
            error.contains("spec.destinations[0].filter: ") && error.contains(expected),
            "{filter}: {error}"
        );
    }
    let sum = format!("1{} > 0", "+1".repeat(1_000));
    let error = refused(&sum).await;
    assert!(error.contains("parts") || error.contains("levels deep"), "{error}");
}

/// An expression that takes as long as the bounds allow, which is much longer than anybody waits.
const SLOW: &str = "payload.l.all(x, payload.l.all(y, x * y * x * y * x * y * x * y * x * y != 1))";

#[tokio::test]
async fn a_slow_filter_holds_up_nobody_and_is_switched_off() {
    let platform = Platform::new().await;
    let nowhere = "http://127.0.0.1:9/";
    let integrations = [
        integration_named(
            "slow",
            "acme",
            "",
            &[
                filtering("slow", nowhere, &format!("filter: \"{SLOW}\"")),
                filtering("types", nowhere, "eventTypes: ['!order.created']"),
            ],
        ),
        acme_integration(&[filtering("orders", nowhere, "filter: 'payload.total == 12'")]),
    ];
    let _api = platform.start_api(&integrations.join("---\n")).await;
    platform.wait_until_known("slow").await;

    let slow_event = |id: &str| body(id, "order.created", json!({"id": "o-1", "l": vec![0; 300]}));
    let mut errors = Vec::new();
    for number in 0..8 {
        let text = slow_event(&format!("slow-{number}"));
        let answer = platform
            .post("/api/v1/webhooks/slow", &[("x-acme-signature", &sign(text.as_bytes()))], &text)
            .await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let other = platform.post_acme(&acme_event(&format!("e-{number}"))).await;
        assert_eq!(other.status, 202, "{other:?}");
        let record = platform.get(&format!("/api/v1/events/{}", answer.event_id())).await;
        assert_eq!(statuses(&record), pairs(&[("slow", "pending"), ("types", "filtered")]));
        let sql = format!(
            "SELECT details -> 'filterErrors' -> 0 ->> 'error' AS error FROM audit_entries WHERE entity_id = '{}'",
            answer.event_id()
        );
        let rows = platform.database.rows(&sql).await;
        errors.push(rows[0]["error"].as_str().unwrap_or_default().to_owned());
    }
    assert!(errors[..3].iter().all(|error| error.contains("took too long")), "{errors:?}");
    assert!(errors[3..].iter().all(|error| error.contains("switched off")), "{errors:?}");
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 16);
}

#[tokio::test]
async fn the_command_says_what_each_destination_would_do() {
    let platform = Platform::new().await;
    let integration = acme_integration(&[
        filtering("all", "http://127.0.0.1:9", ""),
        filtering("large", "http://127.0.0.1:9", "filter: 'payload.total > 1000'"),
    ]);
    let path = platform.write_integrations(&integration);
    let event = path.with_file_name("event.json");
    std::fs::write(&event, acme_event("e-1")).expect("write the event");
    let (path, event) = (path.to_str().expect("a path"), event.to_str().expect("a path"));
    let report = platform.run(&["filter", "--file", path, "--event", event]).await;
    let lines: Vec<&str> = report.lines().map(str::trim).collect();
    assert!(lines[0].ends_with("order.created"), "{report}");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["all", "delivered"]);
    assert!(lines[2].starts_with("large") && lines[2].ends_with("filtered: filter is false"), "{report}");
}
