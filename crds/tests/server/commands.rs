//! The commands that users run on an Integration: get, select, scale and explain.

use serde_json::json;

use crate::kubectl::Namespace;
use crate::storage::full_status;

fn smallest() -> String {
    crate::cases::valid()[0].manifest()
}

fn reported_on(namespace: &Namespace) {
    let patch = format!("--patch={}", json!({ "status": full_status() }));
    namespace
        .kubectl(&["patch", "gint", "acme-orders", "--subresource=status", "--type=merge", &patch])
        .output();
}

#[test]
fn the_columns_show_what_was_reported() {
    let namespace = Namespace::new();
    namespace.send(&["create"], &smallest()).output();
    reported_on(&namespace);
    let table = namespace.kubectl(&["get", "gint", "--output=wide"]).output();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows[0],
        [
            "NAME",
            "PROVIDER",
            "ROUTE",
            "STATE",
            "READY",
            "REPLICAS",
            "AGE",
            "REASON",
            "URL",
            "INTEGRATION",
            "ID"
        ]
    );
    let (row, age) = (&rows[1], rows[1][6]);
    assert!(age.ends_with('s'), "{table}");
    assert_eq!(row[..6], ["acme-orders", "acme", "/api/v1/webhooks/acme", "Active", "True", "2"]);
    assert_eq!(
        row[7..],
        [
            "AsDesired",
            "https://hooks.example.com/api/v1/webhooks/acme",
            "3d2c8a52-3f0e-4a54-9f0a-2f5d6e1f7c10"
        ]
    );
}

#[test]
fn the_category_shows_objects_of_every_kind() {
    let namespace = Namespace::new();
    namespace.send(&["create"], &smallest()).output();
    let replay = json!({
        "apiVersion": "grapnel.dev/v1alpha1",
        "kind": "Replay",
        "metadata": { "name": "acme-failed" },
        "spec": {
            "integrationRef": { "name": "acme-orders" },
            "select": "Failed",
            "receivedAfter": "2026-11-28T09:00:00Z",
            "receivedBefore": "2026-11-28T11:30:00Z",
            "reason": "orders was down"
        }
    });
    namespace.send(&["create"], &replay.to_string()).output();
    assert_eq!(
        namespace.kubectl(&["get", "grapnel", "--output=name"]).output(),
        "integration.grapnel.dev/acme-orders\nreplay.grapnel.dev/acme-failed\n"
    );
}

#[test]
fn objects_are_selected_by_provider_and_state() {
    let namespace = Namespace::new();
    namespace.send(&["create"], &smallest()).output();
    for (selector, found) in [
        ("spec.provider=acme", "integration.grapnel.dev/acme-orders\n"),
        ("spec.provider=globex", ""),
        ("spec.state=Active,spec.provider!=globex", "integration.grapnel.dev/acme-orders\n"),
        ("spec.state=Disabled", ""),
    ] {
        let output =
            namespace.kubectl(&["get", "gint", "--output=name", "--field-selector", selector]).output();
        assert_eq!(output, found, "{selector}");
    }
}

#[test]
fn an_object_that_names_no_number_of_workers_can_be_scaled() {
    let namespace = Namespace::new();
    namespace.send(&["apply", "--server-side"], &smallest()).output();
    let path = namespace.path("acme-orders");
    let scale_path = format!("{path}/scale");
    let scale = namespace.kubectl(&["get", "--raw", &scale_path]).object();
    assert_eq!((&scale["spec"], &scale["status"]), (&json!({"replicas": 1}), &json!({"replicas": 0})));

    reported_on(&namespace);
    namespace.kubectl(&["scale", "gint", "acme-orders", "--replicas=3"]).output();
    let scale = namespace.kubectl(&["get", "--raw", &scale_path]).object();
    assert_eq!(scale["spec"], json!({"replicas": 3}));
    assert_eq!(scale["status"], json!({"replicas": 2, "selector": "grapnel.dev/integration-id=x"}));

    // The manifest without a number does not reset the new one.
    namespace.send(&["apply", "--server-side"], &smallest()).output();
    let stored = namespace.kubectl(&["get", "--raw", &path]).object();
    assert_eq!(stored["spec"]["workers"]["replicas"], 3);

    let answer = namespace.kubectl(&["scale", "gint", "acme-orders", "--replicas=1001"]);
    assert!(
        !answer.succeeded && answer.stderr.contains("should be less than or equal to 1000"),
        "{}",
        answer.stderr
    );
}

#[test]
fn explain_describes_every_field_with_its_values() {
    let namespace = Namespace::new();
    let spec = namespace.kubectl(&["explain", "integration.spec"]).output();
    for words in
        ["destinations\t<[]Object> -required-", "provider\t<string> -required-", "Where events are delivered"]
    {
        assert!(spec.contains(words), "{words:?} is not in\n{spec}");
    }
    let state = namespace.kubectl(&["explain", "gint.spec.state"]).output();
    for words in ["ENUM:\n    Active\n    DeliveryPaused\n    Disabled\n", "Whether webhooks are accepted"] {
        assert!(state.contains(words), "{words:?} is not in\n{state}");
    }
    let all = namespace.kubectl(&["explain", "gint", "--recursive"]).output();
    assert!(!all.contains("<no description>"), "{all}");
    assert!(all.contains("retryAfterMaxSeconds"), "{all}");
}
