//! Checks plain JSON against a structural schema, as the API server does before it evaluates rules.
//!
//! The schema of the CustomResourceDefinition is the only place that says which fields exist and what their bounds are.
//! Reading it here, instead of saying it again in code, is what keeps files and the API server from disagreeing.
//! Only the keywords that our schemas use are understood; a test fails when a schema uses another one.
//!
//! No message contains a value from the object, so an object that holds secrets can be checked too.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::error::FieldError;
use crate::crd::crd;

/// The schema of an Integration, metadata included.
pub(crate) static INTEGRATION: LazyLock<Value> = LazyLock::new(|| {
    let definition = serde_json::to_value(crd()).expect("a definition is plain data");
    let mut schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    // The API server adds these to every custom resource.
    schema["properties"]["apiVersion"] = serde_json::json!({"type": "string"});
    schema["properties"]["kind"] = serde_json::json!({"type": "string"});
    schema["properties"]["metadata"] = schema_of::<ObjectMeta>();
    schema
});

/// The schema of a Secret.
pub(crate) static SECRET: LazyLock<Value> = LazyLock::new(schema_of::<Secret>);

/// What a schema says against an object.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Unknown fields, missing fields and values of another type: the object cannot be read.
    pub(crate) shape: Vec<FieldError>,
    /// Values outside their bounds: the object can be read, but is not valid.
    pub(crate) bounds: Vec<FieldError>,
}

/// Checks an object against its schema.
pub(crate) fn check(schema: &Value, object: &Value) -> Findings {
    let mut findings = Findings::default();
    check_value(schema, object, "", &mut findings);
    findings
}

