//! One pass over one Integration: put a captured secret where it belongs → validate → resolve Secrets → claim the route and
//! write the row → declare queues → apply the worker Deployment → report.
//!
//! What always holds: a pass may end anywhere and be repeated from the beginning; it writes only what differs; a step
//! that fails leaves what earlier passes have built as it is, so webhooks go on under the last good settings.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use grapnel::preset;
use grapnel_crds::conditions::{UNKNOWN, reason};
use grapnel_crds::names::{self, FINALIZER};
use grapnel_crds::{FieldError, Integration, IntegrationState};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::context::{CallError, Context, MANAGER, Registration, Reported, Watched};
use crate::resolve_secrets::{Unresolved, resolve_secrets};
use crate::scale::consider;
use crate::status::{Captured, Observed, Problem, Scaling, Step, status};
use crate::{apply_workers, backoff, cleanup, events, metrics, queues, register, secrets, undecodable};

/// A pass takes milliseconds; this ends one that every backend delays as long as it can.
const PASS_DEADLINE: Duration = Duration::from_secs(60);

/// How often an object is looked at although nothing happened: a lost notification only delays.
pub const RESYNC: Duration = Duration::from_secs(600);

/// How often a captured secret is tried again whose Secret could not be written.
const CAPTURE_AGAIN: Duration = Duration::from_secs(30);

/// How long a row counts as compared: less than the shortest time between two looks.
const COMPARE_AGAIN: Duration = Duration::from_secs(450);

/// Reconciles an object and says when to look again.
pub async fn reconcile(object: Arc<Watched>, ctx: Arc<Context>) -> Result<Action, CallError> {
    let started = Instant::now();
    let outcome = match timeout(PASS_DEADLINE, pass(&object, &ctx)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(CallError::TimedOut("a pass")),
    };
    metrics::reconciled(started.elapsed(), outcome.as_ref().err());
    outcome
}

/// When an object is tried again that failed.
pub fn after_error(object: Arc<Watched>, error: &CallError, ctx: Arc<Context>) -> Action {
    if matches!(error, CallError::NotLeading) {
        return Action::await_change();
    }
    let meta = object_ref(&object);
    tracing::warn!(integration = %meta, error = %grapnel::telemetry::chain(error), "reconciling failed");
    let failures = ctx.with_memory(id_of(&object), |memory| {
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    });
    // What waits for a backend with its deletion goes on soon after the backend is back.
    let is_going = kube::Resource::meta(&*object).deletion_timestamp.is_some();
    let longest = if is_going { backoff::LONGEST_OF_DELETIONS } else { backoff::LONGEST };
    Action::requeue(backoff::delay(failures, rand::random()).min(longest))
}

pub fn object_ref(object: &Watched) -> ObjectRef<Watched> {
    ObjectRef::from_obj(object)
}

/// The id of an object that may not be readable otherwise.
pub fn id_of(object: &Watched) -> uuid::Uuid {
    let meta = kube::Resource::meta(object);
    let namespace = meta.namespace.as_deref().unwrap_or(names::DEFAULT_NAMESPACE);
    names::integration_id(meta.uid.as_deref(), namespace, meta.name.as_deref().unwrap_or_default())
}

async fn pass(object: &Watched, ctx: &Context) -> Result<Action, CallError> {
    ctx.leading()?;
    let id = id_of(object);
    let version = kube::Resource::meta(object).resource_version.clone();
    ctx.with_memory(id, |memory| memory.reconciled = version);
    if kube::Resource::meta(object).deletion_timestamp.is_some() {
        return cleanup::clean_up(ctx, object).await;
    }
    let integration = match &object.0 {
        Ok(integration) => with_newest_status(ctx, integration),
        Err(invalid) => return undecodable::report(ctx, object, invalid).await,
    };
    let integration = ensure_finalizer(ctx, integration).await?;
    let (captured, capture_failure) = match secrets::captured::settle(ctx, &integration).await {
        Ok(captured) => (captured, None),
        Err(error) => (Captured::Unknown, Some(error)),
    };
    let (mut observed, failure) = steps(ctx, &integration).await;
    observed.unused =
        ctx.with_memory(id, |memory| memory.secrets.as_ref().map(|secrets| secrets.unused.clone()));
    // Nobody tells when the right to write a Secret is there.
    let waits_for_us = matches!(&captured, Captured::Waiting(problem) if problem.status == UNKNOWN);
    observed.captured = captured;
    report(ctx, &integration, &observed).await?;
    match failure.or(capture_failure) {
        Some(error) => Err(error),
        None => {
            ctx.with_memory(id, |memory| memory.failures = 0);
            let again = if waits_for_us { CAPTURE_AGAIN } else { RESYNC };
            Ok(Action::requeue(backoff::jittered(again, rand::random())))
        }
    }
}

