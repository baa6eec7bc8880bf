//! The deletion of an Integration: refuse webhooks → let accepted deliveries go out, up to a deadline → stop the
//! workers → retire the row → delete the queues → have the history deleted, if requested → release the object.
//!
//! What takes time at any size is recorded and done by the api in the background: the end of the deliveries that are left,
//! and the deletion of the history.
//!
//! Workers are stopped after the drain, because they do the draining. Everything is found by the id of the object, so
//! an object that lost its route, or never had one, owns nothing and touches nothing of the holder. A backend that is
//! down is retried with backoff and holds up no other object; the annotation `grapnel.dev/abandon: "true"` does not
//! wait.

use std::time::Duration;

use grapnel_core::integration::RowState;
use grapnel_crds::conditions::{self, condition, reason};
use grapnel_crds::{DeletionPolicy, Integration, IntegrationSpec, IntegrationState};
use grapnel_store::audit::{self, ObjectEnd};
use grapnel_store::integrations::purge;
use grapnel_store::integrations::retire::{self, RetireOutcome};
use grapnel_store::integrations::{self as rows, StoredRow};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};

use super::workers::{delete_workers, observe_cached};
use crate::api::{has_finalizer, remove_finalizer};
use crate::context::Context;
use crate::error::CallError;
use crate::object::{WatchedObject, id_of, last_manager, object_ref};
use crate::report::observation::{DeletionPhase, Observation};
use crate::report::{events, report, with_newest_status};
use crate::{metrics, queues};

/// Annotation: release the object at once, without cleaning up.
pub const ABANDON: &str = "grapnel.dev/abandon";

/// How often a drain is checked.
const DRAIN_POLL: Duration = Duration::from_secs(1);

/// How long a drain takes at least: until then an api process may not know of it and still accept webhooks.
const DRAIN_LEAST: Duration = Duration::from_secs(2);

/// Runs one pass, from wherever the last one ended.
pub async fn clean_up(ctx: &Context, object: &WatchedObject) -> Result<Action, CallError> {
    if !has_finalizer(object) {
        return Ok(Action::await_change());
    }
    let integration = object.0.as_ref().ok();
    if object.annotations().get(ABANDON).is_some_and(|value| value == "true") {
        let note = "released without cleaning up, as the annotation asks";
        publish_warning(ctx, integration, events::ABANDONED, note).await;
        delete_workers(ctx, id_of(object)).await?;
        return release(ctx, object).await;
    }
    match remove(ctx, object).await {
        Ok(DeletionProgress::Removed) => release(ctx, object).await,
        Ok(DeletionProgress::Draining { open, wait }) => {
            let message = format!("deliveries that are still going out: {}", counted(open));
            report_phase(ctx, integration, DeletionPhase::Draining(message)).await?;
            Ok(Action::requeue(wait))
        }
        Err(error) => {
            let message = format!(
                "{}; the annotation {ABANDON}: \"true\" releases the object without cleaning up",
                progress_message(&error)
            );
            report_phase(ctx, integration, DeletionPhase::Deleting(message)).await?;
            Err(error)
        }
    }
}

fn progress_message(error: &CallError) -> &'static str {
    match error {
        _ if error.is_of_database() => "waiting for PostgreSQL",
        CallError::Queue(_) => "waiting for RabbitMQ",
        _ => "being removed",
    }
}

enum DeletionProgress {
    Draining { open: i64, wait: Duration },
    Removed,
}

async fn remove(ctx: &Context, object: &WatchedObject) -> Result<DeletionProgress, CallError> {
    let id = id_of(object);
    let spec = object.0.as_ref().ok().map(|integration| &integration.spec);
    let found = ctx.database(rows::find(&ctx.db, id)).await?;
    let live = found.as_ref().filter(|found| !found.deleted);
    if let Some(live) = live
        && let Some(draining) = drain(ctx, object, spec, live).await?
    {
        return Ok(draining);
    }
    delete_workers(ctx, id).await?;
    if live.is_some() {
        let end = ObjectEnd {
            deleted_at: object.meta().deletion_timestamp.as_ref().map(|time| time.0),
            last_manager: last_manager(object.meta()).map(str::to_owned),
        };
        match ctx.database(retire::retire(&ctx.db, id, ctx.leadership.epoch, audit::CONTROLLER, &end)).await?
        {
            RetireOutcome::Now { given_up } if given_up > 0 => {
                let note =
                    format!("{} deliveries were given up before they were finished", counted(given_up));
                publish_warning(ctx, object.0.as_ref().ok(), events::DELIVERIES_GIVEN_UP, &note).await;
            }
            RetireOutcome::Now { .. } | RetireOutcome::Before => {}
            RetireOutcome::Superseded => return Err(CallError::Superseded),
        }
    }
    if let Some(found) = &found {
        let registered: Option<IntegrationSpec> = serde_json::from_str(&found.row.spec).ok();
        queues::delete_all(ctx, id, spec.into_iter().chain(&registered)).await?;
        if spec.is_some_and(|spec| spec.deletion_policy == DeletionPolicy::Delete) {
            ctx.database(purge::purge(&ctx.db, id, audit::CONTROLLER)).await?;
        }
    }
    Ok(DeletionProgress::Removed)
}