/// Removes the nulls that the API server removes: a null in a field that is not nullable is the same as no field.
pub(crate) fn prune_nulls(schema: &Value, object: &mut Value) {
    match object {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                let known = &schema["properties"][name];
                !(value.is_null() && known.is_object() && known["nullable"] != true)
            });
            for (name, value) in fields {
                let known = &schema["properties"][name];
                prune_nulls(if known.is_object() { known } else { &schema["additionalProperties"] }, value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prune_nulls(&schema["items"], item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn schema_of<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::openapi3();
    settings.inline_subschemas = true;
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

fn check_value(schema: &Value, value: &Value, path: &str, findings: &mut Findings) {
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    let expected = schema["type"].as_str().unwrap_or_default();
    match (expected, value) {
        ("object", Value::Object(fields)) => check_object(schema, fields, path, findings),
        ("array", Value::Array(items)) => check_array(schema, items, path, findings),
        ("string", Value::String(text)) => check_string(schema, text, path, findings),
        ("integer", Value::Number(number)) if number.is_i64() || number.is_u64() => {
            check_number(schema, number.as_f64().unwrap_or(f64::MAX), path, findings);
        }
        ("boolean", Value::Bool(_)) => {}
        _ => findings
            .shape
            .push(FieldError::new(path, format!("must be of type {expected}, and is {}", type_name(value)))),
    }
}

fn check_object(schema: &Value, fields: &Map<String, Value>, path: &str, findings: &mut Findings) {
    let no_properties = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&no_properties);
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for name in required.filter(|name| !fields.contains_key(*name)) {
        findings.shape.push(FieldError::new(&child(path, name), "Required value"));
    }
    if at_least(schema, "maxProperties").is_some_and(|most| fields.len() as u64 > most) {
        findings
            .bounds
            .push(FieldError::new(path, format!("must have at most {} items", schema["maxProperties"])));
    }
    for (name, value) in fields {
        let path = child(path, name);
        match properties.get(name) {
            Some(property) => check_value(property, value, &path, findings),
            None if schema["additionalProperties"].is_object() => {
                check_value(&schema["additionalProperties"], value, &path, findings);
            }
            // An object without any description of its fields takes all of them, as managed fields do.
            None if properties.is_empty() => {}
            None => findings.shape.push(FieldError::new(&path, unknown_field(name, properties))),
        }
    }
}

fn check_array(schema: &Value, items: &[Value], path: &str, findings: &mut Findings) {
    if at_least(schema, "maxItems").is_some_and(|most| items.len() as u64 > most) {
        findings
            .bounds
            .push(FieldError::new(path, format!("must have at most {} items", schema["maxItems"])));
    }
    if at_least(schema, "minItems").is_some_and(|least| (items.len() as u64) < least) {
        findings
            .bounds
            .push(FieldError::new(path, format!("should have at least {} items", schema["minItems"])));
    }
    for (index, item) in items.iter().enumerate() {
        check_value(&schema["items"], item, &format!("{path}[{index}]"), findings);
    }
    if schema["x-kubernetes-list-type"] == "map" {
        check_unique(schema, items, path, findings);
    }
}

/// The items of a map list are told apart by their key fields, which count with their defaults.
fn check_unique(schema: &Value, items: &[Value], path: &str, findings: &mut Findings) {
    let keys: Vec<&str> = schema["x-kubernetes-list-map-keys"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let identity: Vec<String> = keys
            .iter()
            .map(|key| item.get(*key).unwrap_or(&schema["items"]["properties"][*key]["default"]).to_string())
            .collect();
        if !seen.insert(identity) {
            let message = format!("Duplicate value: another item has the same {}", keys.join(" and "));
            findings.bounds.push(FieldError::new(&format!("{path}[{index}]"), message));
        }
    }
}

fn check_string(schema: &Value, text: &str, path: &str, findings: &mut Findings) {
    let length = text.chars().count() as u64;
    if at_least(schema, "maxLength").is_some_and(|most| length > most) {
        let message = format!("Too long: may not be more than {} bytes", schema["maxLength"]);
        findings.bounds.push(FieldError::new(path, message));
    }
    if at_least(schema, "minLength").is_some_and(|least| length < least) {
        let message = format!("should be at least {} chars long", schema["minLength"]);
        findings.bounds.push(FieldError::new(path, message));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.iter().any(|value| value == text)
    {
        let values = values.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
        findings.shape.push(FieldError::new(path, format!("supported values: {values}")));
    }
}

fn check_number(schema: &Value, number: f64, path: &str, findings: &mut Findings) {
    // Bounds are whole numbers; the definition writes them as floats.
    if let Some(most) = schema["maximum"].as_f64().filter(|most| number > *most) {
        findings.bounds.push(FieldError::new(path, format!("should be less than or equal to {most}")));
    }
    if let Some(least) = schema["minimum"].as_f64().filter(|least| number < *least) {
        findings.bounds.push(FieldError::new(path, format!("should be greater than or equal to {least}")));
    }
}

fn at_least(schema: &Value, keyword: &str) -> Option<u64> {
    schema[keyword].as_u64()
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Names the known field that was probably meant: one that differs only in case, that goes on where the name ends, or
/// that the name has a letter or two more than.
fn unknown_field(name: &str, properties: &Map<String, Value>) -> String {
    let wanted = name.to_ascii_lowercase();
    let meant = properties.keys().find(|known| {
        let known = known.to_ascii_lowercase();
        let (continued, excess) = (known.strip_prefix(&wanted), wanted.strip_prefix(&known));
        wanted.len() >= 3 && (continued.is_some() || excess.is_some_and(|excess| excess.len() <= 2))
    });
    match meant {
        Some(meant) => format!("unknown field; did you mean {meant}?"),
        None => "unknown field".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `check` and `prune_nulls` read, and what says nothing about a value by itself.
    const UNDERSTOOD: [&str; 18] = [
        "type",
        "nullable",
        "properties",
        "additionalProperties",
        "required",
        "maxProperties",
        "items",
        "maxItems",
        "minItems",
        "maxLength",
        "minLength",
        "enum",
        "maximum",
        "minimum",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "default",
        "description",
    ];

    /// Times are parsed when the object is read; rules are in `rules`.
    const LEFT_TO_OTHERS: [&str; 2] = ["format", "x-kubernetes-validations"];

    fn collect<'a>(schema: &'a Value, keywords: &mut BTreeSet<&'a str>) {
        for (keyword, value) in schema.as_object().into_iter().flatten() {
            keywords.insert(keyword);
            match keyword.as_str() {
                "properties" => {
                    value.as_object().into_iter().flatten().for_each(|(_, value)| collect(value, keywords))
                }
                "items" | "additionalProperties" => collect(value, keywords),
                _ => {}
            }
        }
    }

    #[test]
    fn every_keyword_of_the_schemas_is_understood() {
        for schema in [&*INTEGRATION, &*SECRET] {
            let mut keywords = BTreeSet::new();
            collect(schema, &mut keywords);
            for keyword in ["$schema", "title"].iter().chain(&UNDERSTOOD).chain(&LEFT_TO_OTHERS) {
                keywords.remove(keyword);
            }
            assert_eq!(keywords, BTreeSet::new());
        }
    }
}
