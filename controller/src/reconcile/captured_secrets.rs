//! Puts a secret that a handshake captured into the Secret that the Integration names, where its owner lets us.
//!
//! What always holds: a Secret is written only when it carries the annotation for it, and the annotation goes with the
//! write, so one consent is good for one secret; the write is refused when the Secret has changed since it was read; the
//! captured secret is deleted only after it is there. Every step may run twice: a Secret that has the value already needs
//! no consent. Nothing of a value is in a condition, an Event or a log line.

use grapnel::store::captured::{self as rows, Captured as Row};
use grapnel_crds::conditions::reason;
use grapnel_crds::names::CAPTURE_ANNOTATION;
use grapnel_crds::{Integration, SecretRef};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::EventType;
use secrecy::ExposeSecret;
use serde_json::json;

use crate::context::{CallError, Context, MANAGER};
use crate::events;
use crate::status::{Captured, Problem, whole_seconds};

/// Puts it there, forgets it, or says what it waits for.
pub async fn settle(ctx: &Context, integration: &Integration) -> Result<Captured, CallError> {
    let id = integration.id();
    let waits = ctx.with_memory(id, |memory| memory.secrets.as_ref().map(|secrets| secrets.capture_waits));
    match waits {
        None => return Ok(Captured::Unknown),
        Some(false) => return Ok(Captured::Settled),
        Some(true) => {}
    }
    let Some(row) = ctx.database(rows::find(&ctx.pool, id)).await? else {
        return Ok(settled(ctx, integration));
    };
    let place = Place::of(integration, &row);
    let value = match ctx.keys.open(id.as_bytes(), &row.sealed) {
        Ok(value) => value,
        Err(error) => {
            let message = format!("{}; it cannot be opened: {error}", place.what());
            return Ok(Captured::Waiting(Problem::passing(reason::CAPTURE_UNREADABLE, message)));
        }
    };
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &place.namespace);
    let found = match ctx.api(secrets.get_opt(&place.secret_ref.name)).await {
        Ok(found) => found,
        Err(CallError::Api(kube::Error::Api(status))) if status.is_forbidden() => {
            return Ok(Captured::Waiting(Problem::passing(reason::SECRET_FORBIDDEN, place.may_not("read"))));
        }
        Err(error) => return Err(error),
    };
    let step = step(found.as_ref(), place.secret_ref, value.expose_secret());
    if let (Step::Put | Step::Discard, Some(found)) = (step, &found) {
        let value = (step == Step::Put).then(|| value.expose_secret());
        if let Some(problem) = write(ctx, &secrets, found, &place, value).await? {
            return Ok(Captured::Waiting(problem));
        }
    }
    match step {
        Step::Create => Ok(Captured::Waiting(Problem::stalled(reason::SECRET_NOT_FOUND, place.create()))),
        Step::Ask => Ok(Captured::Waiting(Problem::stalled(reason::CONSENT_MISSING, place.ask()))),
        Step::Put | Step::Discard | Step::Forget => {
            ctx.database(rows::delete(&ctx.pool, &row)).await?;
            tell(ctx, integration, &place, step).await;
            Ok(settled(ctx, integration))
        }
    }
}

/// What is to be done with a captured secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There is no Secret.
    Create,
    /// The owner of the Secret has not said anything.
    Ask,
    Put,
    Discard,
    /// It is there already, by our write or somebody else's.
    Forget,
}

fn step(secret: Option<&Secret>, secret_ref: &SecretRef, value: &[u8]) -> Step {
    let Some(secret) = secret else { return Step::Create };
    match secret.annotations().get(CAPTURE_ANNOTATION).map(String::as_str) {
        Some("true") => return Step::Put,
        Some("discard") => return Step::Discard,
        _ => {}
    }
    let there = secret.data.as_ref().and_then(|data| data.get(&secret_ref.key));
    if there.is_some_and(|there| there.0 == value) { Step::Forget } else { Step::Ask }
}

