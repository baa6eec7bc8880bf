//! Parses Integrations and Secrets from YAML that `kubectl apply` would accept, for use without an API server.
//!
//! Parsing is strict: an unknown field, a duplicate field and a kind that would have no effect are errors, because the
//! alternative is a setting that silently does nothing. Only names, keys and kinds of the input appear in an error, so
//! errors in a file with secrets can be logged.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value};
use serde_saphyr::{Error as YamlError, Options, Spanned};

use crate::crd::{API_VERSION, KIND};
use crate::names::{DEFAULT_NAMESPACE, DESTINATION_LABEL};
use crate::secret::{Secret, SecretValue};
use crate::spec::integration::Integration;
use crate::validation::FieldError;
use crate::validation::schema::{self, SchemaErrors};
use crate::{formats, rules};

/// The longest text that is parsed. The API server accepts objects of 1.5 MiB; this is a few of them.
const MAX_TEXT_BYTES: usize = 8 * 1024 * 1024;

/// The most data of a Secret, as in the API server.
const MAX_SECRET_BYTES: usize = 1024 * 1024;

/// An object in a file.
#[derive(Clone, Debug)]
pub enum Document {
    /// An Integration. Its status is dropped, as when the object is applied.
    Integration(Box<Integration>),
    /// A Secret.
    Secret(Secret),
}

/// The reason why a text was not parsed. All documents are checked, so that one run reports all mistakes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text is too long.
    #[error("the text has {bytes} bytes; at most {MAX_TEXT_BYTES} are allowed")]
    TooLarge {
        /// The length of the text.
        bytes: usize,
    },
    /// The text is not YAML, or YAML that is not accepted.
    #[error("line {line}, column {column}: {problem}")]
    Yaml {
        /// The line, counted from 1.
        line: u64,
        /// The column, counted from 1.
        column: u64,
        /// The problem at that position.
        problem: String,
    },
    /// The text is YAML, but some documents are not valid objects.
    #[error("{}", join(.0))]
    Documents(Vec<DocumentError>),
}

/// The errors of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentError {
    /// The number of the document, counted from 1 without empty documents.
    pub document: usize,
    /// The line where it begins, counted from 1.
    pub line: u64,
    /// The object, if its kind and name are known: `Integration shop/acme-orders`.
    pub object: Option<String>,
    /// The errors.
    pub errors: Vec<FieldError>,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "document {} (line {}", self.document, self.line)?;
        if let Some(object) = &self.object {
            write!(formatter, ", {object}")?;
        }
        write!(formatter, "): {}", join(&self.errors))
    }
}

/// Parses the documents of a YAML text. Objects that name no namespace are in `default`.
///
/// The objects have the right shape, but their bounds and rules are not checked: `Integration::validate` does that.
///
/// # Errors
/// When the text is not YAML, or a document is anything but an Integration or a Secret of the right shape.
pub fn parse_documents(text: &str) -> Result<Vec<Document>, ParseError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(ParseError::TooLarge { bytes: text.len() });
    }
    let values: Vec<Spanned<Value>> =
        serde_saphyr::from_multiple_with_options(text, yaml_options()).map_err(|error| yaml_error(&error))?;
    let mut documents = Vec::new();
    let mut problems = Vec::new();
    for (index, mut value) in values.into_iter().enumerate() {
        make_whole_numbers_integers(&mut value.value);
        let object = describe(&value.value);
        match parse_object(value.value) {
            Ok(document) => documents.push(document),
            Err(errors) => {
                let line = value.referenced.line();
                problems.push(DocumentError { document: index + 1, line, object, errors });
            }
        }
    }
    if problems.is_empty() { Ok(documents) } else { Err(ParseError::Documents(problems)) }
}

/// Returns the options of the parser. kubectl reads YAML 1.1, so 0600 is octal. Aliases may repeat parts of a file, but
/// not without limit.
fn yaml_options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: 500_000 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 50_000 },
        legacy_octal_numbers: true,
        // Snippets would print the lines around an error, and these may hold a secret.
        with_snippet: false,
    }
}

fn yaml_error(error: &YamlError) -> ParseError {
    let (line, column) = error.location().map_or((0, 0), |location| (location.line(), location.column()));
    ParseError::Yaml { line, column, problem: yaml_problem(error.without_snippet()) }
}

/// Returns the parser's message, except where it would quote a value.
fn yaml_problem(error: &YamlError) -> String {
    match error {
        YamlError::DuplicateMappingKey { key: Some(key), .. } => format!("duplicate field {key}"),
        YamlError::DuplicateMappingKey { key: None, .. } => "duplicate field".to_owned(),
        YamlError::UnknownAnchor { .. } => "an alias refers to an anchor that does not exist".to_owned(),
        YamlError::AliasReplayLimitExceeded { .. } | YamlError::Budget { .. } => {
            "the text is too large, or its aliases repeat too much of it".to_owned()
        }
        YamlError::AliasError { error, .. } => yaml_problem(error),
        YamlError::ExternalMessage { .. } | YamlError::Eof { .. } | YamlError::Unexpected { .. } => {
            format!("invalid YAML: {error}")
        }
        _ => {
            "unsupported value: expected one that JSON has, such as a string, an integer or a list".to_owned()
        }
    }
}

