//! Declares the queue of every destination. A queue is declared once and then watched by the scaler, which reads all of
//! them anyway: what it misses is declared again.

use std::collections::BTreeSet;

use grapnel::queue;
use grapnel_crds::Integration;
use grapnel_crds::conditions::reason;
use grapnel_crds::names::queue_name;

use crate::context::Context;
use crate::status::{Problem, Step};

/// The queues that an Integration should have.
pub fn wanted(ctx: &Context, integration: &Integration) -> BTreeSet<String> {
    let destinations = integration.spec.destinations.iter();
    let name = |name: &str| queue_name(&ctx.settings.queue_prefix, integration.id(), name);
    destinations.map(|destination| name(&destination.name)).collect()
}

/// Declares what is not known to be there.
pub async fn declare(ctx: &Context, integration: &Integration) -> Step {
    let wanted = wanted(ctx, integration);
    let id = integration.id();
    let missing: Vec<String> =
        ctx.with_memory(id, |memory| wanted.difference(&memory.declared).cloned().collect());
    if missing.is_empty() {
        return Step::Done;
    }
    if let Err(error) = ctx.leading() {
        return Step::Failed(Problem::passing(reason::QUEUE_UNAVAILABLE, error.to_string()));
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
                return Step::Failed(Problem::stalled(reason::QUEUE_MISMATCH, message));
            }
            return unavailable(&error);
        }
    }
    queue::close(channel).await;
    ctx.with_memory(id, |memory| memory.declared = wanted);
    Step::Done
}

/// The words of the error are the log's: they may change from one attempt to the next, and a status may not.
fn unavailable(error: &grapnel::queue::QueueError) -> Step {
    tracing::warn!(error = %grapnel::telemetry::chain(error), "queues cannot be declared");
    Step::Failed(Problem::passing(reason::QUEUE_UNAVAILABLE, "RabbitMQ cannot be reached"))
}
