//! The CustomResourceDefinition, made from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::spec::integration::Integration;

/// The served and stored version of `Integration`.
pub const API_VERSION: &str = "grapnel.dev/v1alpha1";

/// The kind of the custom resource.
pub const KIND: &str = "Integration";

const HEADER: &str = "\
# Generated from the types in crds/. Do not edit; refresh it with:
#   cargo run --package grapnel-crds --bin crdgen > charts/grapnel-crds/templates/integrations.grapnel.dev.yaml
";

/// Returns the definition of the Integration resource.
pub fn crd() -> CustomResourceDefinition {
    let mut definition = serde_json::to_value(Integration::crd()).expect("a definition is plain data");
    join_description_lines(&mut definition);
    serde_json::from_value(definition).expect("joining lines changes no structure")
}

/// Returns the definition as YAML, as the chart contains it.
pub fn crd_yaml() -> String {
    let yaml = serde_saphyr::to_string(&crd()).expect("a definition is plain data");
    format!("{HEADER}{yaml}")
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