fn parse_object(value: Value) -> Result<Document, Vec<FieldError>> {
    if !value.is_object() {
        return Err(vec![FieldError::new("", "must be an object with apiVersion, kind and metadata")]);
    }
    let api_version = required_text(&value, "apiVersion")?;
    match (required_text(&value, "kind")?, api_version) {
        (KIND, API_VERSION) => parse_integration(value),
        ("Secret", "v1") => parse_secret(&value),
        (KIND, _) => Err(wrong_version(API_VERSION)),
        ("Secret", _) => Err(wrong_version("v1")),
        (kind, _) => Err(vec![FieldError::new(
            "kind",
            format!("unsupported kind {kind}; must be Integration ({API_VERSION}) or Secret (v1)"),
        )]),
    }
}

fn parse_integration(mut value: Value) -> Result<Document, Vec<FieldError>> {
    schema::prune_nulls(&schema::INTEGRATION, &mut value);
    let SchemaErrors { mut shape, bounds } = schema::check(&schema::INTEGRATION, &value);
    check_metadata(&value, &mut shape);
    if !shape.is_empty() {
        shape.extend(bounds);
        return Err(shape);
    }
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    let mut integration: Integration = serde_json::from_value(value).map_err(|error| {
        // The only errors left are a number far outside its bounds and a malformed time in the metadata.
        if bounds.is_empty() { vec![FieldError::new("", error.to_string())] } else { bounds }
    })?;
    let namespace = integration.namespace_or_default();
    integration.metadata.namespace = Some(namespace);
    Ok(Document::Integration(Box::new(integration)))
}

fn parse_secret(value: &Value) -> Result<Document, Vec<FieldError>> {
    let mut errors = schema::check(&schema::SECRET, value).shape;
    check_metadata(value, &mut errors);
    let mut secret = Secret {
        namespace: text(&value["metadata"], "namespace").unwrap_or(DEFAULT_NAMESPACE).to_owned(),
        name: text(&value["metadata"], "name").unwrap_or_default().to_owned(),
        permits_destinations: value["metadata"]["labels"][DESTINATION_LABEL] == "true",
        values: Default::default(),
    };
    let mut size: usize = 0;
    for (field, decode) in
        [("data", decode_base64 as fn(&str) -> Option<Vec<u8>>), ("stringData", text_bytes)]
    {
        for (key, value) in value[field].as_object().into_iter().flatten() {
            let path = format!("{field}.{key}");
            if key.len() > 253 || !formats::is_secret_key(key) {
                errors.push(FieldError::new(&path, rules::SECRET_KEY.message));
            }
            // A value that is not a string is already among the errors.
            let Some(text) = value.as_str() else { continue };
            match decode(text) {
                Some(bytes) => {
                    size = size.saturating_add(bytes.len());
                    secret.values.insert(key.clone(), SecretValue::new(bytes));
                }
                None => errors.push(FieldError::new(&path, "must be base64; use stringData for plain text")),
            }
        }
    }
    if size > MAX_SECRET_BYTES {
        errors.push(FieldError::new(
            "data",
            format!("Too long: may not be more than {MAX_SECRET_BYTES} bytes"),
        ));
    }
    if errors.is_empty() { Ok(Document::Secret(secret)) } else { Err(errors) }
}

/// Checks that the object has a name. The API server creates one from `generateName`, but an object without a name
/// cannot be applied.
fn check_metadata(value: &Value, errors: &mut Vec<FieldError>) {
    let metadata = &value["metadata"];
    if text(metadata, "name").is_none()
        && (metadata.is_null() || metadata["name"].is_null() || metadata["name"] == "")
    {
        errors.push(FieldError::new("metadata.name", "Required value"));
    }
}

fn required_text<'a>(value: &'a Value, field: &str) -> Result<&'a str, Vec<FieldError>> {
    text(value, field).ok_or_else(|| vec![FieldError::new(field, "Required value")])
}

fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value[field].as_str().filter(|text| !text.is_empty())
}

fn wrong_version(expected: &str) -> Vec<FieldError> {
    vec![FieldError::new("apiVersion", format!("must be {expected}"))]
}

/// Returns the object's kind, namespace and name, for errors.
fn describe(value: &Value) -> Option<String> {
    let kind = text(value, "kind")?;
    let name = text(&value["metadata"], "name")?;
    let namespace = text(&value["metadata"], "namespace").unwrap_or(DEFAULT_NAMESPACE);
    Some(format!("{kind} {namespace}/{name}"))
}

/// Converts 10.0 to 10. JSON does not distinguish them, and kubectl sends one for the other.
fn make_whole_numbers_integers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            // 2^53: up to here, a float represents every integer exactly.
            const EXACT: f64 = 9_007_199_254_740_992.0;
            let whole = number
                .as_f64()
                .filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < EXACT);
            if let Some(float) = whole {
                *number = Number::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(make_whole_numbers_integers),
        Value::Object(fields) => fields.values_mut().for_each(make_whole_numbers_integers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Decodes base64. Line breaks within the value are allowed, as in the API server.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.replace(['\r', '\n'], "")).ok()
}

fn text_bytes(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

fn join<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}
