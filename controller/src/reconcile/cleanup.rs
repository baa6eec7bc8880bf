//! The end of an Integration: refuse webhooks → let what was accepted go out, up to a deadline → stop the workers →
//! retire the row → delete the queues → delete the history, if asked for → release the object.
//!
//! Workers are stopped after the drain, because they are what drains. Everything is found by the id of the object, so an
//! object that lost its route, or never got one, owns nothing and touches nothing of the holder. A backend that is away
//! is waited for with backoff and holds up no other object; the annotation `grapnel.dev/abandon: "true"` does not wait.

use std::collections::BTreeSet;
use std::time::Duration;

use grapnel::store::integrations::{self as rows, Found};
use grapnel::store::retire::{self, Retired};
use grapnel_crds::names::{self, FINALIZER, queue_name};
use grapnel_crds::{DeletionPolicy, Integration, IntegrationSpec, IntegrationState};
use jiff::Timestamp;
use kube::api::DeleteParams;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use uuid::Uuid;

use crate::context::{CallError, Context, MANAGER, Watched};
use crate::reconcile::{id_of, object_ref, report, with_newest_status, write_finalizers};
use crate::status::{Deletion, Observed};
use crate::{apply_workers, events, metrics};

/// Annotation: release the object at once, whatever is left.
pub const ABANDON: &str = "grapnel.dev/abandon";

/// How often a drain is looked at.
const DRAIN_POLL: Duration = Duration::from_secs(1);

/// How long after it began a drain may be over: until then an api may not have heard of it and still accept.
const DRAIN_LEAST: Duration = Duration::from_secs(2);

/// One pass, from wherever the last one ended.
pub async fn clean_up(ctx: &Context, object: &Watched) -> Result<Action, CallError> {
    if !object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(Action::await_change());
    }
    let integration = object.0.as_ref().ok();
    if object.annotations().get(ABANDON).is_some_and(|value| value == "true") {
        tell(ctx, integration, events::ABANDONED, "released without cleaning up, as the annotation asks")
            .await;
        stop_workers(ctx, id_of(object)).await?;
        return release(ctx, object).await;
    }
    match remove(ctx, object).await {
        Ok(Progress::Removed) => release(ctx, object).await,
        Ok(Progress::Draining { open, wait }) => {
            let message = format!("deliveries that are still going out: {open}");
            say(ctx, integration, Deletion::Draining(message)).await?;
            Ok(Action::requeue(wait))
        }
        Err(error) => {
            let message = match &error {
                CallError::Database(_) | CallError::Schema(_) | CallError::TimedOut("PostgreSQL") => {
                    "waits for PostgreSQL"
                }
                CallError::Queue(_) => "waits for RabbitMQ",
                _ => "is being removed",
            };
            let message =
                format!("{message}; the annotation {ABANDON}: \"true\" releases the object without");
            say(ctx, integration, Deletion::Deleting(message)).await?;
            Err(error)
        }
    }
}

enum Progress {
    Draining { open: i64, wait: Duration },
    Removed,
}

async fn remove(ctx: &Context, object: &Watched) -> Result<Progress, CallError> {
    let id = id_of(object);
    let spec = object.0.as_ref().ok().map(|integration| &integration.spec);
    let found = ctx.database(rows::find(&ctx.pool, id)).await?;
    let live = found.as_ref().filter(|found| !found.deleted);
    if let Some(live) = live
        && let Some(draining) = drain(ctx, object, spec, live).await?
    {
        return Ok(draining);
    }
    stop_workers(ctx, id).await?;
    if live.is_some() {
        match ctx.database(retire::retire(&ctx.pool, id, ctx.lead.epoch, MANAGER)).await? {
            Retired::Now { given_up } if given_up > 0 => {
                let note = format!("{given_up} deliveries were not finished and are given up");
                tell(ctx, object.0.as_ref().ok(), events::DELIVERIES_GIVEN_UP, &note).await;
            }
            Retired::Now { .. } | Retired::Before => {}
            Retired::Superseded => return Err(CallError::Superseded),
        }
    }
    if let Some(found) = &found {
        delete_queues(ctx, id, spec, found).await?;
        if spec.is_some_and(|spec| spec.deletion_policy == DeletionPolicy::Delete) {
            purge(ctx, id).await?;
        }
    }
    Ok(Progress::Removed)
}

