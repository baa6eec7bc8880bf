//! What the server accepts and refuses, by the tables that the offline validation is tested with.

use serde_json::Value;

use crate::cases::{self, Case};
use crate::kubectl::{Namespace, check_all};

const DRY_CREATE: [&str; 2] = ["create", "--dry-run=server"];

#[test]
fn valid_objects_are_accepted_without_a_warning() {
    let namespace = Namespace::new();
    check_all(&cases::valid(), |case| {
        let answer = namespace.send(&DRY_CREATE, &without_what_the_server_adds(case));
        if answer.succeeded && answer.said.is_empty() {
            Ok(())
        } else {
            Err(format!("{}: {}", case.name, answer.said))
        }
    });
}

#[test]
fn invalid_objects_are_refused_with_the_words_of_the_offline_validation() {
    let namespace = Namespace::new();
    check_all(&cases::invalid(), |case| {
        let said = namespace.send(&DRY_CREATE, &case.manifest()).said;
        let expected = case.field.as_deref().zip(case.server_message());
        expect_complaint(&case.name, &said, expected)
    });
}

#[test]
fn unknown_fields_are_named_or_dropped_as_the_user_asks() {
    let namespace = Namespace::new();
    check_all(&cases::unknown(), |case| {
        let said = namespace.send(&DRY_CREATE, &case.manifest()).said;
        let field = case.field.as_deref().expect("a field is unknown");
        if !said.contains(&format!("unknown field \"{field}\"")) {
            return Err(format!("{}: {said:?}", case.name));
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
            return Err(format!("{}: {}", update.name, created.said));
        }
        let said = namespace.send(&["replace", "--dry-run=server"], &update.new_manifest()).said;
        expect_complaint(&update.name, &said, update.field.as_deref().zip(update.message.as_deref()))
    });
}

/// The object of a case as it would be created anew.
fn without_what_the_server_adds(case: &Case) -> String {
    let mut object: Value = serde_json::from_str(&case.manifest()).expect("a manifest is JSON");
    let metadata = object["metadata"].as_object_mut().expect("an object has metadata");
    for field in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"] {
        metadata.remove(field);
    }
    object.to_string()
}

/// That the server complained about this one field, among other things in these words, or not at all. It goes on where
/// the offline validation stops: an empty text breaks its rules too, and what is no object has no replicas to scale.
fn expect_complaint(name: &str, said: &str, expected: Option<(&str, &str)>) -> Result<(), String> {
    let found = complaints(said);
    let as_expected = match expected {
        None => said.is_empty(),
        Some((blamed, words)) => {
            found.iter().all(|(field, _)| field.trim_start_matches('.').starts_with(blamed))
                && found.iter().any(|(field, message)| *field == blamed && message.contains(words))
        }
    };
    if as_expected { Ok(()) } else { Err(format!("{name}: expected {expected:?}, the server said {said:?}")) }
}

/// The fields and messages of a refusal: `The Integration "x" is invalid: spec.a: …`, or one line for each after a star.
fn complaints(said: &str) -> Vec<(&str, &str)> {
    let Some((_, list)) = said.split_once(" is invalid: ") else { return Vec::new() };
    list.lines()
        .filter_map(|line| line.trim_start_matches("* ").split_once(": "))
        // Errors of the shape keep the server from evaluating rules, and it says so.
        .filter(|(_, message)| !message.contains("some validation rules were not checked"))
        .collect()
}
