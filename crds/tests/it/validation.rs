//! Every rule and every bound, by the tables, and properties of any object.

use std::collections::BTreeSet;

use grapnel_crds::{Document, FieldError, Integration, ParseError, parse_documents};
use proptest::prelude::*;
use serde_json::Value;

use crate::cases::{self, BASE};

/// Returns the errors of a manifest: those of parsing it, or else those of its validation.
fn problems(manifest: &str) -> Vec<FieldError> {
    match parse_documents(manifest) {
        Ok(documents) => documents.iter().flat_map(|document| integration(document).validate()).collect(),
        Err(ParseError::Documents(errors)) => errors.into_iter().flat_map(|error| error.errors).collect(),
        Err(error) => panic!("not read at all: {error}"),
    }
}

fn integration(document: &Document) -> &Integration {
    match document {
        Document::Integration(integration) => integration,
        Document::Secret(_) => panic!("a Secret"),
    }
}

fn read(manifest: &str) -> Integration {
    let documents = parse_documents(manifest).expect("the manifest can be read");
    integration(&documents[0]).clone()
}

#[test]
fn valid_objects_are_accepted() {
    for case in cases::valid() {
        assert_eq!(problems(&case.manifest()), [], "{}", case.name);
    }
}

#[test]
fn invalid_objects_are_rejected_with_their_one_error() {
    for case in cases::invalid().into_iter().chain(cases::unknown()) {
        let found: Vec<_> = problems(&case.manifest())
            .into_iter()
            .map(|error| (Some(error.field), Some(error.message)))
            .collect();
        assert_eq!(found, [(case.field, case.message)], "{}", case.name);
    }
}

/// Only the API server sees the object before a change, so only the definition has these rules.
#[test]
fn the_identity_of_an_object_cannot_be_changed() {
    let definition = serde_json::to_value(grapnel_crds::crd()).expect("serializable");
    let mut rules = BTreeSet::new();
    collect_update_rules(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "", &mut rules);
    let mut broken = BTreeSet::new();
    for update in cases::updates() {
        let (old, new) = (read(&update.old_manifest()), read(&update.new_manifest()));
        assert_eq!((old.validate(), new.validate()), (vec![], vec![]), "{}", update.name);
        let changed = [
            ("spec.provider", old.spec.provider != new.spec.provider),
            ("spec.route", old.route() != new.route()),
        ];
        let changed = changed.into_iter().find(|(_, changed)| *changed).map(|(field, _)| field);
        assert_eq!(update.field.as_deref(), changed, "{}", update.name);
        broken.extend(update.field.zip(update.message));
    }
    assert_eq!(broken, rules, "the fields that must not change, with the messages of their rules");
}

/// Collects the rules that compare an object with the one before, by the field that they report.
fn collect_update_rules(schema: &Value, path: &str, rules: &mut BTreeSet<(String, String)>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let text = |name: &str| rule[name].as_str().unwrap_or_default();
        if text("rule").contains("oldSelf") {
            let field = format!("{path}{}", text("fieldPath"));
            rules.insert((field.trim_start_matches('.').to_owned(), text("message").to_owned()));
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        collect_update_rules(property, &format!("{path}.{name}"), rules);
    }
}

#[test]
fn every_rule_of_the_schema_is_broken_by_a_case() {
    let mut rules = BTreeSet::new();
    collect_messages(&serde_json::to_value(grapnel_crds::crd()).expect("serializable"), &mut rules);
    let updates = cases::updates().into_iter().filter_map(|update| update.message);
    let cases = cases::invalid();
    let messages = cases.iter().filter_map(|case| case.server_message().map(str::to_owned));
    let covered: BTreeSet<String> = messages.chain(updates).collect();
    let uncovered: Vec<_> = rules.difference(&covered).collect();
    assert!(rules.len() > 20, "the rules were found");
    assert!(uncovered.is_empty(), "rules without a case: {uncovered:#?}");
}

fn collect_messages(value: &Value, messages: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for rule in fields.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten()
            {
                messages.insert(rule["message"].as_str().expect("every rule has a message").to_owned());
            }
            fields.values().for_each(|field| collect_messages(field, messages));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_messages(item, messages)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn all_problems_of_an_object_are_reported_together() {
    let mut integration = read(BASE);
    integration.spec.provider = "ACME".to_owned();
    integration.spec.drain_timeout_seconds = -1;
    integration.spec.destinations[0].url = Some("ftp://user@host:0#x".to_owned());
    let fields: Vec<_> = integration.validate().into_iter().map(|error| error.field).collect();
    let url = "spec.destinations[0].url";
    assert_eq!(fields, ["spec.drainTimeoutSeconds", "spec.provider", url, url, url, url]);
}

proptest! {
    #[test]
    fn a_url_that_is_accepted_is_called_as_it_is_written(
        url in "(https?://[-a-z0-9.xX]{1,12}(:[0-9]{0,6})?([/?][-a-z0-9._:@%#\\\\é]{0,8})?|(https?)?[:/@.#\\\\a0-9 ]{0,16})"
    ) {
        let mut integration = read(BASE);
        integration.spec.destinations[0].url = Some(url.clone());
        if integration.validate().is_empty() {
            let parsed = url::Url::parse(&url).expect("an accepted URL can be called");
            prop_assert!(parsed.username().is_empty() && parsed.password().is_none() && parsed.fragment().is_none());
            let authority = url.split(['/', '?']).nth(2).expect("an accepted URL has a host");
            let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
            prop_assert_eq!(parsed.host_str().map(str::to_owned), Some(host.to_ascii_lowercase()));
            prop_assert!(port.is_empty() || port.parse().ok() == parsed.port_or_known_default());
        }
    }

    #[test]
    fn any_text_in_any_field_is_validated_without_a_panic(text in "\\PC{0,80}", number in any::<i32>()) {
        let mut integration = read(BASE);
        integration.metadata.name = Some(text.clone());
        integration.spec.provider = text.clone();
        integration.spec.verification.secret_ref.name = text.clone();
        integration.spec.destinations[0].url = Some(text.clone());
        integration.spec.destinations[0].timeout_seconds = number;
        integration.spec.workers.scaling.min_replicas = number;
        integration.spec.workers.pod_labels.insert(text.clone(), text.clone());
        integration.spec.workers.resources.requests = Some([("cpu".to_owned(), text)].into());
        integration.validate();
        integration.spec.destinations[0].timeout();
    }
}
