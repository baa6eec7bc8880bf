//! The tables in `tests/cases`. They hold for files and for an API server alike, so a test against a real one can
//! include this file by its path and expect the same.

use serde::Deserialize;
use serde_json::Value;

/// The Integration that every case is a patch of.
pub(crate) const BASE: &str = include_str!("../cases/base.yaml");

/// The Replay that every case of a Replay is a patch of.
pub(crate) const REPLAY: &str = include_str!("../cases/replay/base.yaml");

/// An object and its expected error.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    /// The object that it is a patch of.
    #[serde(skip)]
    base: &'static str,
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
    /// The object that it is a patch of.
    #[serde(skip)]
    base: &'static str,
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
        patched(self.base, &self.patch)
    }

    /// Returns the message of the API server about the field; none when it accepts the object.
    pub(crate) fn server_message(&self) -> Option<&str> {
        self.server.as_deref().or(self.message.as_deref()).filter(|_| !self.offline)
    }
}

impl Update {
    /// Returns the object before the change, as a manifest.
    pub(crate) fn old_manifest(&self) -> String {
        patched(self.base, &self.old)
    }

    /// Returns the object after the change, as a manifest.
    pub(crate) fn new_manifest(&self) -> String {
        patched(self.base, &self.new)
    }
}

/// Returns the valid objects.
pub(crate) fn valid() -> Vec<Case> {
    cases(BASE, include_str!("../cases/valid.yaml"))
}

/// Returns the rejected objects.
pub(crate) fn invalid() -> Vec<Case> {
    cases(BASE, include_str!("../cases/invalid.yaml"))
}

/// Returns the objects with a field that does not exist.
pub(crate) fn unknown() -> Vec<Case> {
    cases(BASE, include_str!("../cases/unknown.yaml"))
}

/// Returns the changes that are allowed or rejected.
pub(crate) fn updates() -> Vec<Update> {
    changes(BASE, include_str!("../cases/update.yaml"))
}

/// Returns the valid Replays.
pub(crate) fn valid_replays() -> Vec<Case> {
    cases(REPLAY, include_str!("../cases/replay/valid.yaml"))
}

/// Returns the rejected Replays.
pub(crate) fn invalid_replays() -> Vec<Case> {
    cases(REPLAY, include_str!("../cases/replay/invalid.yaml"))
}

/// Returns the changes of Replays that are allowed or rejected.
pub(crate) fn replay_updates() -> Vec<Update> {
    changes(REPLAY, include_str!("../cases/replay/update.yaml"))
}

fn cases(base: &'static str, table: &str) -> Vec<Case> {
    let cases: Vec<Case> = serde_saphyr::from_str(table).expect("the table is well formed");
    cases.into_iter().map(|case| Case { base, ..case }).collect()
}

fn changes(base: &'static str, table: &str) -> Vec<Update> {
    let changes: Vec<Update> = serde_saphyr::from_str(table).expect("the table is well formed");
    changes.into_iter().map(|change| Update { base, ..change }).collect()
}

fn patched(base: &str, patch: &Value) -> String {
    let mut object: Value = serde_saphyr::from_str(base).expect("the base is YAML");
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