/// Lets deliveries go out while they may; answers when it is not over.
async fn drain(
    ctx: &Context,
    object: &Watched,
    spec: Option<&IntegrationSpec>,
    live: &Found,
) -> Result<Option<Progress>, CallError> {
    let Some(spec) = spec.filter(|spec| spec.state == IntegrationState::Active) else { return Ok(None) };
    let timeout = Duration::from_secs(u64::try_from(spec.drain_timeout_seconds).unwrap_or(0));
    let elapsed = since_deletion(object);
    if elapsed >= timeout {
        return Ok(None);
    }
    let began = live.row.state == grapnel::integrations::DRAINING;
    if !began && !ctx.database(retire::start_draining(&ctx.pool, live.row.id, ctx.lead.epoch)).await? {
        return Err(CallError::Superseded);
    }
    let open = ctx.database(retire::open_deliveries(&ctx.pool, live.row.id)).await?;
    if open == 0 && began && elapsed >= DRAIN_LEAST {
        return Ok(None);
    }
    let wait = DRAIN_POLL.min(timeout.saturating_sub(elapsed)).max(Duration::from_millis(100));
    Ok(Some(Progress::Draining { open, wait }))
}

/// Times of objects are the API server's; a clock that differs makes the drain longer or shorter by that much.
fn since_deletion(object: &Watched) -> Duration {
    let Some(deleted) = &object.meta().deletion_timestamp else { return Duration::ZERO };
    Duration::try_from(Timestamp::now().duration_since(deleted.0)).unwrap_or(Duration::ZERO)
}

/// Deletes the worker Deployment, if there is one.
pub async fn stop_workers(ctx: &Context, id: Uuid) -> Result<(), CallError> {
    ctx.leading()?;
    let name = names::worker_deployment(id);
    match ctx.api(ctx.deployments_api().delete(&name, &DeleteParams::background())).await {
        Ok(_) => Ok(()),
        Err(CallError::Api(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// The queues of the object, of the row, and those that were seen.
async fn delete_queues(
    ctx: &Context,
    id: Uuid,
    spec: Option<&IntegrationSpec>,
    found: &Found,
) -> Result<(), CallError> {
    ctx.leading()?;
    let registered: Option<IntegrationSpec> = serde_json::from_str(&found.row.spec).ok();
    let destinations = spec.into_iter().chain(registered.as_ref()).flat_map(|spec| &spec.destinations);
    let mut queues: BTreeSet<String> = destinations
        .map(|destination| queue_name(&ctx.settings.queue_prefix, id, &destination.name))
        .collect();
    queues.extend(ctx.with_memory(id, |memory| memory.declared.clone()));
    for queue in queues {
        ctx.link.delete_queue(&queue).await?;
    }
    Ok(())
}

/// Deletes the history, a batch at a time.
async fn purge(ctx: &Context, id: Uuid) -> Result<(), CallError> {
    let mut cursor = Uuid::nil();
    while let Some(next) = ctx.database(retire::purge(&ctx.pool, id, cursor, MANAGER)).await? {
        cursor = next;
    }
    Ok(())
}

/// Lets the object go, and gives others the chance to take its route.
async fn release(ctx: &Context, object: &Watched) -> Result<Action, CallError> {
    drop_finalizer(ctx, object).await?;
    tracing::info!(integration = %object_ref(object), "removed");
    metrics::removed();
    ctx.forget(id_of(object));
    if let Ok(integration) = &object.0 {
        for other in ctx.integrations.state() {
            if let Ok(waiting) = &other.0
                && waiting.route() == integration.route()
                && waiting.id() != integration.id()
            {
                ctx.trigger(object_ref(&other));
            }
        }
    }
    Ok(Action::await_change())
}

/// On the condition that the object has not changed; the cache may be behind, so a second try is on what is there.
async fn drop_finalizer(ctx: &Context, object: &Watched) -> Result<(), CallError> {
    let kept = |finalizers: &[String]| -> Vec<String> {
        finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect()
    };
    let written = write_finalizers(ctx, object, &kept(object.finalizers())).await;
    let written = match written {
        Err(CallError::Api(kube::Error::Api(status))) if status.is_conflict() => {
            let api = ctx.integrations_api(&object.namespace().unwrap_or_default());
            let current = ctx.api(api.get_metadata_opt(&object.name_any())).await?;
            match current.filter(|current| current.uid() == object.uid()) {
                Some(current) => write_finalizers(ctx, &current, &kept(current.finalizers())).await,
                None => return Ok(()),
            }
        }
        written => written,
    };
    match written {
        Ok(_) => Ok(()),
        Err(CallError::Api(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

async fn say(ctx: &Context, integration: Option<&Integration>, deletion: Deletion) -> Result<(), CallError> {
    let Some(integration) = integration else { return Ok(()) };
    let integration = with_newest_status(ctx, integration);
    let workers = apply_workers::observe_cached(ctx, &integration);
    let observed = Observed { deletion: Some(deletion), workers, ..Observed::default() };
    report(ctx, &integration, &observed).await
}

async fn tell(ctx: &Context, integration: Option<&Integration>, reason: &str, note: &str) {
    if let Some(integration) = integration {
        let event = events::event(EventType::Warning, "Delete", reason, note);
        events::publish(&ctx.recorder, integration, &[event]).await;
    }
}
