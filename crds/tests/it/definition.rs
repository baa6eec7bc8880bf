//! The published definition: the chart has the one that is generated from the types, and its references exist.

use std::collections::BTreeSet;

use grapnel_crds::{Integration, crd, crd_yaml};
use serde_json::{Value, json};

const CHART: &str = include_str!("../../../charts/grapnel-crds/templates/integrations.grapnel.dev.yaml");

fn version() -> Value {
    serde_json::to_value(crd()).expect("serializable")["spec"]["versions"][0].clone()
}

fn schema() -> Value {
    version()["schema"]["openAPIV3Schema"].clone()
}

fn path<'a>(schema: &'a Value, path: &str) -> &'a Value {
    path.split('.').filter(|name| !name.is_empty()).fold(schema, |schema, name| &schema["properties"][name])
}

#[test]
fn the_chart_has_the_definition_of_these_types() {
    assert!(
        CHART == crd_yaml(),
        "the chart's definition is stale; refresh it with\n  cargo run --package grapnel-crds --bin crdgen > \
         charts/grapnel-crds/templates/integrations.grapnel.dev.yaml"
    );
}

#[test]
fn the_definition_survives_uninstalling_and_templating() {
    assert!(CHART.contains("helm.sh/resource-policy: keep"));
    assert!(!CHART.contains("{{"), "Helm would read it as a template");
}

#[test]
fn columns_selectors_and_the_scale_paths_point_at_fields() {
    let (version, schema) = (version(), schema());
    let columns = version["additionalPrinterColumns"].as_array().expect("there are columns");
    let paths = columns.iter().map(|column| &column["jsonPath"]);
    let paths = paths.chain(
        version["selectableFields"].as_array().expect("a list").iter().map(|field| &field["jsonPath"]),
    );
    let scale = &version["subresources"]["scale"];
    let paths =
        paths.chain(["labelSelectorPath", "specReplicasPath", "statusReplicasPath"].map(|name| &scale[name]));
    for json_path in paths.map(|path| path.as_str().expect("a path")) {
        if json_path == ".metadata.creationTimestamp" {
            continue;
        }
        let field = match json_path.split_once("[?(@.type==\"Ready\")]") {
            Some((list, item)) => path(&path(&schema, list)["items"], item),
            None => path(&schema, json_path),
        };
        assert!(field["type"].is_string(), "{json_path} is not a field");
    }
}

#[test]
fn the_scale_subresource_always_finds_a_number() {
    let schema = schema();
    let replicas = path(&schema, "spec.workers.replicas");
    assert_eq!((&replicas["default"], &replicas["nullable"]), (&json!(1), &Value::Null));
    assert_eq!(path(&schema, "spec.workers")["default"]["replicas"], 1);
}

#[test]
fn every_part_of_the_schema_is_bounded_and_described() {
    fn visit(schema: &Value, path: &str, in_status: bool) {
        let described = path.is_empty()
            || path.ends_with("[]")
            || path.ends_with("{}")
            || schema["description"].is_string();
        assert!(described, "{path} has no description");
        assert_ne!(schema["additionalProperties"], json!(false), "{path} would not be structural");
        match schema["type"].as_str() {
            Some("string") => assert!(
                schema["enum"].is_array() || schema["maxLength"].is_u64() || schema["format"] == "date-time",
                "{path} has no bound"
            ),
            Some("integer") => {
                assert!(!schema["format"].as_str().expect("a format").starts_with('u'), "{path} is unsigned");
                let bounded = schema["minimum"].is_f64() && schema["maximum"].is_f64();
                assert!(in_status || bounded, "{path} has no bound");
            }
            Some("boolean") => {}
            Some("array") => {
                assert!(
                    schema["maxItems"].is_u64() && schema["x-kubernetes-list-type"].is_string(),
                    "{path}"
                );
                visit(&schema["items"], &format!("{path}[]"), in_status);
            }
            Some("object") if schema["additionalProperties"].is_object() => {
                assert!(schema["maxProperties"].is_u64(), "{path} has no bound");
                visit(&schema["additionalProperties"], &format!("{path}{{}}"), in_status);
            }
            Some("object") => {
                for (name, property) in schema["properties"].as_object().expect("an object has fields") {
                    visit(property, &format!("{path}.{name}"), in_status || name == "status");
                }
            }
            other => panic!("{path} has the type {other:?}"),
        }
        if let Some(values) = schema["enum"].as_array() {
            assert!(values.iter().all(Value::is_string), "{path} takes {values:?}");
        }
    }
    visit(&schema(), "", false);
}

