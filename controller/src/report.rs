//! Reports an Integration: writes its status if it differs, and publishes Events for what changed.

use grapnel_crds::Integration;
use jiff::Timestamp;

use crate::api::apply_status;
use crate::context::Context;
use crate::error::CallError;
use crate::object::integration_id;

pub mod status;
pub mod events;

use self::status::{Observation, status};

/// Writes the status, if it differs, and publishes the Events of the change.
pub async fn report(
    ctx: &Context,
    integration: &Integration,
    observed: &Observation,
) -> Result<(), CallError> {
    let next = status(integration, observed, ctx.settings.public_url.as_ref(), Timestamp::now());
    if integration.status.as_ref() == Some(&next) {
        return Ok(());
    }
    apply_status(ctx, integration, &next).await?;
    ctx.memory.with(integration_id(integration), |memory| {
        // The version of the cache, and the one that adding the finalizer made of it.
        let versions = [integration.metadata.resource_version.clone(), memory.pass.version().cloned()];
        memory.status.record(next.clone(), versions.into_iter().flatten());
    });
    let events = events::transitions(integration.status.as_ref(), &next);
    events::publish(&ctx.recorder, integration, &events).await;
    Ok(())
}

/// Returns the object with the status that this process wrote last, if the cache is behind it.
pub fn with_newest_status(ctx: &Context, integration: &Integration) -> Integration {
    let mut integration = integration.clone();
    let version = integration.metadata.resource_version.clone().unwrap_or_default();
    let newer =
        ctx.memory.with(integration_id(&integration), |memory| memory.status.newer_than(&version).cloned());
    if newer.is_some() {
        integration.status = newer;
    }
    integration
}
