//! Integrations and Secrets from YAML files, for use without Kubernetes: the same manifests that `kubectl apply` takes.
//!
//! A set of files is valid as a whole or not at all. All mistakes in it are reported at once, with the file, the object and
//! the field.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use grapnel_crds::{
    Document, Integration, IntegrationSpec, Secret, SecretError, SecretRef, parse_documents, resolve_secret,
    resolve_sent_secret, white_space_warning,
};
use secrecy::zeroize::Zeroizing;

use crate::compiled_provider::CompiledProvider;
use crate::delivery::signing::SigningKey;
use crate::filter;
use crate::integration::check_sent;
use crate::resolved_provider;
use crate::secrets::IntegrationSecrets;

/// An Integration from a file with its secrets resolved.
pub struct DesiredIntegration {
    pub object: Integration,
    pub secrets: IntegrationSecrets,
}

type SecretBytes = Zeroizing<Vec<u8>>;

/// The signing secrets by destination.
type SigningSecrets = BTreeMap<String, Vec<SecretBytes>>;

/// The errors of a set of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestErrors(pub Vec<String>);

impl fmt::Display for ManifestErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ManifestErrors {}

/// Parses and checks a set of files and resolves the secrets of its Integrations.
pub fn parse(texts: &BTreeMap<PathBuf, String>) -> Result<Vec<DesiredIntegration>, ManifestErrors> {
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
    errors.extend(duplicate_errors(&integrations));
    let mut desired = Vec::new();
    for (path, object) in integrations {
        match check(&object, &secrets) {
            Ok(secrets) => desired.push(DesiredIntegration { object, secrets }),
            Err(problems) => {
                let name = display_name(&object);
                errors.extend(
                    problems.into_iter().map(|problem| format!("{}: {name}: {problem}", path.display())),
                );
            }
        }
    }
    if errors.is_empty() { Ok(desired) } else { Err(ManifestErrors(errors)) }
}

/// Returns an error for each object whose name or route an earlier object has.
fn duplicate_errors(integrations: &[(&PathBuf, Integration)]) -> Vec<String> {
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

/// Checks one object and resolves its secrets. Each problem names its field.
fn check(object: &Integration, secrets: &[Secret]) -> Result<IntegrationSecrets, Vec<String>> {
    let spec = &object.spec;
    let mut problems: Vec<String> = object.validate().iter().map(ToString::to_string).collect();
    let provider_errors = resolved_provider::errors(spec, problems.is_empty());
    problems.extend(provider_errors.iter().map(ToString::to_string));
    problems.extend(filter::errors(spec).iter().map(ToString::to_string));
    problems.extend(service_problems(spec));
    let ResolvedSecrets { verification, verify_token, signing, sent } =
        resolve_secrets(object, secrets, &mut problems);
    problems.extend(signing_key_problems(spec, &signing));
    let verify_token = verify_token.as_ref().map(|token| &token[..]);
    if problems.is_empty() {
        match CompiledProvider::new(spec, &verification, verify_token) {
            Ok(compiled) => {
                if let Some(warning) = compiled.verifier.warning() {
                    tracing::warn!(integration.name = %object.route(), "{warning}");
                }
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    let verification = verification.iter().map(|secret| &secret[..]);
    let secrets = IntegrationSecrets::new(verification, signing, verify_token).with_sent(sent);
    if problems.is_empty() {
        problems.extend(sent_problems(spec, &secrets));
    }
    if problems.is_empty() { Ok(secrets) } else { Err(problems) }
}

/// Returns an error for each destination whose receiver is known in a cluster only.
fn service_problems(spec: &IntegrationSpec) -> impl Iterator<Item = String> {
    let services =
        spec.destinations.iter().enumerate().filter(|(_, destination)| destination.service.is_some());
    services.map(|(index, _)| {
        format!(
            "spec.destinations[{index}].service: a Service needs the controller, which follows its pods; without a cluster use url"
        )
    })
}

/// The secrets of one object.
struct ResolvedSecrets {
    verification: Vec<SecretBytes>,
    verify_token: Option<SecretBytes>,
    signing: SigningSecrets,
    /// What destinations send, by its references.
    sent: Vec<(SecretRef, SecretBytes)>,
}

/// Returns the secrets, and reports those that cannot be resolved.
fn resolve_secrets(object: &Integration, secrets: &[Secret], problems: &mut Vec<String>) -> ResolvedSecrets {
    let namespace = object.namespace_or_default();
    let mut take = |field: String, found: Result<&[u8], SecretError>| match found {
        Ok(value) => {
            if let Some(warning) = white_space_warning(&field, value) {
                tracing::warn!(integration.name = %object.route(), "{warning}");
            }
            Some(Zeroizing::new(value.to_vec()))
        }
        Err(error) => {
            problems.push(format!("{field}: {error}"));
            None
        }
    };
    let mut sent = Vec::new();
    for (index, destination) in object.spec.destinations.iter().enumerate() {
        for (field, secret_ref) in destination.sent_refs() {
            let found = resolve_sent_secret(&secret_ref, &namespace, secrets);
            let value = take(format!("spec.destinations[{index}].{field}"), found);
            sent.extend(value.map(|value| (secret_ref, value)));
        }
    }
    let mut resolve =
        |field: String, secret_ref: &SecretRef| take(field, resolve_secret(secret_ref, &namespace, secrets));
    let mut verification = Vec::new();
    for (index, secret_ref) in object.spec.verification.secret_refs().enumerate() {
        let field = match index.checked_sub(1) {
            None => "spec.verification.secretRef".to_owned(),
            Some(previous) => format!("spec.verification.previousSecretRefs[{previous}]"),
        };
        verification.extend(resolve(field, secret_ref));
    }
    let verify_token = object.spec.verification.verify_token_ref.as_ref();
    let verify_token =
        verify_token.and_then(|token| resolve("spec.verification.verifyTokenRef".to_owned(), token));
    let mut signing = SigningSecrets::new();
    for (index, destination) in object.spec.destinations.iter().enumerate() {
        for secret_ref in destination.signing_refs() {
            let field = format!("spec.destinations[{index}].signingSecretRef");
            signing.entry(destination.name.clone()).or_default().extend(resolve(field, secret_ref));
        }
    }
    ResolvedSecrets { verification, verify_token, signing, sent }
}

fn signing_key_problems(spec: &IntegrationSpec, signing: &SigningSecrets) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, destination) in spec.destinations.iter().enumerate() {
        for secret in signing.get(&destination.name).into_iter().flatten() {
            let key = std::str::from_utf8(secret).map(SigningKey::parse);
            let problem = match key {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the signing secret is not valid UTF-8".to_owned(),
            };
            problems.push(format!("spec.destinations[{index}].signingSecretRef: {problem}"));
        }
    }
    problems
}

/// Returns what is wrong with the values that destinations send.
fn sent_problems(spec: &IntegrationSpec, secrets: &IntegrationSecrets) -> Vec<String> {
    let destinations = spec.destinations.iter().enumerate();
    destinations
        .filter_map(|(index, destination)| {
            let error = check_sent(destination, secrets).err()?;
            Some(format!("spec.destinations[{index}]: {error}"))
        })
        .collect()
}

#[cfg(test)]
mod tests;