#[test]
fn descriptions_name_the_default_and_the_bounds_of_the_schema() {
    fn visit(schema: &Value, path: &str) {
        let description = schema["description"].as_str().unwrap_or_default();
        let default = match &schema["default"] {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        assert!(
            description.contains(&default) && (default.is_empty() || description.contains("Default: ")),
            "{path}: {description}"
        );
        for bound in ["minimum", "maximum", "maxLength", "maxItems"].map(|keyword| &schema[keyword]) {
            let bound = bound.as_f64().map(|bound| bound.to_string()).unwrap_or_default();
            assert!(description.contains(&bound), "{path} does not name its bound {bound}: {description}");
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            visit(property, &format!("{path}.{name}"));
        }
        if schema["items"].is_object() {
            visit(&schema["items"], path);
        }
    }
    visit(path(&schema(), "spec"), "spec");
}

#[test]
fn a_condition_is_true_false_or_unknown_and_keyed_by_its_type() {
    let schema = schema();
    let conditions = path(&schema, "status.conditions");
    assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
    assert_eq!(conditions["items"]["properties"]["status"]["enum"], json!(["True", "False", "Unknown"]));
}

/// A field that is written but not published would be dropped by the API server at every write, and a controller that
/// compares before it writes would then never stop writing.
#[test]
fn the_published_fields_are_those_that_are_written() {
    let full =
        crate::cases::valid().into_iter().find(|case| case.name == "every field").expect("the case exists");
    let mut object: Value = serde_json::from_str(&full.manifest()).expect("JSON");
    object["status"] = json!({
        "observedGeneration": 2,
        "conditions": [{"type": "Ready", "status": "True", "reason": "AsDesired", "message": "", "observedGeneration": 2,
                        "lastTransitionTime": "2026-11-23T10:00:00Z"}],
        "integrationId": "3d2c8a52-3f0e-4a54-9f0a-2f5d6e1f7c10",
        "route": {"path": "/api/v1/webhooks/acme", "url": "https://hooks.example.com/api/v1/webhooks/acme"},
        "verification": {"message": "m", "unusedPreviousSecrets": [
            {"name": "old", "key": "secret", "unusedSince": "2026-11-23T10:00:00Z", "lastUsedTime": "2026-11-23T10:00:00Z"}]},
        "workers": {"deployment": "w", "selector": "a=b", "replicas": 1, "readyReplicas": 1},
        "scaling": {"desiredReplicas": 1, "lastScaleTime": "2026-11-23T10:00:00Z", "limitedBy": "MaxReplicas",
                    "lastDecision": {"time": "2026-11-23T10:00:00Z", "from": 0, "to": 1, "reason": "Backlog",
                                     "message": "m"}}
    });
    let integration: Integration =
        serde_json::from_value(object.clone()).expect("the object is an Integration");
    let written = serde_json::to_value(&integration).expect("serializable");
    assert_eq!(written["status"], object["status"], "the status is read as it is written");

    let mut fields = BTreeSet::new();
    for section in ["spec", "status"] {
        written_fields(&written[section], path(&schema(), section), section, &mut fields);
    }
    let mut published = BTreeSet::new();
    published_fields(&schema(), "", &mut published);
    assert_eq!(
        fields.difference(&published).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "written, but not published"
    );
    assert_eq!(
        published.difference(&fields).collect::<Vec<_>>(),
        [".spec", ".status"],
        "published, but not written"
    );
}

fn written_fields(value: &Value, schema: &Value, path: &str, fields: &mut BTreeSet<String>) {
    match value {
        // The keys of a map are its user's.
        Value::Object(_) if schema["additionalProperties"].is_object() => {}
        Value::Object(properties) => {
            for (name, value) in properties {
                let path = format!("{path}.{name}");
                written_fields(value, &schema["properties"][name], &path, fields);
                fields.insert(format!(".{path}"));
            }
        }
        Value::Array(items) => {
            items.iter().for_each(|item| written_fields(item, &schema["items"], path, fields))
        }
        Value::Null => panic!("{path} is written as null"),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn published_fields(schema: &Value, path: &str, fields: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        published_fields(property, &path, fields);
        published_fields(&property["items"], &path, fields);
        fields.insert(path);
    }
}
