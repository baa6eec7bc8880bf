//! The check of plain JSON against a structural schema, as in the API server before it evaluates rules.
//!
//! The schema of the CustomResourceDefinition is the only place that defines which fields exist and what their bounds
//! are. The check reads it instead of repeating it in code, so that files and the API server cannot disagree. It
//! supports only the keywords that our schemas use; a test fails when a schema uses another one.
//!
//! No message contains a value of the object, so an object with secrets can be checked too.

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

/// The violations of a schema.
#[derive(Debug, Default)]
pub(crate) struct SchemaErrors {
    /// Unknown fields, missing fields and values of the wrong type: the object cannot be parsed.
    pub(crate) shape: Vec<FieldError>,
    /// Values outside their bounds: the object can be parsed, but is not valid.
    pub(crate) bounds: Vec<FieldError>,
}

/// Checks an object against its schema.
pub(crate) fn check(schema: &Value, object: &Value) -> SchemaErrors {
    let mut errors = SchemaErrors::default();
    check_value(schema, object, "", &mut errors);
    errors
}

/// Removes the nulls that the API server removes: a null in a field that is not nullable is the same as an absent
/// field.
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

fn check_value(schema: &Value, value: &Value, path: &str, errors: &mut SchemaErrors) {
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    let expected = schema["type"].as_str().unwrap_or_default();
    match (expected, value) {
        ("object", Value::Object(fields)) => check_object(schema, fields, path, errors),
        ("array", Value::Array(items)) => check_array(schema, items, path, errors),
        ("string", Value::String(text)) => check_string(schema, text, path, errors),
        ("integer", Value::Number(number)) if number.is_i64() || number.is_u64() => {
            check_number(schema, number.as_f64().unwrap_or(f64::MAX), path, errors);
        }
        ("boolean", Value::Bool(_)) => {}
        _ => errors
            .shape
            .push(FieldError::new(path, format!("must be of type {expected}, not {}", type_name(value)))),
    }
}

fn check_object(schema: &Value, fields: &Map<String, Value>, path: &str, errors: &mut SchemaErrors) {
    let no_properties = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&no_properties);
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for name in required.filter(|name| !fields.contains_key(*name)) {
        errors.shape.push(FieldError::new(&child(path, name), "Required value"));
    }
    if keyword_u64(schema, "maxProperties").is_some_and(|maximum| fields.len() as u64 > maximum) {
        errors
            .bounds
            .push(FieldError::new(path, format!("must have at most {} items", schema["maxProperties"])));
    }
    for (name, value) in fields {
        let path = child(path, name);
        match properties.get(name) {
            Some(property) => check_value(property, value, &path, errors),
            None if schema["additionalProperties"].is_object() => {
                check_value(&schema["additionalProperties"], value, &path, errors);
            }
            // An object whose schema lists no fields, such as managed fields, accepts any.
            None if properties.is_empty() => {}
            None => errors.shape.push(FieldError::new(&path, unknown_field(name, properties))),
        }
    }
}

fn check_array(schema: &Value, items: &[Value], path: &str, errors: &mut SchemaErrors) {
    if keyword_u64(schema, "maxItems").is_some_and(|maximum| items.len() as u64 > maximum) {
        errors.bounds.push(FieldError::new(path, format!("must have at most {} items", schema["maxItems"])));
    }
    if keyword_u64(schema, "minItems").is_some_and(|minimum| (items.len() as u64) < minimum) {
        errors
            .bounds
            .push(FieldError::new(path, format!("should have at least {} items", schema["minItems"])));
    }
    for (index, item) in items.iter().enumerate() {
        check_value(&schema["items"], item, &format!("{path}[{index}]"), errors);
    }
    if schema["x-kubernetes-list-type"] == "map" {
        check_unique(schema, items, path, errors);
    }
}

/// Checks that the items of a map list differ in their key fields, which have their defaults when they are absent.
fn check_unique(schema: &Value, items: &[Value], path: &str, errors: &mut SchemaErrors) {
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
            errors.bounds.push(FieldError::new(&format!("{path}[{index}]"), message));
        }
    }
}

fn check_string(schema: &Value, text: &str, path: &str, errors: &mut SchemaErrors) {
    let length = text.chars().count() as u64;
    if keyword_u64(schema, "maxLength").is_some_and(|maximum| length > maximum) {
        let message = format!("Too long: may not be more than {} bytes", schema["maxLength"]);
        errors.bounds.push(FieldError::new(path, message));
    }
    if keyword_u64(schema, "minLength").is_some_and(|minimum| length < minimum) {
        let message = format!("should be at least {} chars long", schema["minLength"]);
        errors.bounds.push(FieldError::new(path, message));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.iter().any(|value| value == text)
    {
        let values = values.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
        errors.shape.push(FieldError::new(path, format!("supported values: {values}")));
    }
}

fn check_number(schema: &Value, number: f64, path: &str, errors: &mut SchemaErrors) {
    // Bounds are whole numbers; the definition writes them as floats.
    if let Some(maximum) = schema["maximum"].as_f64().filter(|maximum| number > *maximum) {
        errors.bounds.push(FieldError::new(path, format!("should be less than or equal to {maximum}")));
    }
    if let Some(minimum) = schema["minimum"].as_f64().filter(|minimum| number < *minimum) {
        errors.bounds.push(FieldError::new(path, format!("should be greater than or equal to {minimum}")));
    }
}

/// Returns the whole number that a keyword of the schema has.
fn keyword_u64(schema: &Value, keyword: &str) -> Option<u64> {
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

/// Returns the message for an unknown field, with the known field that was probably meant: one that differs only in
/// case, that starts with the name, or that the name exceeds by one or two letters.
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

    /// The keywords that `check` and `prune_nulls` read, and those that do not restrict a value.
    const SUPPORTED: [&str; 18] = [
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

    /// The keywords that are checked elsewhere: times when the object is parsed, rules by `rules`.
    const CHECKED_ELSEWHERE: [&str; 2] = ["format", "x-kubernetes-validations"];

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
    fn every_keyword_of_the_schemas_is_supported() {
        for schema in [&*INTEGRATION, &*SECRET] {
            let mut keywords = BTreeSet::new();
            collect(schema, &mut keywords);
            for keyword in ["$schema", "title"].iter().chain(&SUPPORTED).chain(&CHECKED_ELSEWHERE) {
                keywords.remove(keyword);
            }
            assert_eq!(keywords, BTreeSet::new());
        }
    }
}
