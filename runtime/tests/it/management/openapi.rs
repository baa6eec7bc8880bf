//! The OpenAPI document.

use std::collections::BTreeSet;

use grapnel::management::openapi::document;
use serde_json::Value;

fn json(delivery_sink: bool) -> Value {
    serde_json::to_value(document(delivery_sink)).expect("JSON")
}

/// Every operation as `method path`, with its description.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let of_path = |(path, item): (&String, &'_ Value)| {
        let item = item.as_object().expect("operations").clone();
        item.keys().map(|method| (path.clone(), method.clone())).collect::<Vec<_>>()
    };
    paths
        .iter()
        .flat_map(of_path)
        .map(|(path, method)| {
            (format!("{method} {path}"), &document["paths"][path.as_str()][method.as_str()])
        })
        .collect()
}

#[test]
fn all_routes_are_described_with_all_their_answers() {
    let document = json(true);
    let described: Vec<_> = operations(&document)
        .into_iter()
        .map(|(name, operation)| {
            let statuses: Vec<_> = operation["responses"].as_object().unwrap().keys().cloned().collect();
            format!("{name}: {}", statuses.join(" "))
        })
        .collect();
    insta::assert_snapshot!(described.join("\n"), @r"
    get /api/v1/audit-entries: 200 400 401 405 500 503
    get /api/v1/deliveries: 200 400 401 405 500 503
    get /api/v1/events: 200 400 401 405 500 503
    get /api/v1/events/{id}: 200 400 401 404 405 500 503
    post /api/v1/events/{id}/replay: 202 400 401 404 405 409 413 415 500 503
    get /api/v1/events/{id}/status: 200 400 401 404 405 500 503
    get /api/v1/health: 200 405 500 503
    get /api/v1/integrations: 200 400 401 405 500 503
    post /api/v1/internal/delivery-sink/{provider}: 202 400 405 413 500
    get /api/v1/processing-status/{id}: 200 400 401 404 405 500 503
    get /api/v1/replay-requests: 200 400 401 405 500 503
    get /api/v1/replay-requests/{id}: 200 400 401 404 405 500 503
    post /api/v1/webhooks/{route}: 200 202 400 401 404 405 413 415 429 500 503
    ");
}

#[test]
fn the_sink_is_described_only_where_it_is_routed() {
    let sink = "/api/v1/internal/delivery-sink/{provider}";
    assert!(json(true)["paths"].get(sink).is_some());
    assert!(json(false)["paths"].get(sink).is_none());
}

#[test]
fn management_routes_and_only_they_take_the_key() {
    let document = json(true);
    assert_eq!(document["openapi"], "3.1.0");
    let key = &document["components"]["securitySchemes"]["managementKey"];
    assert_eq!(
        (&key["type"], &key["in"], &key["name"]),
        (&"apiKey".into(), &"header".into(), &"x-internal-api-key".into())
    );
    let public: Vec<_> = operations(&document)
        .into_iter()
        .filter(|(_, operation)| operation["security"].is_null())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        public,
        [
            "get /api/v1/health",
            "post /api/v1/internal/delivery-sink/{provider}",
            "post /api/v1/webhooks/{route}"
        ]
    );
}

#[test]
fn names_are_unique_and_references_lead_somewhere() {
    let document = json(true);
    let ids: Vec<_> = operations(&document)
        .into_iter()
        .map(|(_, operation)| operation["operationId"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    let mut references = BTreeSet::new();
    collect_references(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect_references(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                references.insert(reference.clone());
            }
            members.values().for_each(|member| collect_references(member, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, references)),
        _ => {}
    }
}

#[test]
fn refusals_carry_their_headers() {
    let document = json(true);
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let has = |header: &str| response["headers"].get(header).is_some();
            assert!(has("x-correlation-id"), "{name} {status}");
            assert_eq!(has("allow"), status == "405", "{name} {status}");
            assert_eq!(has("retry-after"), matches!(status.as_str(), "429" | "503"), "{name} {status}");
        }
    }
}
