//! Polls the database for what no watch shows: captured secrets that are not in their Secrets yet, previous secrets that are no
//! longer used, and destinations that are gone.
//!
//! Every few seconds three statements ask for all Integrations at once. Their result is remembered, and an object is
//! triggered only if it changed, so nothing is read or written for an object at rest.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::FutureExt;
use grapnel_core::ids::IntegrationId;
use grapnel_crds::Integration;
use grapnel_crds::conditions::{self, condition};
use grapnel_store::integrations::gone;
use grapnel_store::{captured_secrets, secret_uses};
use jiff::Timestamp;
use kube::Resource;
use tokio_util::sync::CancellationToken;

use super::polls;
use crate::context::Context;
use crate::error::CallError;
use crate::memory::SecretFindings;
use crate::object::{WatchedObject, integration_id, object_ref};
use crate::unused_secrets::{listed, unused};

/// Runs until stopped.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    polls::run(ctx, stop, "verification secrets", |ctx| poll(ctx).boxed()).await;
}

/// Remembers the findings, and triggers the objects whose findings changed.
async fn poll(ctx: &Context) -> Result<(), CallError> {
    let objects = ctx.integrations.state();
    let is_live = |object: &&Arc<WatchedObject>| object.meta().deletion_timestamp.is_none();
    let readable =
        objects.iter().filter(is_live).filter_map(|object| Some((object, object.0.as_ref().ok()?)));
    let readable: Vec<_> =
        readable.map(|(object, integration)| (integration_id(integration), object, integration)).collect();
    let ids: Vec<IntegrationId> = readable.iter().map(|(id, ..)| *id).collect();
    let listed: Vec<_> = readable.iter().flat_map(|(id, _, object)| listed(*id, object)).collect();
    let pending: HashSet<IntegrationId> =
        ctx.database(captured_secrets::waiting(&ctx.db)).await?.into_iter().collect();
    let previous = ctx.database(secret_uses::follow_previous(&ctx.db, &ids, &listed)).await?;
    let mut gone: HashMap<IntegrationId, Vec<String>> =
        ctx.database(gone::all(&ctx.db)).await?.into_iter().collect();
    let now = Timestamp::now();
    for (id, object, integration) in readable {
        let findings = SecretFindings {
            capture_pending: pending.contains(&id),
            unused: unused(id, integration, &previous, now),
            gone: gone.remove(&id).unwrap_or_default(),
        };
        let before = ctx.memory.with(id, |memory| memory.secrets.replace(findings.clone()));
        if before.unwrap_or_else(|| reported_findings(integration)) != findings {
            ctx.trigger(object_ref(object));
        }
    }
    Ok(())
}

/// Returns the findings that an earlier process reported: there is nothing new to report while they are the same.
fn reported_findings(integration: &Integration) -> SecretFindings {
    let Some(status) = &integration.status else { return SecretFindings::default() };
    SecretFindings {
        capture_pending: conditions::find(&status.conditions, condition::CAPTURE_WAITING).is_some(),
        unused: status.verification.clone().unwrap_or_default().unused_previous_secrets,
        // A sentence and no name: whether it still holds is looked at once.
        gone: conditions::find(&status.conditions, condition::DESTINATION_GONE)
            .map(|gone| gone.message.clone())
            .into_iter()
            .collect(),
    }
}
