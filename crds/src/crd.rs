//! The CustomResourceDefinitions, made from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::spec::integration::Integration;
use crate::spec::replay::Replay;

/// The served and stored version of every kind.
pub const API_VERSION: &str = "grapnel.dev/v1alpha1";

/// The kind of an Integration.
pub const KIND: &str = "Integration";

/// The kind of a Replay.
pub const REPLAY_KIND: &str = "Replay";

const HEADER: &str = "\
# Generated from the types in crds/. Do not edit; refresh it with:
#   cargo run --package grapnel-crds --bin crdgen charts/grapnel-crds/templates
";

/// Returns the definition of each resource, the Integration first.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [crd(), replay_crd()]
}

/// Returns the definition of the Integration resource.
pub fn crd() -> CustomResourceDefinition {
    with_joined_lines(Integration::crd())
}

/// Returns the definition of the Replay resource.
pub fn replay_crd() -> CustomResourceDefinition {
    with_joined_lines(Replay::crd())
}

/// Returns a definition as YAML, as the chart contains it.
pub fn definition_yaml(definition: &CustomResourceDefinition) -> String {
    let yaml = serde_saphyr::to_string(definition).expect("a definition is plain data");
    format!("{HEADER}{yaml}")
}

fn with_joined_lines(definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut definition = serde_json::to_value(definition).expect("a definition is plain data");
    join_description_lines(&mut definition);
    serde_json::from_value(definition).expect("joining lines changes no structure")
}

/// Makes each paragraph of a description one line: `kubectl explain` wraps lines at the width of the terminal, and the
/// line breaks of the source would come between its own.
fn join_description_lines(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "description" => {
                        let paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
                        *text = paragraphs.collect::<Vec<_>>().join("\n\n");
                    }
                    other => join_description_lines(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(join_description_lines),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
