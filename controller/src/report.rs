//! Reports an Integration: writes its status if it differs, and publishes Events for what changed.

use std::sync::Arc;

use grapnel_core::ids::IntegrationId;
use grapnel_crds::{Integration, IntegrationStatus};
use jiff::Timestamp;

use crate::api::apply_status;
use crate::context::Context;
use crate::error::CallError;
use crate::object::integration_id;
use crate::status_copies::bounded::bounded;

pub mod events;
pub mod observation;
pub mod status;

use self::observation::Observation;
use self::status::status;

/// Writes the status, if it differs, and publishes the Events of the change.
pub async fn report(
    ctx: &Context,
    integration: &Integration,
    observed: &Observation,
) -> Result<(), CallError> {
    let next = status(integration, observed, ctx.settings.public_url.as_ref(), Timestamp::now());
    let id = integration_id(integration);
    if integration.status.as_ref() == Some(&next) {
        note_reported(ctx, id, &next);
        return Ok(());
    }
    apply_status::<Integration>(ctx, integration, &next).await?;
    note_reported(ctx, id, &next);
    ctx.memory.with(id, |memory| {
        // The version of the cache, and the one that adding the finalizer made of it.
        let versions = [integration.metadata.resource_version.clone(), memory.pass.version().cloned()];
        memory.status.record(next.clone(), versions.into_iter().flatten());
    });
    let events = events::transitions(integration.status.as_ref(), &next);
    events::publish(&ctx.recorder, integration, &events).await;
    Ok(())
}

/// Notes the status that the object has, which is copied to the database.
pub fn note_reported(ctx: &Context, id: IntegrationId, status: &IntegrationStatus) {
    let copy = Arc::new(bounded(status));
    ctx.memory.with(id, |memory| memory.copy.status = Some(copy));
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
