//! The published definitions: the chart has those that are generated from the types, and their references exist.

use std::collections::BTreeSet;

use grapnel_crds::{Integration, Replay, crd, definition_yaml, definitions, replay_crd};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

/// The chart's files, in the order of `definitions`.
const CHART: [&str; 2] = [
    include_str!("../../../charts/grapnel-crds/templates/integrations.grapnel.dev.yaml"),
    include_str!("../../../charts/grapnel-crds/templates/replays.grapnel.dev.yaml"),
];

fn version(definition: &CustomResourceDefinition) -> Value {
    serde_json::to_value(definition).expect("serializable")["spec"]["versions"][0].clone()
}

fn schema_of(definition: &CustomResourceDefinition) -> Value {
    version(definition)["schema"]["openAPIV3Schema"].clone()
}

/// Returns the schema of an Integration.
fn schema() -> Value {
    schema_of(&crd())
}

fn path<'a>(schema: &'a Value, path: &str) -> &'a Value {
    path.split('.').filter(|name| !name.is_empty()).fold(schema, |schema, name| &schema["properties"][name])
}

#[test]
fn the_chart_has_the_definition_of_these_types() {
    for (definition, file) in definitions().iter().zip(CHART) {
        assert!(
            file == definition_yaml(definition),
            "the chart's definition of {:?} is stale; refresh it with\n  \
             cargo run --package grapnel-crds --bin crdgen charts/grapnel-crds/templates",
            definition.metadata.name
        );
    }
}

#[test]
fn the_definition_survives_uninstalling_and_templating() {
    for file in CHART {
        assert!(file.contains("helm.sh/resource-policy: keep"));
        assert!(!file.contains("{{"), "Helm would read it as a template");
    }
}

#[test]
fn columns_selectors_and_the_scale_paths_point_at_fields() {
    for definition in definitions() {
        let (version, schema) = (version(&definition), schema_of(&definition));
        let columns = version["additionalPrinterColumns"].as_array().expect("there are columns");
        let selectable = version["selectableFields"].as_array().into_iter().flatten();
        let paths = columns.iter().chain(selectable).map(|field| &field["jsonPath"]);
        let scale = &version["subresources"]["scale"];
        let of_scale =
            ["labelSelectorPath", "specReplicasPath", "statusReplicasPath"].map(|name| &scale[name]);
        let paths = paths.chain(of_scale.into_iter().filter(|_| scale.is_object()));
        for json_path in paths.map(|path| path.as_str().expect("a path")) {
            if json_path == ".metadata.creationTimestamp" {
                continue;
            }
            let condition = json_path.split_once("[?(@.type==\"").and_then(|(list, rest)| {
                let (_, item) = rest.split_once("\")]")?;
                Some((list, item))
            });
            let field = match condition {
                Some((list, item)) => path(&path(&schema, list)["items"], item),
                None => path(&schema, json_path),
            };
            assert!(field["type"].is_string(), "{json_path} is not a field");
        }
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
    for definition in definitions() {
        visit(&schema_of(&definition), "", false);
    }
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
    for definition in definitions() {
        visit(path(&schema_of(&definition), "spec"), "spec");
    }
}

#[test]
fn a_condition_is_true_false_or_unknown_and_keyed_by_its_type() {
    for definition in definitions() {
        let schema = schema_of(&definition);
        let conditions = path(&schema, "status.conditions");
        assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
        assert_eq!(conditions["items"]["properties"]["status"]["enum"], json!(["True", "False", "Unknown"]));
    }
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

    assert_published_as_written(&schema(), &written, &[".spec", ".status"]);
}

#[test]
fn the_published_fields_of_a_replay_are_those_that_are_written() {
    let by_ids =
        crate::cases::valid_replays().into_iter().find(|case| case.name == "every field but a window");
    let mut object: Value = serde_json::from_str(&by_ids.expect("the case exists").manifest()).expect("JSON");
    object["status"] = json!({
        "observedGeneration": 2, "phase": "Running", "replayId": "3d2c8a52-3f0e-4a54-9f0a-2f5d6e1f7c10",
        "conditions": [{"type": "Running", "status": "True", "reason": "Running", "message": "", "observedGeneration": 2,
                        "lastTransitionTime": "2026-11-23T10:00:00Z"}],
        "ratePerSecond": 50, "progress": "5/7", "matched": 7, "fed": 4, "skipped": {"succeeded": 1, "unfinished": 0, "gone": 1}, "succeeded": 2,
        "failed": 1, "remaining": 2, "startTime": "2026-11-23T10:00:00Z", "completionTime": "2026-11-23T10:00:00Z"
    });
    let replay: Replay = serde_json::from_value(object.clone()).expect("the object is a Replay");
    let written = serde_json::to_value(&replay).expect("serializable");
    assert_eq!(written["status"], object["status"], "the status is read as it is written");
    let window = [".spec", ".spec.receivedAfter", ".spec.receivedBefore", ".status"];
    assert_published_as_written(&schema_of(&replay_crd()), &written, &window);
}

#[test]
fn every_field_of_a_replay_that_cannot_be_changed_is_in_the_table_of_changes() {
    let fixed: Vec<String> =
        crate::cases::replay_updates().into_iter().filter_map(|update| update.field).collect();
    let schema = schema_of(&replay_crd());
    let fields = path(&schema, "spec")["properties"].as_object().expect("an object");
    let may_change = |name: &str| ["ratePerSecond", "ttlSecondsAfterFinished"].contains(&name);
    for name in fields.keys().filter(|name| !may_change(name)) {
        let field = format!("spec.{name}");
        assert!(fixed.contains(&field), "{field} can be changed");
    }
}

/// Only the API server evaluates the rules of a Replay.
#[test]
fn every_rule_of_a_replay_is_in_a_table() {
    let definition = serde_json::to_string(&replay_crd()).expect("serializable");
    let invalid = crate::cases::invalid_replays().into_iter().filter_map(|case| case.message);
    let changes = crate::cases::replay_updates().into_iter().filter_map(|update| update.message);
    let messages: BTreeSet<String> = invalid.chain(changes).collect();
    let rules = definition.split("\"message\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    for rule in rules {
        assert!(messages.iter().any(|message| rule.contains(message)), "no case breaks: {rule}");
    }
}

/// Checks that every field of an object is published, and that all that is published but `absent` is in the object.
fn assert_published_as_written(schema: &Value, written: &Value, absent: &[&str]) {
    let mut fields = BTreeSet::new();
    for section in ["spec", "status"] {
        written_fields(&written[section], path(schema, section), section, &mut fields);
    }
    let mut published = BTreeSet::new();
    published_fields(schema, "", &mut published);
    let unpublished: Vec<_> = fields.difference(&published).collect();
    assert_eq!(unpublished, Vec::<&String>::new(), "written, but not published");
    assert_eq!(published.difference(&fields).collect::<Vec<_>>(), absent, "published, but not written");
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
