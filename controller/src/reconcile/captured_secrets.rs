//! Puts a secret that a handshake captured into the Secret that the Integration names, if the owner of the Secret
//! consents.
//!
//! Invariants: a Secret is written only if it carries the annotation for it, and the write removes the annotation, so
//! one consent is valid for one secret; the write is rejected if the Secret has changed since it was read; the captured
//! secret is deleted only after it has been written. Every action may run twice: a Secret that already has the value
//! needs no consent. No condition, Event or log line contains any part of a value.

use grapnel_crds::conditions::reason;
use grapnel_crds::names::CAPTURE_ANNOTATION;
use grapnel_crds::{Integration, SecretRef};
use grapnel_store::captured_secrets::{self as rows, CapturedSecret};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::EventType;
use secrecy::ExposeSecret;
use serde_json::json;

use crate::context::{Context, MANAGER};
use crate::error::CallError;
use crate::object::{integration_id, whole_seconds};
use crate::report::events;
use crate::report::observation::{CaptureStatus, Observation, StepProblem};

/// Writes or discards a captured secret, or reports what it is waiting for.
pub async fn settle(
    ctx: &Context,
    integration: &Integration,
    observed: &mut Observation,
) -> Result<(), CallError> {
    let id = integration_id(integration);
    let pending = ctx.memory.with(id, |memory| memory.secrets.as_ref().map(|found| found.capture_pending));
    observed.capture = match pending {
        None => CaptureStatus::Unknown,
        Some(false) => CaptureStatus::NonePending,
        Some(true) => settle_pending(ctx, integration).await?,
    };
    Ok(())
}

async fn settle_pending(ctx: &Context, integration: &Integration) -> Result<CaptureStatus, CallError> {
    let id = integration_id(integration);
    let Some(row) = ctx.database(rows::find(&ctx.db, id)).await? else {
        return Ok(mark_settled(ctx, integration));
    };
    let target = CaptureTarget::new(integration, &row);
    let value = match ctx.keys.open(id.as_bytes(), &row.sealed) {
        Ok(value) => value,
        Err(error) => {
            let message = format!("{}; it cannot be decrypted: {error}", target.origin());
            return Ok(CaptureStatus::Pending(StepProblem::transient(reason::CAPTURE_UNREADABLE, message)));
        }
    };
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &target.namespace);
    let found = match ctx.api(secrets.get_opt(&target.secret_ref.name)).await {
        Ok(found) => found,
        Err(CallError::Api(kube::Error::Api(status))) if status.is_forbidden() => {
            return Ok(CaptureStatus::Pending(target.forbidden("read")));
        }
        Err(error) => return Err(error),
    };
    let action = action(found.as_ref(), target.secret_ref, value.expose_secret());
    if let (CaptureAction::Write | CaptureAction::Discard, Some(found)) = (action, &found) {
        let value = (action == CaptureAction::Write).then(|| value.expose_secret());
        if let Some(problem) = write(ctx, &secrets, found, &target, value).await? {
            return Ok(CaptureStatus::Pending(problem));
        }
    }
    match action {
        CaptureAction::AwaitSecret => Ok(CaptureStatus::Pending(target.secret_missing())),
        CaptureAction::AwaitConsent => Ok(CaptureStatus::Pending(target.consent_missing())),
        CaptureAction::Write | CaptureAction::Discard | CaptureAction::Delete => {
            ctx.database(rows::delete(&ctx.db, &row)).await?;
            publish_settled(ctx, integration, &target, action).await;
            Ok(mark_settled(ctx, integration))
        }
    }
}

/// The action for a captured secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CaptureAction {
    /// The Secret does not exist.
    AwaitSecret,
    /// The owner of the Secret has not decided.
    AwaitConsent,
    Write,
    Discard,
    /// The Secret already has the value, by our write or someone else's.
    Delete,
}

fn action(secret: Option<&Secret>, secret_ref: &SecretRef, value: &[u8]) -> CaptureAction {
    let Some(secret) = secret else { return CaptureAction::AwaitSecret };
    match secret.annotations().get(CAPTURE_ANNOTATION).map(String::as_str) {
        Some("true") => return CaptureAction::Write,
        Some("discard") => return CaptureAction::Discard,
        _ => {}
    }
    let present = secret.data.as_ref().and_then(|data| data.get(&secret_ref.key));
    let is_written = present.is_some_and(|present| present.0 == value);
    if is_written { CaptureAction::Delete } else { CaptureAction::AwaitConsent }
}

