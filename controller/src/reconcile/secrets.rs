//! Reads the Secrets that an Integration refers to, all of them in its own namespace.
//!
//! A Secret is read when it is needed and not kept: the watch carries metadata only. No problem contains any part of a
//! value.

use std::collections::{BTreeMap, BTreeSet};

use grapnel_core::secrets::IntegrationSecrets;
use grapnel_crds::conditions::reason;
use grapnel_crds::{Integration, Secret, SecretRef, SecretValue, resolve_secret};
use k8s_openapi::api::core::v1::Secret as SecretObject;
use kube::api::Api;
use secrecy::zeroize::Zeroizing;

use crate::context::Context;
use crate::error::CallError;
use crate::report::status::StepProblem;

/// Why the secrets of an Integration could not be resolved.
#[derive(Debug)]
pub enum SecretResolutionError {
    /// To be reported in the condition.
    Problem(StepProblem),
    Call(CallError),
}

/// Returns whether an Integration refers to the Secret of that name.
pub fn refers_to(integration: &Integration, name: &str) -> bool {
    references(integration).any(|secret_ref| secret_ref.name == name)
}

/// Returns every reference of an Integration to a Secret.
pub fn references(integration: &Integration) -> impl Iterator<Item = &SecretRef> {
    let signing = integration.spec.destinations.iter().flat_map(|destination| destination.signing_refs());
    integration.spec.verification.secret_refs().chain(signing)
}

/// Reads all Secrets of an Integration and resolves its references.
pub async fn resolve_secrets(
    ctx: &Context,
    integration: &Integration,
) -> Result<IntegrationSecrets, SecretResolutionError> {
    let namespace = integration.namespace_or_default();
    let api: Api<SecretObject> = Api::namespaced(ctx.client.clone(), &namespace);
    let mut secrets = Vec::new();
    for name in referenced_names(integration) {
        match ctx.api(api.get_opt(name)).await {
            Ok(Some(object)) => secrets.push(values(&namespace, name, object)),
            Ok(None) => {}
            Err(CallError::Api(kube::Error::Api(status))) if status.is_forbidden() => {
                let message = format!("the controller is not allowed to read the Secret {namespace}/{name}");
                return Err(SecretResolutionError::Problem(StepProblem::transient(
                    reason::SECRET_FORBIDDEN,
                    message,
                )));
            }
            Err(error) => return Err(SecretResolutionError::Call(error)),
        }
    }
    collect(integration, &namespace, &secrets).map_err(SecretResolutionError::Problem)
}

/// Returns the names of all Secrets that an Integration refers to.
fn referenced_names(integration: &Integration) -> BTreeSet<&str> {
    references(integration).map(|secret_ref| secret_ref.name.as_str()).collect()
}

fn values(namespace: &str, name: &str, object: SecretObject) -> Secret {
    let data = object.data.unwrap_or_default();
    let values = data.into_iter().map(|(key, value)| (key, SecretValue::new(value.0))).collect();
    Secret { namespace: namespace.to_owned(), name: name.to_owned(), values }
}

fn collect(
    integration: &Integration,
    namespace: &str,
    secrets: &[Secret],
) -> Result<IntegrationSecrets, StepProblem> {
    let value = |secret_ref: &SecretRef| match resolve_secret(secret_ref, namespace, secrets) {
        Ok(value) => Ok(Zeroizing::new(value.expose().to_vec())),
        Err(error) => Err(StepProblem::stalled(error.reason(), error.to_string())),
    };
    let verification =
        integration.spec.verification.secret_refs().map(value).collect::<Result<Vec<_>, StepProblem>>()?;
    let mut signing = BTreeMap::new();
    for destination in &integration.spec.destinations {
        let keys = destination.signing_refs().map(value).collect::<Result<Vec<_>, StepProblem>>()?;
        if !keys.is_empty() {
            signing.insert(destination.name.clone(), keys);
        }
    }
    Ok(IntegrationSecrets::new(verification.iter().map(|secret| &secret[..]), signing))
}
