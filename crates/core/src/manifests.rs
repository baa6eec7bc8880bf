//! Integrations and Secrets from YAML files, for use without Kubernetes: what `kubectl apply` takes.
//!
//! A set of files is good as a whole or not at all, and every mistake in it is told at once, with the file, the object
//! and the field.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use grapnel_crds::{Document, Integration, Secret, SecretRef, parse_documents, resolve_secret};
use secrecy::zeroize::Zeroizing;

use crate::compiled_provider::Compiled;
use crate::delivery::signing::SigningKey;
use crate::preset;
use crate::secrets::Secrets;

/// An Integration of a file with its secrets resolved.
pub struct Desired {
    pub object: Integration,
    pub secrets: Secrets,
}

/// All that is wrong with a set of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileErrors(pub Vec<String>);

impl fmt::Display for FileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for FileErrors {}

/// Parses and checks a set of files and resolves the secrets of its Integrations.
pub fn parse(texts: &BTreeMap<PathBuf, String>) -> Result<Vec<Desired>, FileErrors> {
    let (mut integrations, mut secrets, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for (path, text) in texts {
        match parse_documents(text) {
            Ok(documents) => {
                for document in documents {
                    match document {
                        Document::Integration(object) => integrations.push((path, *object)),
                        Document::Secret(secret) => secrets.push(secret),
                    }
                }
            }
            Err(error) => errors.push(format!("{}: {error}", path.display())),
        }
    }
    errors.extend(taken_twice(&integrations));
    let mut desired = Vec::new();
    for (path, object) in integrations {
        match check(&object, &secrets) {
            Ok(secrets) => desired.push(Desired { object, secrets }),
            Err(problems) => {
                let name = display_name(&object);
                errors.extend(
                    problems.into_iter().map(|problem| format!("{}: {name}: {problem}", path.display())),
                );
            }
        }
    }
    if errors.is_empty() { Ok(desired) } else { Err(FileErrors(errors)) }
}

/// Two objects of a set cannot have one name or one route.
fn taken_twice(integrations: &[(&PathBuf, Integration)]) -> Vec<String> {
    let (mut names, mut routes, mut errors) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for (path, object) in integrations {
        let name = display_name(object);
        if !names.insert(name.clone()) {
            errors.push(format!("{}: {name} is defined twice", path.display()));
        }
        if !routes.insert(object.route().to_owned()) {
            errors.push(format!(
                "{}: {name}: spec.route: {} belongs to another Integration",
                path.display(),
                object.route()
            ));
        }
    }
    errors
}

fn display_name(object: &Integration) -> String {
    format!(
        "Integration {}/{}",
        object.namespace_or_default(),
        object.metadata.name.as_deref().unwrap_or_default()
    )
}

/// Checks one object and resolves its secrets; each problem names its field.
fn check(object: &Integration, secrets: &[Secret]) -> Result<Secrets, Vec<String>> {
    let mut problems: Vec<String> = object.validate().iter().map(ToString::to_string).collect();
    let spec = &object.spec;
    problems.extend(preset::problems(spec, problems.is_empty()).iter().map(ToString::to_string));
    let namespace = object.namespace_or_default();
    let mut resolve =
        |field: String, secret_ref: &SecretRef| match resolve_secret(secret_ref, &namespace, secrets) {
            Ok(value) => Some(Zeroizing::new(value.expose().to_vec())),
            Err(error) => {
                problems.push(format!("{field}: {error}"));
                None
            }
        };
    let mut verification = Vec::new();
    for (index, secret_ref) in spec.verification.secret_refs().enumerate() {
        let field = match index.checked_sub(1) {
            None => "spec.verification.secretRef".to_owned(),
            Some(previous) => format!("spec.verification.previousSecretRefs[{previous}]"),
        };
        verification.extend(resolve(field, secret_ref));
    }
    let mut signing: BTreeMap<String, Vec<Zeroizing<Vec<u8>>>> = BTreeMap::new();
    for (index, destination) in spec.destinations.iter().enumerate() {
        for secret_ref in destination.signing_refs() {
            let field = format!("spec.destinations[{index}].signingSecretRef");
            signing.entry(destination.name.clone()).or_default().extend(resolve(field, secret_ref));
        }
    }
    problems.extend(unusable_signing_keys(spec, &signing));
    if problems.is_empty() {
        match Compiled::new(spec, &verification) {
            Ok(compiled) => {
                if let Some(warning) = compiled.verifier.warning() {
                    tracing::warn!(integration.name = %object.route(), "{warning}");
                }
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    if problems.is_empty() {
        return Ok(Secrets::new(verification.iter().map(|secret| &secret[..]), signing));
    }
    Err(problems)
}

fn unusable_signing_keys(
    spec: &grapnel_crds::IntegrationSpec,
    signing: &BTreeMap<String, Vec<Zeroizing<Vec<u8>>>>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, destination) in spec.destinations.iter().enumerate() {
        for secret in signing.get(&destination.name).into_iter().flatten() {
            let key = std::str::from_utf8(secret).map(SigningKey::parse);
            let problem = match key {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the signing secret is not a text".to_owned(),
            };
            problems.push(format!("spec.destinations[{index}].signingSecretRef: {problem}"));
        }
    }
    problems
}
