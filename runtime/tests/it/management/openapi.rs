//! The OpenAPI document.

use std::collections::BTreeSet;

use grapnel::management::openapi::{Served, document};
use serde_json::Value;

fn json(served: Served) -> Value {
    serde_json::to_value(document(served)).expect("JSON")
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
    let document = json(Served::EVERYTHING);
    let described: Vec<_> = operations(&document)
        .into_iter()
        .map(|(name, operation)| {
            let statuses: Vec<_> = operation["responses"].as_object().unwrap().keys().cloned().collect();
            format!("{name}: {}", statuses.join(" "))
        })
        .collect();
    insta::assert_snapshot!(described.join("\n"), @r"
    get /api/v1/audit-entries: 200 400 401 403 405 429 500 503
    get /api/v1/deliveries: 200 400 401 403 405 429 500 503
    get /api/v1/events: 200 400 401 403 405 429 500 503
    delete /api/v1/events/{id}: 200 400 401 403 404 405 429 500 503
    get /api/v1/events/{id}: 200 400 401 403 404 405 429 500 503
    post /api/v1/events/{id}/replay: 202 400 401 403 404 405 409 413 415 429 500 503
    get /api/v1/events/{id}/status: 200 400 401 403 404 405 429 500 503
    get /api/v1/health: 200 405 500 503
    get /api/v1/integrations: 200 400 401 403 405 429 500 503
    get /api/v1/integrations/{id}: 200 400 401 403 404 405 429 500 503
    get /api/v1/integrations/{id}/stats: 200 400 401 403 404 405 429 500 503
    post /api/v1/integrations/{id}/test-events: 202 400 401 403 404 405 409 413 415 429 500 503
    post /api/v1/internal/delivery-sink/{provider}: 202 400 405 413 500
    get /api/v1/processing-status/{id}: 200 400 401 403 404 405 429 500 503
    get /api/v1/rejections: 200 400 401 403 404 405 429 500 503
    get /api/v1/replay-requests: 200 400 401 403 405 429 500 503
    get /api/v1/replay-requests/{id}: 200 400 401 403 404 405 429 500 503
    get /api/v1/replays: 200 400 401 403 405 429 500 503
    post /api/v1/replays: 200 202 400 401 403 404 405 409 413 415 429 500 503
    get /api/v1/replays/{id}: 200 400 401 403 404 405 429 500 503
    patch /api/v1/replays/{id}: 200 400 401 403 404 405 409 413 415 429 500 503
    post /api/v1/replays/{id}/cancel: 200 400 401 403 404 405 409 429 500 503
    post /api/v1/replays/{id}/pause: 200 400 401 403 404 405 409 429 500 503
    post /api/v1/replays/{id}/resume: 200 400 401 403 404 405 409 429 500 503
    get /api/v1/stream/events: 200 400 401 403 405 429 500 503
    post /api/v1/webhooks/{route}: 200 202 400 401 404 405 413 415 429 500 503
    ");
}

#[test]
fn the_sink_is_described_only_where_it_is_routed() {
    let sink = "/api/v1/internal/delivery-sink/{provider}";
    assert!(json(Served::EVERYTHING)["paths"].get(sink).is_some());
    assert!(json(Served { delivery_sink: false, ..Served::EVERYTHING })["paths"].get(sink).is_none());
}

#[test]
fn management_routes_and_only_they_take_a_credential() {
    let document = json(Served::EVERYTHING);
    assert_eq!(document["openapi"], "3.1.0");
    let key = &document["components"]["securitySchemes"]["managementKey"];
    assert_eq!(
        (&key["type"], &key["in"], &key["name"]),
        (&"apiKey".into(), &"header".into(), &"x-internal-api-key".into())
    );
    let token = &document["components"]["securitySchemes"]["kubernetesToken"];
    assert_eq!((&token["type"], &token["scheme"]), (&"http".into(), &"bearer".into()));
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
fn every_route_that_takes_a_credential_says_which_right_it_needs() {
    let document = json(Served::EVERYTHING);
    let described: Vec<_> = operations(&document)
        .into_iter()
        .filter(|(_, operation)| !operation["security"].is_null())
        .map(|(name, operation)| {
            let access = &operation["x-grapnel-access"];
            let text = |member: &str| access[member].as_str().unwrap_or_else(|| panic!("{name}: {access}"));
            let payloads = if access["showsPayloads"] == true { ", payloads" } else { "" };
            format!("{name}: {} {} by {}{payloads}", text("verb"), text("resource"), text("scope"))
        })
        .collect();
    insta::assert_snapshot!(described.join("\n"), @r"
    get /api/v1/audit-entries: list integrations/audit by list
    get /api/v1/deliveries: list integrations/deliveries by list, payloads
    get /api/v1/events: list integrations/events by list, payloads
    delete /api/v1/events/{id}: delete integrations/events by event
    get /api/v1/events/{id}: get integrations/events by event, payloads
    post /api/v1/events/{id}/replay: create integrations/replays by event
    get /api/v1/events/{id}/status: get integrations/events by event
    get /api/v1/integrations: list integrations by list
    get /api/v1/integrations/{id}: get integrations by integration
    get /api/v1/integrations/{id}/stats: get integrations by integration
    post /api/v1/integrations/{id}/test-events: create integrations/replays by integration
    get /api/v1/processing-status/{id}: get integrations/events by event
    get /api/v1/rejections: list integrations/events by route
    get /api/v1/replay-requests: list integrations/replays by list
    get /api/v1/replay-requests/{id}: get integrations/replays by replayRequest
    get /api/v1/replays: list integrations/replays by list
    post /api/v1/replays: create integrations/replays by body, payloads
    get /api/v1/replays/{id}: get integrations/replays by replay
    patch /api/v1/replays/{id}: update integrations/replays by replay
    post /api/v1/replays/{id}/cancel: update integrations/replays by replay
    post /api/v1/replays/{id}/pause: update integrations/replays by replay
    post /api/v1/replays/{id}/resume: update integrations/replays by replay
    get /api/v1/stream/events: list integrations/events by list
    ");
}

#[test]
fn a_port_describes_only_what_it_serves() {
    let names = |served| operations(&json(served)).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let nothing_else = Served { webhooks: true, managed: false, delivery_sink: false };
    assert_eq!(names(nothing_else), ["get /api/v1/health", "post /api/v1/webhooks/{route}"]);
    let managed = names(Served { webhooks: false, managed: true, delivery_sink: false });
    let others = ["post /api/v1/webhooks/{route}", "post /api/v1/internal/delivery-sink/{provider}"];
    let mut all = names(Served::EVERYTHING);
    all.retain(|name| !others.contains(&name.as_str()));
    assert_eq!(managed, all);
}

#[test]
fn names_are_unique_and_references_lead_somewhere() {
    let document = json(Served::EVERYTHING);
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
    let document = json(Served::EVERYTHING);
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let has = |header: &str| response["headers"].get(header).is_some();
            assert!(has("x-correlation-id"), "{name} {status}");
            assert_eq!(has("allow"), status == "405", "{name} {status}");
            assert_eq!(has("retry-after"), matches!(status.as_str(), "429" | "503"), "{name} {status}");
        }
    }
}
