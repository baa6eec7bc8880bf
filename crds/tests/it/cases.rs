//! The tables in `tests/cases`. They hold for files and for an API server alike, so a test against a real one can
//! include this file by its path and expect the same.

use serde::Deserialize;
use serde_json::Value;

/// The object that every case is a patch of.
pub(crate) const BASE: &str = include_str!("../cases/base.yaml");

/// An object and its expected error.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    #[serde(default)]
    patch: Value,
    /// The field that is reported; none for a valid object.
    pub(crate) field: Option<String>,
    /// The message about the field.
    pub(crate) message: Option<String>,
    /// The message of the API server where it differs from ours.
    server: Option<String>,
    /// Whether only the offline validation finds the error.
    #[serde(default)]
    offline: bool,
}

/// A change of an object and its expected error.
#[derive(Debug, Deserialize)]
pub(crate) struct Update {
    pub(crate) name: String,
    #[serde(default)]
    old: Value,
    #[serde(default)]
    new: Value,
    /// The field that is reported; none for an allowed change.
    pub(crate) field: Option<String>,
    /// The message about the field.
    pub(crate) message: Option<String>,
}

impl Case {
    /// Returns the object as a manifest.
    pub(crate) fn manifest(&self) -> String {
        patched(&self.patch)
    }

    /// Returns the message of the API server about the field; none when it accepts the object.
    pub(crate) fn server_message(&self) -> Option<&str> {
        self.server.as_deref().or(self.message.as_deref()).filter(|_| !self.offline)
    }
}

impl Update {
    /// Returns the object before the change, as a manifest.
    pub(crate) fn old_manifest(&self) -> String {
        patched(&self.old)
    }

    /// Returns the object after the change, as a manifest.
    pub(crate) fn new_manifest(&self) -> String {
        patched(&self.new)
    }
}

/// Returns the valid objects.
pub(crate) fn valid() -> Vec<Case> {
    read(include_str!("../cases/valid.yaml"))
}

/// Returns the rejected objects.
pub(crate) fn invalid() -> Vec<Case> {
    read(include_str!("../cases/invalid.yaml"))
}

/// Returns the objects with a field that does not exist.
pub(crate) fn unknown() -> Vec<Case> {
    read(include_str!("../cases/unknown.yaml"))
}

/// Returns the changes that are allowed or rejected.
pub(crate) fn updates() -> Vec<Update> {
    read(include_str!("../cases/update.yaml"))
}

fn read<T: for<'de> Deserialize<'de>>(table: &str) -> Vec<T> {
    serde_saphyr::from_str(table).expect("the table is well formed")
}

fn patched(patch: &Value) -> String {
    let mut object: Value = serde_saphyr::from_str(BASE).expect("the base is YAML");
    merge(&mut object, patch);
    serde_json::to_string_pretty(&object).expect("JSON is serializable")
}

/// Applies a JSON merge patch (RFC 7386), except that a null patch changes nothing.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        if !patch.is_null() {
            *target = patch.clone();
        }
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in fields {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}