/// What the API server refuses as well, but for what a newer definition lets through.
fn refusal(integration: &Integration, errors: &[FieldError]) -> Problem {
    let message = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let unknown = preset::unknown(&integration.spec).is_some();
    Problem::stalled(if unknown { reason::UNSUPPORTED_PROVIDER } else { reason::INVALID_SPEC }, message)
}

/// The steps in their order. What they came to is reported also when one failed, which is answered beside it.
async fn steps(ctx: &Context, integration: &Integration) -> (Observed, Option<CallError>) {
    let mut observed = Observed {
        workers: apply_workers::observe_cached(ctx, integration),
        scaling: scaling(ctx, integration),
        ..Observed::default()
    };
    let errors = integration.validate();
    if !errors.is_empty() {
        observed.accepted = Step::Failed(refusal(integration, &errors));
        return (observed, None);
    }
    observed.accepted = Step::Done;
    observed.doubt = preset::doubt(&integration.spec);
    if is_registered(ctx, integration) {
        (observed.secrets, observed.registered) = (Step::Done, Step::Done);
    } else {
        match enter(ctx, integration, &mut observed).await {
            Ok(()) if observed.registered == Step::Done => {}
            Ok(()) => return (observed, None),
            Err(error) => return (observed, Some(error)),
        }
    }
    observed.queues = queues::declare(ctx, integration).await;
    let queue_failure = match &observed.queues {
        Step::Failed(problem) if problem.status != grapnel_crds::conditions::FALSE => {
            Some(CallError::Unavailable("RabbitMQ"))
        }
        _ => None,
    };
    match apply_workers::apply_workers(ctx, integration).await {
        Ok(workers) => observed.workers = workers,
        Err(error) => return (observed, Some(error)),
    }
    (observed, queue_failure)
}

/// Whether the row was compared with all that it is made of, and none of it has changed since. A pass has many causes,
/// and most say nothing about the row.
fn is_registered(ctx: &Context, integration: &Integration) -> bool {
    let now = ctx.now();
    ctx.with_memory(integration.id(), |memory| {
        memory.registered.is_some_and(|row| {
            row.generation == integration.metadata.generation
                && row.secret_changes == memory.secret_changes
                && now.saturating_sub(row.at) < COMPARE_AGAIN
        })
    })
}

/// Resolves the Secrets and writes the row. What that came to is in `observed`.
async fn enter(ctx: &Context, integration: &Integration, observed: &mut Observed) -> Result<(), CallError> {
    let id = integration.id();
    let secret_changes = ctx.with_memory(id, |memory| memory.secret_changes);
    let secrets = match resolve_secrets(ctx, integration).await {
        Ok(secrets) => secrets,
        Err(Unresolved::Problem(problem)) => {
            observed.secrets = Step::Failed(problem);
            return turn_off(ctx, integration).await;
        }
        Err(Unresolved::Call(error)) => return Err(error),
    };
    observed.secrets = Step::Done;
    let registered = match register::register(ctx, integration, &secrets).await {
        Ok(registered) => registered,
        Err(error) => {
            observed.registered = Step::Failed(database_problem());
            return Err(error);
        }
    };
    (observed.accepted, observed.secrets) = (registered.accepted, registered.secrets);
    observed.registered = registered.registered;
    if observed.registered != Step::Done {
        return Ok(());
    }
    let generation = integration.metadata.generation;
    let registration = Registration { generation, secret_changes, at: ctx.now() };
    ctx.with_memory(id, |memory| memory.registered = Some(registration));
    if registered.before.is_some_and(|before| register::scale_was_ignored(&before, &integration.spec)) {
        let note = "spec.workers.replicas has no effect while spec.workers.scaling.mode is Auto";
        let event = events::event(EventType::Warning, "Scale", events::SCALE_IGNORED, note);
        events::publish(&ctx.recorder, integration, &[event]).await;
    }
    Ok(())
}

/// An Integration that is to be off is turned off also when its Secrets are gone.
async fn turn_off(ctx: &Context, integration: &Integration) -> Result<(), CallError> {
    if integration.spec.state == IntegrationState::Disabled {
        register::disable(ctx, integration).await?;
    }
    Ok(())
}

pub fn database_problem() -> Problem {
    Problem::passing(reason::DATABASE_UNAVAILABLE, "PostgreSQL cannot be used")
}