/// Lets deliveries go out until the deadline. Returns the progress while the drain is not over.
async fn drain(
    ctx: &Context,
    object: &WatchedObject,
    spec: Option<&IntegrationSpec>,
    live: &StoredRow,
) -> Result<Option<DeletionProgress>, CallError> {
    let Some(spec) = spec.filter(|spec| spec.state == IntegrationState::Active) else { return Ok(None) };
    let timeout = Duration::from_secs(u64::try_from(spec.drain_timeout_seconds).unwrap_or(0));
    let elapsed = time_since_deletion(object);
    if elapsed >= timeout {
        return Ok(None);
    }
    let is_draining = live.row.state == RowState::Draining;
    if !is_draining
        && !ctx.database(retire::start_draining(&ctx.db, live.row.id, ctx.leadership.epoch)).await?
    {
        return Err(CallError::Superseded);
    }
    let open = ctx.database(retire::open_deliveries(&ctx.db, live.row.id)).await?;
    if open == 0 && is_draining && elapsed >= DRAIN_LEAST {
        return Ok(None);
    }
    let wait = DRAIN_POLL.min(timeout.saturating_sub(elapsed)).max(Duration::from_millis(100));
    Ok(Some(DeletionProgress::Draining { open, wait }))
}

/// Times in objects are from the API server's clock; a difference makes the drain longer or shorter by that much.
fn time_since_deletion(object: &WatchedObject) -> Duration {
    let Some(deleted) = &object.meta().deletion_timestamp else { return Duration::ZERO };
    Duration::try_from(Timestamp::now().duration_since(deleted.0)).unwrap_or(Duration::ZERO)
}

/// Returns a number of open deliveries as text.
fn counted(open: i64) -> String {
    if open > retire::COUNTED { format!("more than {}", retire::COUNTED) } else { open.to_string() }
}

/// Removes the finalizer, and triggers the Integrations that wait for the route or for a place in the namespace.
async fn release(ctx: &Context, object: &WatchedObject) -> Result<Action, CallError> {
    remove_finalizer::<Integration>(ctx, object).await?;
    tracing::info!(integration = %object_ref(object), "removed");
    metrics::removed();
    ctx.memory.forget(id_of(object));
    let route = object.0.as_ref().ok().map(Integration::route);
    for other in ctx.integrations.state() {
        if let Ok(waiting) = &other.0
            && (route == Some(waiting.route()) || waits_for_place(waiting, object.meta()))
            && id_of(&other) != id_of(object)
        {
            ctx.trigger(object_ref(&other));
        }
    }
    Ok(Action::await_change())
}

fn waits_for_place(integration: &Integration, removed: &ObjectMeta) -> bool {
    let status = integration.status.as_ref();
    let accepted = status.and_then(|status| conditions::find(&status.conditions, condition::ACCEPTED));
    integration.metadata.namespace == removed.namespace
        && accepted.is_some_and(|accepted| accepted.reason == reason::NAMESPACE_LIMIT_REACHED)
}

async fn report_phase(
    ctx: &Context,
    integration: Option<&Integration>,
    phase: DeletionPhase,
) -> Result<(), CallError> {
    let Some(integration) = integration else { return Ok(()) };
    let integration = with_newest_status(ctx, integration);
    let workers = observe_cached(ctx, &integration);
    let observed = Observation { deletion: Some(phase), workers, ..Observation::default() };
    report(ctx, &integration, &observed).await
}

async fn publish_warning(ctx: &Context, integration: Option<&Integration>, reason: &str, note: &str) {
    if let Some(integration) = integration {
        let event = events::event(EventType::Warning, "Delete", reason, note);
        events::publish(&ctx.recorder, integration, &[event]).await;
    }
}
