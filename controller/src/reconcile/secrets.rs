//! Reads the Secrets that an Integration refers to, all of them in its own namespace.
//!
//! A Secret is read when it is needed and not kept: the watch carries metadata only. Nothing of a value is in a problem.

use std::collections::{BTreeMap, BTreeSet};

use grapnel::secrets::Secrets;
use grapnel_crds::conditions::reason;
use grapnel_crds::{Integration, Secret, SecretRef, SecretValue, resolve_secret};
use k8s_openapi::api::core::v1::Secret as SecretObject;
use kube::api::Api;
use secrecy::zeroize::Zeroizing;

use crate::context::{CallError, Context};
use crate::status::Problem;

/// Why the secrets of an Integration are not known.
#[derive(Debug)]
pub enum Unresolved {
    /// What the condition tells.
    Problem(Problem),
    Call(CallError),
}

/// The names of all Secrets that an Integration refers to.
fn referenced(integration: &Integration) -> BTreeSet<&str> {
    references(integration).map(|secret_ref| secret_ref.name.as_str()).collect()
}

/// Whether an Integration refers to the Secret of that name.
pub fn refers_to(integration: &Integration, name: &str) -> bool {
    references(integration).any(|secret_ref| secret_ref.name == name)
}

/// Every reference of an Integration to a Secret.
pub fn references(integration: &Integration) -> impl Iterator<Item = &SecretRef> {
    let signing = integration.spec.destinations.iter().flat_map(|destination| destination.signing_refs());
    integration.spec.verification.secret_refs().chain(signing)
}

/// The secrets as the row holds them.
pub async fn resolve_secrets(ctx: &Context, integration: &Integration) -> Result<Secrets, Unresolved> {
    let namespace = integration.namespace_or_default();
    let api: Api<SecretObject> = Api::namespaced(ctx.client.clone(), &namespace);
    let mut secrets = Vec::new();
    for name in referenced(integration) {
        match ctx.api(api.get_opt(name)).await {
            Ok(Some(object)) => secrets.push(values(&namespace, name, object)),
            Ok(None) => {}
            Err(CallError::Api(kube::Error::Api(status))) if status.is_forbidden() => {
                let message = format!("the Secret {namespace}/{name} may not be read");
                return Err(Unresolved::Problem(Problem::passing(reason::SECRET_FORBIDDEN, message)));
            }
            Err(error) => return Err(Unresolved::Call(error)),
        }
    }
    collect(integration, &namespace, &secrets).map_err(Unresolved::Problem)
}

fn values(namespace: &str, name: &str, object: SecretObject) -> Secret {
    let data = object.data.unwrap_or_default();
    let values = data.into_iter().map(|(key, value)| (key, SecretValue::new(value.0))).collect();
    Secret { namespace: namespace.to_owned(), name: name.to_owned(), values }
}

fn collect(integration: &Integration, namespace: &str, secrets: &[Secret]) -> Result<Secrets, Problem> {
    let value = |secret_ref: &SecretRef| match resolve_secret(secret_ref, namespace, secrets) {
        Ok(value) => Ok(Zeroizing::new(value.expose().to_vec())),
        Err(error) => Err(Problem::stalled(error.reason(), error.to_string())),
    };
    let verification =
        integration.spec.verification.secret_refs().map(value).collect::<Result<Vec<_>, Problem>>()?;
    let mut signing = BTreeMap::new();
    for destination in &integration.spec.destinations {
        let keys = destination.signing_refs().map(value).collect::<Result<Vec<_>, Problem>>()?;
        if !keys.is_empty() {
            signing.insert(destination.name.clone(), keys);
        }
    }
    Ok(Secrets::new(verification.iter().map(|secret| &secret[..]), signing))
}
