//! The objects that the server stores: the defaults that it fills in, and the status that it keeps.

use grapnel_crds::{Document, parse_documents};
use serde_json::{Value, json};

use crate::cases;
use crate::kubectl::Namespace;

fn read(manifest: &str) -> Value {
    let documents = parse_documents(manifest).expect("the case is valid");
    match &documents[0] {
        Document::Integration(integration) => serde_json::to_value(integration).expect("serializable"),
        Document::Secret(_) => panic!("a Secret"),
    }
}

fn case(name: &str) -> String {
    cases::valid().into_iter().find(|case| case.name == name).expect("the case exists").manifest()
}

#[test]
fn absent_fields_get_the_same_defaults_as_in_a_file() {
    let namespace = Namespace::new();
    for name in ["the smallest object", "sections that are empty", "every field"] {
        let manifest = case(name);
        let stored = namespace.send(&["create", "--dry-run=server", "--output=json"], &manifest).object();
        assert_eq!(stored["spec"], read(&manifest)["spec"], "{name}");
    }
}

#[test]
fn a_status_is_kept_whole_and_only_where_it_belongs() {
    let namespace = Namespace::new();
    let mut object: Value = serde_json::from_str(&case("the smallest object")).expect("JSON");
    let status = full_status();
    object["status"] = status.clone();
    let created = namespace.send(&["create", "--output=json"], &object.to_string()).object();
    assert_eq!(created["status"], Value::Null, "the status of a new object is dropped");

    let patch = json!({"spec": {"state": "Disabled"}, "status": status}).to_string();
    let patch = format!("--patch={patch}");
    let patched = namespace
        .kubectl(&[
            "patch",
            "gint",
            "acme-orders",
            "--subresource=status",
            "--type=merge",
            "--output=json",
            &patch,
        ])
        .object();
    assert_eq!(patched["status"], status);
    assert_eq!(patched["spec"]["state"], "Active", "the spec is not the status's to change");
    assert_eq!(patched["metadata"]["generation"], 1);
}

#[test]
fn a_condition_that_is_neither_true_nor_false_nor_unknown_is_refused() {
    let namespace = Namespace::new();
    namespace.send(&["create"], &case("the smallest object")).output();
    let mut status = full_status();
    status["conditions"][0]["status"] = "Maybe".into();
    let patch = format!("--patch={}", json!({ "status": status }));
    let answer =
        namespace.kubectl(&["patch", "gint", "acme-orders", "--subresource=status", "--type=merge", &patch]);
    assert!(!answer.succeeded);
    assert!(
        answer.stderr.contains("status.conditions[0].status: Unsupported value: \"Maybe\""),
        "{}",
        answer.stderr
    );
}

/// Returns a status with every field.
pub(crate) fn full_status() -> Value {
    let time = "2026-11-23T10:00:00Z";
    json!({
        "observedGeneration": 1,
        "conditions": [{"type": "Ready", "status": "True", "reason": "AsDesired", "message": "", "observedGeneration": 1,
                        "lastTransitionTime": time}],
        "integrationId": "3d2c8a52-3f0e-4a54-9f0a-2f5d6e1f7c10",
        "route": {"path": "/api/v1/webhooks/acme", "url": "https://hooks.example.com/api/v1/webhooks/acme"},
        "workers": {"deployment": "w", "selector": "grapnel.dev/integration-id=x", "replicas": 2, "readyReplicas": 1},
        "scaling": {"desiredReplicas": 2, "lastScaleTime": time, "limitedBy": "MaxReplicas",
                    "lastDecision": {"time": time, "from": 0, "to": 2, "reason": "Backlog", "message": "m"}}
    })
}
