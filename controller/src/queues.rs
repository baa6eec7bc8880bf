//! The queues of destinations: declares them, declares missing ones again, and deletes those that are no longer needed.
//!
//! A queue is declared once and then watched by the scaler's readings, which show all queues anyway: one that a reading
//! does not show is declared again.

use std::collections::BTreeSet;
use std::sync::Arc;

use grapnel_core::error_chain::chain;
use grapnel_core::ids::IntegrationId;
use grapnel_crds::conditions::reason;
use grapnel_crds::names::queue_name;
use grapnel_crds::{Integration, IntegrationSpec};
use grapnel_platform::queue::{self, QueueError};

use crate::context::Context;
use crate::error::CallError;
use crate::object::{WatchedObject, integration_id, object_ref};
use crate::report::observation::{StepProblem, StepStatus};

pub mod readings;

use self::readings::QueueReadings;

/// Declares the queues of an Integration that are not known to exist.
pub async fn declare(ctx: &Context, integration: &Integration) -> StepStatus {
    let id = integration_id(integration);
    let wanted = queue_names(ctx, id, [&integration.spec]);
    let missing: Vec<String> =
        ctx.memory.with(id, |memory| wanted.difference(memory.queues.declared()).cloned().collect());
    if missing.is_empty() {
        return StepStatus::Done;
    }
    if let Err(error) = ctx.ensure_leading() {
        return StepStatus::Failed(StepProblem::transient(reason::QUEUE_UNAVAILABLE, error.to_string()));
    }
    // A refused declaration closes its channel, so this one is for these queues alone.
    let channel = match ctx.link.channel().await {
        Ok(channel) => channel,
        Err(error) => return unavailable(&error),
    };
    for name in &missing {
        if let Err(error) = queue::declare(&channel, name).await {
            if error.is_mismatch() {
                let message = format!("the queue {name} exists with other properties; delete it in RabbitMQ");
                return StepStatus::Failed(StepProblem::stalled(reason::QUEUE_MISMATCH, message));
            }
            return unavailable(&error);
        }
    }
    queue::close(channel).await;
    ctx.memory.with(id, |memory| memory.queues.set_declared(wanted));
    StepStatus::Done
}

/// Compares a reading with the queues that should exist: triggers a reconcile of an Integration whose queue is missing,
/// and deletes the queues of removed destinations.
pub async fn maintain(ctx: &Context, objects: &[Arc<WatchedObject>], readings: &QueueReadings) {
    let mut leftover = Vec::new();
    for object in objects {
        let Ok(integration) = &object.0 else { continue };
        let (missing, is_registered) = check(ctx, integration, readings);
        if missing {
            ctx.trigger(object_ref(object));
        }
        // The row comes first: until it is written, the api continues to publish to the queue.
        if is_registered {
            leftover.extend(leftover_queues(ctx, integration, readings));
        }
    }
    delete_leftover(ctx, leftover).await;
}

/// Deletes all queues of an Integration: those of these specs, and those that were declared.
pub async fn delete_all<'a>(
    ctx: &Context,
    id: IntegrationId,
    specs: impl IntoIterator<Item = &'a IntegrationSpec>,
) -> Result<(), CallError> {
    let mut queues = queue_names(ctx, id, specs);
    queues.extend(ctx.memory.with(id, |memory| memory.queues.declared().clone()));
    for queue in queues {
        ctx.ensure_leading()?;
        ctx.link.delete_queue(&queue).await?;
    }
    Ok(())
}

fn queue_names<'a>(
    ctx: &Context,
    id: IntegrationId,
    specs: impl IntoIterator<Item = &'a IntegrationSpec>,
) -> BTreeSet<String> {
    let destinations = specs.into_iter().flat_map(|spec| &spec.destinations);
    destinations.map(|destination| queue_name(&ctx.settings.queue_prefix, id, &destination.name)).collect()
}

/// Returns whether a declared queue is missing, and whether the row has been written for the current generation.
fn check(ctx: &Context, integration: &Integration, readings: &QueueReadings) -> (bool, bool) {
    let id = integration_id(integration);
    let shown: BTreeSet<String> = readings
        .get(&id)
        .into_iter()
        .flat_map(|queues| queues.keys())
        .map(|destination| queue_name(&ctx.settings.queue_prefix, id, destination))
        .collect();
    ctx.memory.with(id, |memory| {
        let missing = memory.queues.forget_missing(|queue| shown.contains(queue));
        (missing, memory.registration.has_generation(integration.metadata.generation))
    })
}

/// Returns the queues of destinations that an Integration no longer has.
fn leftover_queues(ctx: &Context, integration: &Integration, readings: &QueueReadings) -> Vec<String> {
    let id = integration_id(integration);
    let destinations = readings.get(&id).into_iter().flat_map(|queues| queues.keys());
    destinations
        .filter(|name| integration.spec.destination(name).is_none())
        .map(|name| queue_name(&ctx.settings.queue_prefix, id, name))
        .collect()
}

async fn delete_leftover(ctx: &Context, queues: Vec<String>) {
    for queue in queues {
        if !ctx.leadership.is_held() {
            return;
        }
        match ctx.link.delete_queue(&queue).await {
            Ok(()) => tracing::info!(queue, "deleted the queue of a removed destination"),
            Err(error) => {
                tracing::warn!(queue, error = %chain(&error), "cannot delete a queue");
                return;
            }
        }
    }
}

/// The error goes to the log only: its text may differ from one attempt to the next, and a status must not.
fn unavailable(error: &QueueError) -> StepStatus {
    tracing::warn!(error = %chain(error), "cannot declare queues");
    StepStatus::Failed(StepProblem::transient(reason::QUEUE_UNAVAILABLE, "RabbitMQ cannot be reached"))
}