/// What the scaler came to last, or will come to.
fn scaling(ctx: &Context, integration: &Integration) -> Scaling {
    let is_new = integration.status.as_ref().is_none_or(|status| status.scaling.is_none());
    let least = is_new.then(|| apply_workers::least_replicas(integration, ctx.settings.max_workers));
    let readable = ctx.backlog_is_readable.load(Ordering::Relaxed);
    ctx.with_memory(integration.id(), |memory| {
        let decision = memory.scale.decision.as_ref();
        Scaling {
            active: memory.scale.active.clone().or_else(|| consider::beforehand(integration)),
            expected: readable.then(consider::expected),
            desired: decision.map(|decision| decision.replicas).or(least),
            limited_by: decision.and_then(|decision| decision.limited_by.map(str::to_owned)),
            last_decision: memory.scale.last_change.clone(),
        }
    })
}

/// The cache may be behind a status that this process wrote.
pub fn with_newest_status(ctx: &Context, integration: &Integration) -> Integration {
    let mut integration = integration.clone();
    let version = integration.metadata.resource_version.clone().unwrap_or_default();
    ctx.with_memory(integration.id(), |memory| {
        if let Some(reported) =
            memory.reported.as_ref().filter(|reported| reported.replaced.contains(&version))
        {
            integration.status = Some(reported.status.clone());
        }
    });
    integration
}

/// The finalizer comes before everything that would have to be cleaned up.
async fn ensure_finalizer(ctx: &Context, integration: Integration) -> Result<Integration, CallError> {
    if integration.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(integration);
    }
    let mut finalizers = integration.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    let status = integration.status.clone();
    let mut written = write_finalizers(ctx, &integration, &finalizers).await?;
    written.status = status;
    Ok(written)
}

/// Writes the list on the condition that the object has not changed.
pub async fn write_finalizers(
    ctx: &Context,
    integration: &impl ResourceExt,
    finalizers: &[String],
) -> Result<Integration, CallError> {
    ctx.leading()?;
    let namespace = integration.namespace().unwrap_or_default();
    let patch =
        json!({"metadata": {"resourceVersion": integration.resource_version(), "finalizers": finalizers}});
    let api = ctx.integrations_api(&namespace);
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    ctx.api(api.patch(&integration.name_any(), &parameters, &Patch::Merge(&patch))).await
}

/// Writes the status, if it differs, and tells what changed.
pub async fn report(ctx: &Context, integration: &Integration, observed: &Observed) -> Result<(), CallError> {
    let next = status(integration, observed, ctx.settings.public_url.as_ref(), Timestamp::now());
    if integration.status.as_ref() == Some(&next) {
        return Ok(());
    }
    ctx.leading()?;
    let name = integration.name_any();
    let patch = json!({
        "apiVersion": grapnel_crds::API_VERSION,
        "kind": grapnel_crds::KIND,
        // An object of the same name that came later is another one.
        "metadata": {"name": name, "uid": integration.metadata.uid},
        "status": next,
    });
    let api = ctx.integrations_api(&integration.namespace_or_default());
    let parameters = PatchParams::apply(MANAGER).force();
    ctx.api(api.patch_status(&name, &parameters, &Patch::Apply(&patch))).await?;
    metrics::status_written();
    ctx.with_memory(integration.id(), |memory| {
        // The version of the cache, and the one that the finalizer made of it.
        let found = [integration.metadata.resource_version.clone(), memory.reconciled.clone()];
        let replaced = memory.reported.take().map(|reported| reported.replaced).unwrap_or_default();
        // The last few are enough: the cache moves on.
        let replaced: Vec<String> = found.into_iter().flatten().chain(replaced).take(4).collect();
        memory.reported = Some(Reported { status: next.clone(), replaced });
    });
    let events = events::transitions(integration.status.as_ref(), &next);
    events::publish(&ctx.recorder, integration, &events).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_that_is_newer_than_the_controller_is_told_apart_from_a_mistake() {
        let reason = |provider: &str, url: &str| {
            let spec = json!({
                "provider": provider, "verification": {"secretRef": {"name": "s"}},
                "destinations": [{"name": "orders", "url": url}],
            });
            let integration = Integration::new("orders", serde_json::from_value(spec).unwrap());
            refusal(&integration, &integration.validate()).reason
        };
        assert_eq!(reason("initech", "https://orders.example"), reason::UNSUPPORTED_PROVIDER);
        assert_eq!(reason("acme", "ftp://orders.example"), reason::INVALID_SPEC);
    }
}