/// Takes the annotation off, with the value or without; answers why that was refused.
async fn write(
    ctx: &Context,
    secrets: &Api<Secret>,
    found: &Secret,
    place: &Place<'_>,
    value: Option<&[u8]>,
) -> Result<Option<Problem>, CallError> {
    ctx.leading()?;
    let mut patch = json!({"metadata": {
        // What was edited meanwhile is looked at first.
        "resourceVersion": found.metadata.resource_version,
        "annotations": {CAPTURE_ANNOTATION: null},
    }});
    if let Some(value) = value {
        patch["data"] = json!({place.secret_ref.key.as_str(): ByteString(value.to_vec())});
    }
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match ctx.api(secrets.patch(&place.secret_ref.name, &parameters, &Patch::Merge(&patch))).await {
        Ok(_) => Ok(None),
        Err(CallError::Api(kube::Error::Api(status))) if status.is_forbidden() => {
            Ok(Some(Problem::passing(reason::SECRET_FORBIDDEN, place.may_not("write"))))
        }
        // Such as for a Secret that is immutable.
        Err(CallError::Api(kube::Error::Api(status))) if matches!(status.code, 400 | 422) => {
            let message =
                format!("{}; the API server refuses to put it there: {}", place.what(), status.message);
            Ok(Some(Problem::passing(reason::SECRET_REJECTED, message)))
        }
        Err(error) => Err(error),
    }
}

/// The pass that goes on reads the Secret again, and registers what is in it now.
fn settled(ctx: &Context, integration: &Integration) -> Captured {
    ctx.with_memory(integration.id(), |memory| {
        memory.secret_changes = memory.secret_changes.wrapping_add(1);
        if let Some(secrets) = &mut memory.secrets {
            secrets.capture_waits = false;
        }
    });
    Captured::Settled
}

async fn tell(ctx: &Context, integration: &Integration, place: &Place<'_>, step: Step) {
    let SecretRef { name, key } = place.secret_ref;
    let (reason, note) = match step {
        Step::Discard => {
            (events::CAPTURE_DISCARDED, format!("{}; it was forgotten, as the Secret asks", place.what()))
        }
        _ => {
            (events::SECRET_CAPTURED, format!("{}; it is now in the Secret {name} (key {key})", place.what()))
        }
    };
    tracing::info!(integration.id = %integration.id(), reason, "a captured secret does not wait any more");
    events::publish(
        &ctx.recorder,
        integration,
        &[events::event(EventType::Normal, "Capture", reason, &note)],
    )
    .await;
}

/// Where a captured secret belongs, and the words about it.
struct Place<'a> {
    namespace: String,
    secret_ref: &'a SecretRef,
    row: &'a Row,
}

impl<'a> Place<'a> {
    fn of(integration: &'a Integration, row: &'a Row) -> Self {
        let namespace = integration.namespace_or_default();
        Self { namespace, secret_ref: &integration.spec.verification.secret_ref, row }
    }

    fn what(&self) -> String {
        let (handshake, at) = (&self.row.handshake, whole_seconds(self.row.captured_at));
        format!("the handshake {handshake} gave a secret at {at}")
    }

    fn ask(&self) -> String {
        let SecretRef { name, key } = self.secret_ref;
        format!(
            "{}: annotate the Secret {name} with {CAPTURE_ANNOTATION}=true to have it put there (key {key}), or with \
             {CAPTURE_ANNOTATION}=discard to have it forgotten",
            self.what()
        )
    }

    fn create(&self) -> String {
        let SecretRef { name, key } = self.secret_ref;
        format!(
            "{}: create the Secret {name} with any text under the key {key}, and annotate it with {CAPTURE_ANNOTATION}=true",
            self.what()
        )
    }

    fn may_not(&self, verb: &str) -> String {
        let (what, namespace, name) = (self.what(), &self.namespace, &self.secret_ref.name);
        format!(
            "{what}; the controller may not {verb} the Secret {namespace}/{name}: the chart gives the right with \
             controller.captureSecrets"
        )
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
    fn a_secret_is_written_with_consent_alone() {
        let place = SecretRef { name: "asana".to_owned(), key: "secret".to_owned() };
        let check = |annotation, value, expected| {
            assert_eq!(
                step(Some(&secret(annotation, value)), &place, b"captured"),
                expected,
                "{annotation:?}"
            );
        };
        assert_eq!(step(None, &place, b"captured"), Step::Create);
        check(None, "placeholder", Step::Ask);
        check(Some("false"), "placeholder", Step::Ask);
        check(Some("True"), "placeholder", Step::Ask);
        check(Some("true"), "placeholder", Step::Put);
        check(Some("discard"), "placeholder", Step::Discard);
        // The write before a crash; and a consent that would be left over.
        check(None, "captured", Step::Forget);
        check(Some("true"), "captured", Step::Put);
    }
}