/// Removes the annotation, with the value or without; returns why the API server rejected the change.
async fn write(
    ctx: &Context,
    secrets: &Api<Secret>,
    found: &Secret,
    target: &CaptureTarget<'_>,
    value: Option<&[u8]>,
) -> Result<Option<StepProblem>, CallError> {
    ctx.ensure_leading()?;
    let mut patch = json!({"metadata": {
        // A Secret that was edited meanwhile is read again first.
        "resourceVersion": found.metadata.resource_version,
        "annotations": {CAPTURE_ANNOTATION: null},
    }});
    if let Some(value) = value {
        patch["data"] = json!({target.secret_ref.key.as_str(): ByteString(value.to_vec())});
    }
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match ctx.api(secrets.patch(&target.secret_ref.name, &parameters, &Patch::Merge(&patch))).await {
        Ok(_) => Ok(None),
        Err(CallError::Api(kube::Error::Api(status))) if status.is_forbidden() => {
            Ok(Some(target.forbidden("write")))
        }
        // For example if the Secret is immutable.
        Err(CallError::Api(kube::Error::Api(status))) if matches!(status.code, 400 | 422) => {
            let message =
                format!("{}; the API server rejects the change: {}", target.origin(), status.message);
            Ok(Some(StepProblem::transient(reason::SECRET_REJECTED, message)))
        }
        Err(error) => Err(error),
    }
}

/// The rest of the pass reads the Secret again, and registers its new value.
fn mark_settled(ctx: &Context, integration: &Integration) -> CaptureStatus {
    ctx.memory.with(integration_id(integration), |memory| {
        memory.registration.note_secret_change();
        if let Some(found) = &mut memory.secrets {
            found.capture_pending = false;
        }
    });
    CaptureStatus::NonePending
}

async fn publish_settled(
    ctx: &Context,
    integration: &Integration,
    target: &CaptureTarget<'_>,
    action: CaptureAction,
) {
    let (SecretRef { name, key }, origin) = (target.secret_ref, target.origin());
    let (reason, note) = match action {
        CaptureAction::Discard => {
            (events::CAPTURE_DISCARDED, format!("{origin}; it was discarded, as the Secret asks"))
        }
        _ => (events::SECRET_CAPTURED, format!("{origin}; it is now in the Secret {name} (key {key})")),
    };
    tracing::info!(integration.id = %integration_id(integration), reason, "a captured secret is no longer pending");
    let event = events::event(EventType::Normal, "Capture", reason, &note);
    events::publish(&ctx.recorder, integration, &[event]).await;
}

/// Where a captured secret belongs, and the messages about it.
struct CaptureTarget<'a> {
    namespace: String,
    secret_ref: &'a SecretRef,
    row: &'a CapturedSecret,
}

impl<'a> CaptureTarget<'a> {
    fn new(integration: &'a Integration, row: &'a CapturedSecret) -> Self {
        let namespace = integration.namespace_or_default();
        Self { namespace, secret_ref: &integration.spec.verification.secret_ref, row }
    }

    /// The first half of every message.
    fn origin(&self) -> String {
        let (handshake, time) = (&self.row.handshake, whole_seconds(self.row.captured_at));
        format!("the handshake {handshake} delivered a secret at {time}")
    }

    fn consent_missing(&self) -> StepProblem {
        let (origin, SecretRef { name, key }) = (self.origin(), self.secret_ref);
        let message = format!(
            "{origin}: annotate the Secret {name} with {CAPTURE_ANNOTATION}=true to store it there (key {key}), or with \
             {CAPTURE_ANNOTATION}=discard to discard it"
        );
        StepProblem::stalled(reason::CONSENT_MISSING, message)
    }

    fn secret_missing(&self) -> StepProblem {
        let (origin, SecretRef { name, key }) = (self.origin(), self.secret_ref);
        let message = format!(
            "{origin}: create the Secret {name} with any text under the key {key}, and annotate it with \
             {CAPTURE_ANNOTATION}=true"
        );
        StepProblem::stalled(reason::SECRET_NOT_FOUND, message)
    }

    fn forbidden(&self, verb: &str) -> StepProblem {
        let (origin, namespace, name) = (self.origin(), &self.namespace, &self.secret_ref.name);
        let message = format!(
            "{origin}; the controller is not allowed to {verb} the Secret {namespace}/{name}: the chart grants the right \
             with controller.captureSecrets"
        );
        StepProblem::transient(reason::SECRET_FORBIDDEN, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(annotation: Option<&str>, value: &str) -> Secret {
        let mut secret = Secret::default();
        secret
            .annotations_mut()
            .extend(annotation.map(|text| (CAPTURE_ANNOTATION.to_owned(), text.to_owned())));
        secret.data = Some([("secret".to_owned(), ByteString(value.into()))].into());
        secret
    }

    #[test]
    fn a_secret_is_written_only_with_consent() {
        let secret_ref = SecretRef { name: "asana".to_owned(), key: "secret".to_owned() };
        let check = |annotation, value, expected| {
            assert_eq!(
                action(Some(&secret(annotation, value)), &secret_ref, b"captured"),
                expected,
                "{annotation:?}"
            );
        };
        assert_eq!(action(None, &secret_ref, b"captured"), CaptureAction::AwaitSecret);
        check(None, "placeholder", CaptureAction::AwaitConsent);
        check(Some("false"), "placeholder", CaptureAction::AwaitConsent);
        check(Some("True"), "placeholder", CaptureAction::AwaitConsent);
        check(Some("true"), "placeholder", CaptureAction::Write);
        check(Some("discard"), "placeholder", CaptureAction::Discard);
        // After a crash that followed the write; and a consent that would otherwise be left over.
        check(None, "captured", CaptureAction::Delete);
        check(Some("true"), "captured", CaptureAction::Write);
    }
}
