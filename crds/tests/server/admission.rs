//! The objects that the server accepts and rejects, by the same tables as the tests of the offline validation.

use serde_json::Value;

use crate::cases::{self, Case};
use crate::kubectl::{Namespace, check_all};

pub(crate) const DRY_CREATE: [&str; 2] = ["create", "--dry-run=server"];

#[test]
fn valid_objects_are_accepted_without_a_warning() {
    let namespace = Namespace::new();
    check_all(&cases::valid(), |case| {
        let answer = namespace.send(&DRY_CREATE, &without_what_the_server_adds(case));
        if answer.succeeded && answer.stderr.is_empty() {
            Ok(())
        } else {
            Err(format!("{}: {}", case.name, answer.stderr))
        }
    });
}

#[test]
fn invalid_objects_are_rejected_with_the_messages_of_the_offline_validation() {
    let namespace = Namespace::new();
    check_all(&cases::invalid(), |case| {
        let stderr = namespace.send(&DRY_CREATE, &case.manifest()).stderr;
        let expected = case.field.as_deref().zip(case.server_message());
        expect_complaint(&case.name, &stderr, expected)
    });
}

#[test]
fn unknown_fields_are_named_or_dropped_as_the_user_asks() {
    let namespace = Namespace::new();
    check_all(&cases::unknown(), |case| {
        let stderr = namespace.send(&DRY_CREATE, &case.manifest()).stderr;
        let field = case.field.as_deref().expect("a field is unknown");
        if !stderr.contains(&format!("unknown field \"{field}\"")) {
            return Err(format!("{}: {stderr:?}", case.name));
        }
        let lenient = [&DRY_CREATE[..], &["--validate=ignore", "--output=json"]].concat();
        let stored = namespace.send(&lenient, &case.manifest()).object();
        let dropped = field.replace("[0]", "/0").replace('.', "/");
        let left = stored.pointer(&format!("/{dropped}"));
        left.map_or(Ok(()), |value| Err(format!("{}: {value} is stored", case.name)))
    });
}

#[test]
fn the_identity_of_an_object_cannot_be_changed() {
    check_all(&cases::updates(), |update| {
        let namespace = Namespace::new();
        let created = namespace.send(&["create"], &update.old_manifest());
        if !created.succeeded {
            return Err(format!("{}: {}", update.name, created.stderr));
        }
        let stderr = namespace.send(&["replace", "--dry-run=server"], &update.new_manifest()).stderr;
        expect_complaint(&update.name, &stderr, update.field.as_deref().zip(update.message.as_deref()))
    });
}

/// Returns the object of a case without the fields that the server sets.
fn without_what_the_server_adds(case: &Case) -> String {
    let mut object: Value = serde_json::from_str(&case.manifest()).expect("a manifest is JSON");
    let metadata = object["metadata"].as_object_mut().expect("an object has metadata");
    for field in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"] {
        metadata.remove(field);
    }
    object.to_string()
}

/// Checks that the server reported this one field with this message, possibly among others, or no error. The server
/// continues where the offline validation stops: an empty text also breaks its rules, a second item of one name also those of its
/// list, and a value that is not an object has no replicas to scale.
pub(crate) fn expect_complaint(
    name: &str,
    stderr: &str,
    expected: Option<(&str, &str)>,
) -> Result<(), String> {
    let found = complaints(stderr);
    let as_expected = match expected {
        None => stderr.is_empty(),
        Some((blamed, words)) => {
            let is_related = |field: &str| field.starts_with(blamed) || blamed.starts_with(field);
            found.iter().all(|(field, _)| is_related(field.trim_start_matches('.')))
                && found.iter().any(|(field, message)| *field == blamed && message.contains(words))
        }
    };
    if as_expected {
        Ok(())
    } else {
        Err(format!("{name}: expected {expected:?}, the server reported {stderr:?}"))
    }
}

/// Returns the fields and messages of a rejection: `The Integration "x" is invalid: spec.a: …`, or one line for each
/// after an asterisk.
fn complaints(stderr: &str) -> Vec<(&str, &str)> {
    let Some((_, list)) = stderr.split_once(" is invalid: ") else { return Vec::new() };
    list.lines()
        .filter_map(|line| line.trim_start_matches("* ").split_once(": "))
        // Errors of the shape keep the server from evaluating rules, which it also reports.
        .filter(|(_, message)| !message.contains("some validation rules were not checked"))
        .collect()
}
