//! Reads the Secrets that an Integration refers to, all of them in its own namespace.
//!
//! A Secret is read when it is needed and not kept: the watch carries metadata only. No problem contains any part of a
//! value.

use std::collections::{BTreeMap, BTreeSet};

use grapnel_core::secrets::IntegrationSecrets;
use grapnel_crds::conditions::reason;
use grapnel_crds::{
    Integration, Secret, SecretError, SecretRef, SecretValue, permits_destinations, resolve_secret,
    resolve_sent_secret, white_space_warning,
};
use k8s_openapi::api::core::v1::Secret as SecretObject;
use kube::api::Api;
use secrecy::zeroize::Zeroizing;

use crate::context::Context;
use crate::error::CallError;
use crate::report::observation::StepProblem;

/// Why the secrets of an Integration could not be resolved.
#[derive(Debug)]
pub enum SecretResolutionError {
    /// To be reported in the condition.
    Problem(StepProblem),
    Call(CallError),
}

/// The secrets of an Integration.
pub struct ResolvedSecrets {
    pub secrets: IntegrationSecrets,
    /// A warning about a secret that can be used but is probably not what was meant.
    pub warning: Option<String>,
}

/// Returns whether an Integration refers to the Secret of that name.
pub fn refers_to(integration: &Integration, name: &str) -> bool {
    references(integration).iter().any(|secret_ref| secret_ref.name == name)
}

/// Returns every reference of an Integration to a Secret.
pub fn references(integration: &Integration) -> Vec<SecretRef> {
    let verification = &integration.spec.verification;
    let mut references: Vec<_> =
        verification.secret_refs().chain(&verification.verify_token_ref).cloned().collect();
    for destination in &integration.spec.destinations {
        references.extend(destination.signing_refs().cloned());
        references.extend(destination.sent_refs().into_iter().map(|(_, secret_ref)| secret_ref));
    }
    references
}

/// Reads all Secrets of an Integration and resolves its references.
pub async fn resolve_secrets(
    ctx: &Context,
    integration: &Integration,
) -> Result<ResolvedSecrets, SecretResolutionError> {
    let namespace = integration.namespace_or_default();
    let api: Api<SecretObject> = Api::namespaced(ctx.client.clone(), &namespace);
    let mut secrets = Vec::new();
    for name in referenced_names(integration) {
        match ctx.api(api.get_opt(&name)).await {
            Ok(Some(object)) => secrets.push(values(&namespace, &name, object)),
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
fn referenced_names(integration: &Integration) -> BTreeSet<String> {
    references(integration).into_iter().map(|secret_ref| secret_ref.name).collect()
}

fn values(namespace: &str, name: &str, object: SecretObject) -> Secret {
    let data = object.data.unwrap_or_default();
    let values = data.into_iter().map(|(key, value)| (key, SecretValue::new(value.0))).collect();
    let permits_destinations = permits_destinations(object.metadata.labels.iter().flatten());
    Secret { namespace: namespace.to_owned(), name: name.to_owned(), permits_destinations, values }
}

fn collect(
    integration: &Integration,
    namespace: &str,
    secrets: &[Secret],
) -> Result<ResolvedSecrets, StepProblem> {
    let mut warning = None;
    let mut take = |secret_ref: &SecretRef, found: Result<&[u8], SecretError>| match found {
        Ok(value) => {
            let name = format!("the key {} of the Secret {namespace}/{}", secret_ref.key, secret_ref.name);
            warning = warning.take().or_else(|| white_space_warning(&name, value));
            Ok(Zeroizing::new(value.to_vec()))
        }
        Err(error) => Err(StepProblem::stalled(error.reason(), error.to_string())),
    };
    let mut sent = Vec::new();
    for (_, secret_ref) in
        integration.spec.destinations.iter().flat_map(|destination| destination.sent_refs())
    {
        let value = take(&secret_ref, resolve_sent_secret(&secret_ref, namespace, secrets))?;
        sent.push((secret_ref, value));
    }
    let mut value = |secret_ref: &SecretRef| take(secret_ref, resolve_secret(secret_ref, namespace, secrets));
    let verification = integration
        .spec
        .verification
        .secret_refs()
        .map(&mut value)
        .collect::<Result<Vec<_>, StepProblem>>()?;
    let verify_token = integration.spec.verification.verify_token_ref.as_ref().map(&mut value).transpose()?;
    let mut signing = BTreeMap::new();
    for destination in &integration.spec.destinations {
        let keys = destination.signing_refs().map(&mut value).collect::<Result<Vec<_>, StepProblem>>()?;
        if !keys.is_empty() {
            signing.insert(destination.name.clone(), keys);
        }
    }
    let verify_token = verify_token.as_ref().map(|token| &token[..]);
    let verification = verification.iter().map(|secret| &secret[..]);
    let secrets = IntegrationSecrets::new(verification, signing, verify_token).with_sent(sent);
    Ok(ResolvedSecrets { secrets, warning })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(secret: &str) -> ResolvedSecrets {
        let integration = serde_json::from_value(serde_json::json!({
            "apiVersion": grapnel_crds::API_VERSION, "kind": grapnel_crds::KIND,
            "metadata": {"name": "orders", "namespace": "shop"},
            "spec": {
                "provider": "acme", "verification": {"secretRef": {"name": "acme", "key": "incoming"}},
                "destinations": [{"name": "orders", "url": "https://orders.example.com/"}],
            },
        }));
        let values = [("incoming".to_owned(), SecretValue::new(secret.into()))].into();
        let (namespace, name) = ("shop".to_owned(), "acme".to_owned());
        let secret = Secret { namespace, name, permits_destinations: false, values };
        collect(&integration.expect("an Integration"), "shop", &[secret]).expect("it has a value")
    }

    #[test]
    fn one_line_end_is_dropped_and_other_white_space_is_reported() {
        for (written, secret, is_doubtful) in [
            ("a", "a", false),
            ("a\n", "a", false),
            ("a\r\n", "a", false),
            ("a\n\n", "a\n", true),
            (" a", " a", true),
        ] {
            let resolved = collected(written);
            let verification = resolved.secrets.verification().expect("secrets");
            assert_eq!(verification[0].as_slice(), secret.as_bytes(), "{written:?}");
            assert_eq!(resolved.warning.is_some(), is_doubtful, "{written:?}");
        }
        let warning = collected("a ").warning.expect("a warning");
        assert!(warning.starts_with("the key incoming of the Secret shop/acme "), "{warning}");
    }
}
